"""Every control file, declared once: what it is called, what it may say, who reads it, why.

From these come the reader, `openqmail control`, the manual page and the table in the docs.
The definitions here make the fields of `Settings`; an add-on adds its own as an entry point
of the group `openqmail.control`: a `Definition`, or several in a tuple.  `FOREIGN` knows the
files of netqmail and eQmail that have no effect yet.
"""

from openqmail.core.control import outgoing, receiving, reports, securing, submitting, syntax
from openqmail.core.control.definition import Definition
from openqmail.core.control.definition import number as _number
from openqmail.core.control.listening import listeners
from openqmail.core.control.tcprules import parse_rules
from openqmail.core.control.text import ControlText, mapping, members, sequence, value
from openqmail.core.tls.server import SUITES

COUNT = 100_000
MANY = 100_000_000


def _default_delivery(text: ControlText) -> bytes | None:
    lines = text.all()
    if not lines or not lines[0]:
        text.problem(1, "is empty; write an instruction of dot-qmail(5), like ./Maildir/, or remove the file")
        return None
    for number, line in enumerate(lines, 1):
        if line.startswith(("|", "+")):
            text.problem(number, "is an instruction that is not there yet; write a Maildir, like ./Maildir/")
    return "\n".join(lines).encode() + b"\n"


def _host(name: str, readers: tuple[str, ...], explanation: str) -> Definition:
    return Definition(
        name=name,
        kind="a host's name",
        default="me",
        readers=readers,
        explanation=explanation,
        example="mail.example.org",
        parse=value(syntax.host),
    )


def _with_plus(text: str) -> bytes:
    """A host's name; a + at its end stands for control/plusdomain."""
    host = syntax.host(text.removesuffix("+"))
    return host + b"+" if text.endswith("+") else host


