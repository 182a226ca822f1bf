"""The control files of who may send us mail, and how much: beside rules, rcpthosts and the size.

netqmail's are morercpthosts, badmailfrom and localiphost; badrcptto, badhelo and the limits have names
and meanings that its descendants gave them, or are openqmail's own.
"""

from openqmail.core.control import syntax
from openqmail.core.control.blocklists import blocklist, score
from openqmail.core.control.cdb import Cdb, CdbDamaged
from openqmail.core.control.definition import Definition, number
from openqmail.core.control.text import ControlText, members, sequence, value
from openqmail.core.values.address import canonical_domain

MANY = 100_000_000


def _domains(text: ControlText) -> frozenset[bytes]:
    """The keys of a cdb that qmail-newmrh made, which knows nothing of A-labels: domains and .suffixes."""
    if not text.content:
        return frozenset()
    try:
        return frozenset(_spelt(key) for key, _ in Cdb(text.content, text.file).items())
    except CdbDamaged:
        text.problem(
            0, "is damaged; make it anew with qmail-newmrh, or remove it beside control/morercpthosts"
        )
        return frozenset()


def _spelt(key: bytes) -> bytes:
    dot = key[:1] if key.startswith(b".") else b""
    return dot + canonical_domain(key.removeprefix(b"."))


def _switch(name: str, explanation: str) -> Definition:
    return Definition(
        name=name,
        kind="0 or 1",
        default="0",
        readers=("smtpd",),
        explanation=explanation,
        example="1",
        parse=value(syntax.switch),
    )


WHO = (
    Definition(
        name="morercpthosts",
        kind="a list of domains and .suffixes",
        default="",
        readers=("smtpd",),
        explanation=(
            "More of control/rcpthosts. Read itself; where control/morercpthosts.cdb is there and not older, "
            "that is read in its place."
        ),
        example="example.net\n.example.net",
        parse=members(syntax.suffix),
    ),
    Definition(
        name="morercpthosts.cdb",
        kind="a constant database",
        default="",
        readers=("smtpd",),
        explanation=(
            "What qmail-newmrh has made of control/morercpthosts. openqmail needs none and makes none; one "
            "of a home that was taken over is honoured until control/morercpthosts is newer."
        ),
        example="(qmail-newmrh writes it)",
        parse=_domains,
        binary=True,
    ),
    Definition(
        name="localiphost",
        kind="a host's name",
        default="me",
        readers=("smtpd",),
        explanation=(
            "What takes the place of an address of this host in a recipient: mail to user@[192.0.2.1] is for "
            "user@localiphost, when the client has connected to 192.0.2.1 or control/listen names it."
        ),
        example="mail.example.org",
        parse=value(syntax.host),
    ),
    Definition(
        name="badmailfrom",
        kind="a list of addresses, @domains and .suffixes",
        default="",
        readers=("smtpd",),
        explanation=(
            "Senders whose mail is refused, every recipient with 553, whoever the client is: "
            "user@example.org, @example.org for a domain, .example.org for all below it. The case of letters "
            "means nothing."
        ),
        example="spammer@example.net\n@example.com\n.example.com",
        parse=members(syntax.barred),
    ),
    Definition(
        name="badrcptto",
        kind="a list of addresses, @domains and .suffixes",
        default="",
        readers=("smtpd",),
        explanation="Recipients that are refused with 553, whoever the client is; written like "
        "control/badmailfrom.",
        example="former@example.org",
        parse=members(syntax.barred),
    ),
    Definition(
        name="badhelo",
        kind="a list of names, .suffixes and patterns with *",
        default="",
        readers=("smtpd",),
        explanation=(
            "Names in EHLO and HELO that are refused with 550: host.example, .example for all below it, or a "
            "pattern in which * stands for any letters. Good candidates are this host's own names, which no "
            "other host should use. Clients with RELAYCLIENT may say what they like."
        ),
        example="mail.example.org\nlocalhost\n*.local",
        parse=sequence(syntax.bad_helo),
    ),
)

HOW_MUCH = (
    number(
        "concurrencynetwork",
        50,
        0,
        100_000,
        "a number of connections",
        readers=("smtpd", "gate"),
        explanation="How many connections a client's network (/24 of IPv4, /64 of IPv6) may have open at "
        "once; more are turned away with 421. 0 sets no limit. Clients with RELAYCLIENT are not counted.",
    ),
    number(
        "recipientsperhour",
        10_000,
        0,
        MANY,
        "a number of recipients",
        readers=("smtpd", "gate"),
        explanation="How many recipients a client's network (/24 of IPv4, /64 of IPv6) may name in an hour, "
        "taken or not; more are put off with 450. 0 sets no limit. Clients with RELAYCLIENT are not counted.",
        example=5000,
    ),
    number(
        "maxmessages",
        1000,
        0,
        MANY,
        "a number of messages",
        readers=("smtpd",),
        explanation="How many messages a client may begin in one connection; then it is ended with 421, and "
        "the client comes again. 0 sets no limit. Clients with RELAYCLIENT are not counted.",
        example=100,
    ),
    number(
        "maxconnectionrecipients",
        10_000,
        0,
        MANY,
        "a number of recipients",
        readers=("smtpd",),
        explanation="How many recipients a client may name in one connection, in all its messages, taken or "
        "not; more are put off with 452, and at its next message the connection is ended with 421. 0 sets no "
        "limit. Clients with RELAYCLIENT are not counted.",
    ),
    number(
        "maxerrors",
        20,
        1,
        1000,
        "a number of errors",
        readers=("smtpd",),
        explanation="How many commands that cannot be understood, are out of order or come without a login "
        "that they need a client may send in one connection; then it is ended with 421.",
    ),
    number(
        "maxbadrcpt",
        20,
        0,
        MANY,
        "a number of recipients",
        readers=("smtpd",),
        explanation="With so many recipients refused for good a connection is ended with 421, so that nobody "
        "can try out addresses. 0 sets no limit. Clients with RELAYCLIENT are not counted.",
    ),
    number(
        "tarpit",
        1,
        0,
        60,
        "seconds",
        readers=("smtpd",),
        explanation="From the fourth recipient on that is refused for good, each refusal takes so many "
        "seconds longer than the one before, at most 30. Nobody else waits for it. 0: none. Clients with "
        "RELAYCLIENT never wait.",
    ),
    number(
        "mindatarate",
        100,
        0,
        1_000_000,
        "bytes a second",
        readers=("smtpd",),
        explanation="A message that comes more slowly, over five minutes, ends its connection with 421, "
        "also where its chunks (BDAT) are long in coming. 0 sets no limit.",
    ),
)

STRANGERS = (
    number(
        "greetdelay",
        0,
        0,
        300,
        "seconds",
        readers=("smtpd",),
        explanation="Seconds before a client is greeted. Who talks before, as only programs do that do not "
        "listen, is refused with 554. Clients with RELAYCLIENT are greeted at once; GREETDELAY in "
        "control/rules has its own number for others.",
        example=5,
    ),
    Definition(
        name="dnsbl",
        kind="a list of ZONE[=CODES][:WEIGHT] [TEXT]",
        default="",
        readers=("smtpd",),
        explanation=(
            "The lists that are asked by DNS about each client (RFC 5782). CODES are the answers that count, "
            "like 127.0.0.2 or 127.0.0.2-11; without, all but 127.255.255.0/24, by which a list says that it "
            "does not serve us. WEIGHT, 1 when absent, is added to the client's score; one below 0 is for "
            "lists of good clients. When the score reaches control/dnsblscore, MAIL is refused with 554 and "
            "the text, which is the list's own when there is none. The greeting does not wait for it. A list "
            "that does not answer within eight seconds counts nothing. Clients with RELAYCLIENT, or with "
            "RBLSMTPD in control/rules, are not looked up."
        ),
        example="zen.spamhaus.org=127.0.0.2-11:2\nbl.example.net:1 see http://bl.example.net/\nlist.dnswl.org:-2",
        parse=sequence(blocklist),
    ),
    Definition(
        name="dnsblscore",
        kind="a number",
        default="1",
        readers=("smtpd",),
        explanation="The score from which on a client is refused; see control/dnsbl.",
        example="2",
        parse=value(score),
    ),
    _switch(
        "lookupclients",
        "1: the name of each client's host is looked up, and stands in Received lines and in what hooks are "
        "told. One counts only when it leads back to the client's address. It costs each connection two "
        "questions to the DNS, for ten seconds at most. 0: names are looked up only where control/rules has "
        "one, or control/requirereverse is 1.",
    ),
    _switch(
        "requirereverse",
        "1: a client whose address has no name that leads back to it is refused at MAIL with 550. Many "
        "honest hosts have none. Clients with RELAYCLIENT are not refused, nor are those of whom the DNS "
        "says nothing.",
    ),
)