DEFINITIONS: tuple[Definition, ...] = (
    Definition(
        name="me",
        kind="a host's name",
        default=None,
        readers=("smtpd", "send", "local", "remote", "sendmail"),
        explanation=(
            "The full name of this host. It is what other files fall back to, what stands in Received "
            "lines and in the names of files in Maildirs. Nothing runs without it."
        ),
        example="mail.example.org",
        parse=value(syntax.host),
    ),
    Definition(
        name="accounts",
        kind="a list of ROLE USER",
        default="",
        readers=("supervisor",),
        explanation=(
            "The system's users that the processes run as in a home of root's, a line each: smtpd, gate, "
            "send, remote, and alias, who gets the mail of nobody else. A role without a line has qmail's: "
            "qmaild, qmailp, qmails, qmailr, alias. In any other home all run as its owner. Read at the "
            "start only."
        ),
        example="smtpd mailin\nsend mailqueue",
        parse=mapping(syntax.account),
    ),
    Definition(
        name="listen",
        kind="a list of SERVICE ADDRESS:PORT [proxy=NETWORK]... [xclient=NETWORK]...",
        default="",
        readers=("supervisor", "smtpd", "remote"),
        explanation=(
            "The listeners, one a line: the name of a service, then an address and a port. An IPv6 address "
            "stands in brackets; without an address (:587) it is all of this host, of both families. smtp "
            "and submission offer STARTTLS, smtps and submissions begin with TLS; those for submission take "
            "mail only from who has logged in, unless control/submissionauth is 0. "
            "Without any listener, nothing is received from the network. proxy= names a network "
            "of front ends whose connections each begin with a header of HAProxy's PROXY protocol, version 1 "
            "or 2; xclient= one of front ends that may use XCLIENT. Both say whose connection is passed on, "
            "and it is that client whom rules, limits and the log then see: name only hosts that you trust "
            "with that. Each option may stand several times; from anywhere else neither is heeded."
        ),
        example="smtp 127.0.0.1:2525 xclient=127.0.0.1\nsmtp [::1]:2525 proxy=2001:db8:1::/64",
        parse=listeners,
    ),
    Definition(
        name="rules",
        kind="a list of PATTERN:allow or PATTERN:deny, with variables",
        default="",
        readers=("smtpd",),
        explanation=(
            "Who may do what, by the client's address or name, in the language of tcprules. A pattern is an "
            "address, the beginning of one up to a dot, numbers in ranges (192.0.2.7-19), a network "
            "(10.64.0.0/10), IPv6 in brackets ([2001:db8::]/32), =host.example, =.example for all names "
            "below, = for whoever has a name, or nothing for everybody else. The exact address counts, else "
            "the exact name, else the smallest network, else the longest suffix. A name is one that leads "
            "back to the address; names are looked up only where a rule has one. RELAYCLIENT lets a client "
            "send to any domain (its value is appended to each recipient), DATABYTES and GREETDELAY replace "
            'control/databytes and control/greetdelay; with RBLSMTPD="" no list of control/dnsbl is asked, '
            "with a text in it mail is put off with that text, refused for good when it begins with a "
            "hyphen. A client without a rule is allowed, and may send to the domains in control/rcpthosts."
        ),
        example='127.:allow,RELAYCLIENT=""\n[::1]:allow,RELAYCLIENT=""\n10.64.0.0/10:allow,RELAYCLIENT=""\n192.0.2.7-19:deny\n=.example.net:allow,RBLSMTPD=""',
        parse=parse_rules,
    ),
    Definition(
        name="rcpthosts",
        kind="a list of domains and .suffixes",
        default="",
        readers=("smtpd",),
        explanation=(
            "The domains for which anybody may send mail to this host; .example.org means all below "
            "example.org. Without the file there are none: then only who may relay may send: a client with "
            "RELAYCLIENT in control/rules, who has logged in, and whose certificate control/tlsclients names."
        ),
        example="example.org\n.example.org",
        parse=members(syntax.suffix),
    ),
    *receiving.WHO,
    Definition(
        name="smtpgreeting",
        kind="a line of text",
        default="me",
        readers=("smtpd",),
        explanation=(
            "The greeting to SMTP clients, between 220 and ESMTP. Its first word is the name of this host "
            "(RFC 5321 section 4.2)."
        ),
        example="mail.example.org welcome",
        parse=value(syntax.greeting),
    ),
    _number(
        "databytes",
        0,
        0,
        2**62,
        "a number of bytes",
        readers=("smtpd",),
        explanation="The largest message that is accepted, in bytes; 0 sets no limit. The limit is announced "
        "to clients (SIZE), and a larger message is refused for good. openqmail init writes 50000000.",
        example=20_000_000,
    ),
    _number(
        "maxrecipients",
        1000,
        100,
        COUNT,
        "a number of recipients",
        readers=("smtpd",),
        explanation="How many recipients one message may have; more are put off with 452, as RFC 5321 "
        "section 4.5.3.1.10 says. At least 100.",
    ),
    _number(
        "concurrencyincoming",
        200,
        1,
        COUNT,
        "a number of connections",
        readers=("gate",),
        explanation="How many connections from the network are served at once, over all listeners.",
    ),
    _number(
        "smtpdworkers",
        1,
        1,
        64,
        "a number of processes",
        readers=("supervisor",),
        explanation="How many processes serve clients. One is enough for a few thousand connections; more "
        "use more processors.",
    ),
    _number(
        "connectionsperhour",
        3600,
        0,
        MANY,
        "a number of connections",
        readers=("smtpd", "gate"),
        explanation="How many connections a client's network (/24 of IPv4, /64 of IPv6) may open in an hour; "
        "more are turned away with 421. 0 sets no limit. Clients with RELAYCLIENT are not counted.",
        example=600,
    ),
    _number(
        "messagesperhour",
        3600,
        0,
        MANY,
        "a number of messages",
        readers=("smtpd", "gate"),
        explanation="How many messages a client's network (/24 of IPv4, /64 of IPv6) may begin in an hour, "
        "taken or not; more are put off with 450. 0 sets no limit. Clients with RELAYCLIENT are not counted.",
        example=1000,
    ),
    _number(
        "timeoutsmtpd",
        1200,
        1,
        86_400,
        "seconds",
        readers=("smtpd",),
        explanation="Seconds that an SMTP client may be silent before its connection is ended.",
    ),
    *receiving.HOW_MUCH,
    Definition(
        name="checkrcpt",
        kind="0 or 1",
        default="1",
        readers=("smtpd",),
        explanation=(
            "1: a recipient of this host is looked up, as for a delivery, before an SMTP client is told "
            "that it is taken. Without a mailbox it is refused with 550, so no bounce comes of it; where "
            "mail could not be delivered just now, it is put off with 451, and the log says why. What "
            "cannot be looked up soon is taken, as without the check. 0: every recipient is taken, and "
            "mail for nobody bounces."
        ),
        example="0",
        parse=value(syntax.switch),
    ),
    *receiving.STRANGERS,
    Definition(
        name="tlsserverciphers",
        kind="a list of ciphers for OpenSSL",
        default=SUITES,
        readers=("smtpd",),
        explanation=(
            "The ciphers that clients may use with TLS 1.2, in OpenSSL's language; the first that a client "
            "has too is taken. Those of TLS 1.3 are all sound and always there; older versions never are."
        ),
        example="ECDHE+AESGCM:ECDHE+CHACHA20",
        parse=value(syntax.ciphers),
    ),
    Definition(
        name="tlsclients",
        kind="a list of names in certificates",
        default="",
        readers=("smtpd",),
        explanation=(
            "Clients that may send to any domain, by a name in their certificate, which an authority in "
            "control/clientca.pem has signed: a mailbox or a host; the common name where there is no "
            "subjectAltName."
        ),
        example="alice@example.org\nbranch.example.org",
        parse=members(syntax.certificate_name),
    ),
    Definition(
        name="hooks",
        kind="a list of hooks",
        default="",
        readers=("smtpd", "send", "remote"),
        explanation=(
            "The hooks that are asked about mail coming in and going out, in this order; the first that "
            "refuses ends it. A line is NAME [timeout=SECONDS] [on_error=defer|pass]. A hook that takes "
            "longer than its time for one step (60 seconds), or fails, puts the mail off, and the log says "
            "so; with on_error=pass it is passed over. A hook is installed as an entry point of the group "
            "openqmail.hooks; docs/hooks.md tells how to write one."
        ),
        example="greylist timeout=10 on_error=pass",
        parse=sequence(syntax.hook, lambda line: line.name, syntax.hook_at),
    ),
    _host(
        "envnoathost",
        ("smtpd", "send"),
        "The domain that is put behind a recipient without an @.",
    ),
    Definition(
        name="percenthack",
        kind="a list of domains",
        default="",
        readers=("smtpd", "send"),
        explanation="Domains for which user%host@domain means user@host.",
        example="example.org",
        parse=members(syntax.domain),
    ),
    Definition(
        name="locals",
        kind="a list of domains",
        default="me",
        readers=("smtpd", "send"),
        explanation="The domains whose mail is delivered on this host. An empty file: none.",
        example="mail.example.org\nexample.org",
        parse=members(syntax.domain),
    ),
    Definition(
        name="virtualdomains",
        kind="a list of DOMAIN:PREFIX",
        default="",
        readers=("smtpd", "send"),
        explanation=(
            "Domains that belong to a user: mail to box@DOMAIN goes to the local address PREFIX-box. The key "
            "may be a full address, a domain, a .suffix, or empty for all that is not local; an empty prefix "
            "takes its key out again. A domain must not be in control/locals too."
        ),
        example="lists.example.org:alice-lists\nbob@example.net:bob",
        parse=mapping(syntax.virtual_domain),
    ),
    _number(
        "concurrencylocal",
        10,
        0,
        COUNT,
        "a number of deliveries",
        readers=("send",),
        explanation="How many local deliveries run at once; 0 holds them all back.",
    ),
    _number(
        "concurrencyremote",
        20,
        0,
        COUNT,
        "a number of deliveries",
        readers=("send", "remote"),
        explanation="How many remote deliveries run at once; 0 holds them all back.",
    ),
    _number(
        "concurrencydestination",
        10,
        1,
        COUNT,
        "a number of deliveries",
        readers=("send", "remote"),
        explanation="How many remote deliveries to one domain run at once at most, so that no other waits "
        "behind it. A new domain gets five, more as they succeed, fewer as its host fails; one that fails "
        "twice in a row is left alone for a minute, then for longer, up to an hour.",
    ),
    _number(
        "queuelifetime",
        604_800,
        0,
        2**31,
        "seconds",
        readers=("send",),
        explanation="Seconds that a message may stay in the queue. It is tried once more after that; what "
        "fails for the time being then fails for good.",
    ),
    Definition(
        name="bouncefrom",
        kind="the user's part of an address",
        default="MAILER-DAEMON",
        readers=("send",),
        explanation="What stands before the @ in the From line of a bounce.",
        example="MAILER-DAEMON",
        parse=value(syntax.local_part),
    ),
    _host("bouncehost", ("send",), "What stands behind the @ in the From line of a bounce."),
    Definition(
        name="doublebounceto",
        kind="the user's part of an address",
        default="postmaster",
        readers=("send",),
        explanation="The user who gets the bounces that could not be delivered.",
        example="postmaster",
        parse=value(syntax.local_part),
    ),
    _host(
        "doublebouncehost",
        ("send",),
        "The domain of the user who gets the bounces that could not be delivered.",
    ),
    *reports.DEFINITIONS,
    Definition(
        name="logformat",
        kind="qmail or json",
        default="qmail",
        readers=("supervisor", "smtpd", "send", "local", "remote", "gate", "metrics"),
        explanation=(
            "How the log is written. qmail: qmail-send's lines, which multilog and qmailanalog's matchup "
            "know, and lines of the same kind for SMTP sessions and local submission. json: an object a "
            "line with the same facts, and its time."
        ),
        example="json",
        parse=value(syntax.log_format),
    ),
    Definition(
        name="metrics",
        kind="a list of ADDRESS:PORT",
        default="",
        readers=("supervisor", "smtpd"),
        explanation=(
            "Where a process tells what is counted, at http://ADDRESS:PORT/metrics, for Prometheus and what "
            "reads its format. Whoever can connect there reads it, without a password, so the address should "
            "be one of loopback. Needs openqmail-core[metrics]. Without the file there is no such process."
        ),
        example="127.0.0.1:9099",
        parse=sequence(syntax.metrics),
    ),
    Definition(
        name="defaulthost",
        kind="a host's name",
        default="me",
        readers=("sendmail",),
        explanation=(
            "The host that sendmail puts behind an address without one. Completed itself as any other: "
            "without a dot by control/defaultdomain, with a + at its end by control/plusdomain. The "
            "environment's QMAILDEFAULTHOST goes before it."
        ),
        example="example.org",
        parse=value(_with_plus),
    ),
    _host(
        "defaultdomain",
        ("sendmail",),
        "The domain that sendmail puts behind a host without a dot. The environment's QMAILDEFAULTDOMAIN "
        "goes before it.",
    ),
    _host(
        "plusdomain",
        ("sendmail",),
        "The domain that sendmail puts in place of a + at the end of a host. The environment's "
        "QMAILPLUSDOMAIN goes before it.",
    ),
    _host(
        "idhost",
        ("sendmail", "smtpd"),
        "The host in the Message-ID that sendmail, or submission, gives to a message without one. The "
        "environment's QMAILIDHOST goes before it.",
    ),
    Definition(
        name="defaultdelivery",
        kind="instructions of dot-qmail(5)",
        default="./Maildir/",
        readers=("local",),
        explanation=(
            "What is done with mail for a user who has no .qmail file. A path that begins with ./ or / is a "
            "Maildir when it ends with /, else an mbox: a file that is locked for each message, for which "
            "half a minute is waited. &address forwards."
        ),
        example="./Maildir/",
        parse=_default_delivery,
    ),
    _host("helohost", ("remote",), "The name that this host gives in HELO and EHLO to other hosts."),
    Definition(
        name="smtproutes",
        kind="a list of DOMAIN:RELAY[:PORT[:USER PASSWORD]]",
        default="",
        readers=("remote",),
        explanation=(
            "Where mail for a domain goes instead of to its MX. The domain may be a .suffix, or empty for "
            "all that no other line names. The relay is a host's name or an address in brackets, several of "
            "them with commas between and one port behind the last, or empty for the domain's own MX; "
            "TRANSPORT! before it names another way than smtp: lmtp (RFC 2033, port 24) is here, add-ons "
            "bring others. A relay is looked up by its addresses only, never by MX. At port 465 TLS begins "
            "with the connection. A user and a password behind the port are told to the relay by AUTH; "
            "better they stand in control/credentials, since others may read this file."
        ),
        example=(
            "example.net:relay.example.org:2525\n.example.com:[192.0.2.1],[2001:db8::1]:2525\n"
            "lists.example.org:lmtp!store.example.org\n:smarthost.example.org"
        ),
        parse=mapping(syntax.route),
        shown=syntax.without_login,
    ),
    Definition(
        name="resolvers",
        kind="a list of ADDRESS[:PORT] [trusted]",
        default="",
        readers=("smtpd", "remote"),
        explanation=(
            "The DNS servers to ask, in this order; without any, those of the system. They have to be "
            "resolvers. One that is silent goes behind the others for a minute. trusted: it validates, and "
            "what it says about DNSSEC may be believed, because it runs on this host or behind a safe way. "
            "Those of the system never are. Where some are trusted and others not, what the others say "
            "counts as not proved."
        ),
        example="127.0.0.1 trusted\n[2001:db8::53]:53",
        parse=sequence(syntax.resolver),
    ),
    _number(
        "timeoutconnect",
        60,
        1,
        86_400,
        "seconds",
        readers=("remote",),
        explanation="Seconds to wait for another host to take a connection.",
    ),
    _number(
        "timeoutremote",
        1200,
        1,
        86_400,
        "seconds",
        readers=("remote",),
        explanation="Seconds that another host's SMTP server may be silent.",
    ),
    Definition(
        name="chunkingremote",
        kind="0 or 1",
        default="0",
        readers=("remote",),
        explanation=(
            "Whether small mail leaves by BDAT for hosts that offer CHUNKING and PIPELINING, which saves a "
            "round trip on a new connection: the message goes with its envelope, before any reply. A host "
            "that refuses the envelope and does not swallow what was announced takes the message for "
            "commands, whoever wrote it; with DATA none can. So it is for hosts that you know."
        ),
        example="1",
        parse=value(syntax.switch),
    ),
    *securing.DEFINITIONS,
    *outgoing.DEFINITIONS,
    *submitting.DEFINITIONS,
)

FOREIGN = {
    "netqmail": ("qmqpservers",),
    "eQmail": (
        "beforequeue",
        "beforemote",
        "smtpplugins",
    ),
}
"""Files of the family that are known, but have no effect yet."""
