"""What qmail-remote(8) says of a delivery, word for word: other people's scripts read it.

A 4xx or 5xx greeting or answer to EHLO is always temporary, as in qmail: it tells of the host,
not of this message.  A refused recipient's text ends with "Giving up on", as it does in qmail,
where each recipient is a delivery of its own.  A peer's reply is quoted up to 5,000 bytes.
"""

from collections.abc import Iterable

import msgspec

from openqmail.core.remote.transport import Stop
from openqmail.core.values import MOST_WHY, Outcome, Reply, Result

MOST_OF_A_REPLY = 5000

NOT_CONNECTED = Result(
    Outcome.DEFERRAL, b"Sorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n", host=True
)
NO_EXCHANGER = Result(Outcome.FAILURE, b"Sorry, I couldn't find a mail exchanger or IP address. (#5.4.4)\n")
THIS_HOST = Result(
    Outcome.FAILURE,
    b"Sorry. Although I'm listed as a best-preference MX or A for that host,\n"
    b"it isn't in my control/locals file, so I don't treat it as local. (#5.4.6)\n",
)
UNREADABLE = Result(Outcome.DEFERRAL, b"Unable to read message. (#4.3.0)\n")
FAULT = Result(Outcome.DEFERRAL, b"Sorry, something is wrong with this service. (#4.3.0)\n")
HOOK_FAILED = Result(
    Outcome.DEFERRAL, b"Sorry, a check of this host failed; I will try again later. (#4.3.0)\n"
)
STOPPED = Result(Outcome.DEFERRAL, b"Sorry, this service is about to end. (#4.3.2)\n")

WANTS_MORE = 530
"""A login (RFC 4954 section 6) or TLS (RFC 3207 section 4) first: where the administrator has named the host
himself, nothing is wrong with the message."""
_WANTS_MORE = (
    "it wants a login or TLS first, so mail waits; give it a line in control/credentials, by its name in "
    "control/smtproutes, and none in control/tlspolicy that keeps it without TLS"
)

_NOT_OUR_LOGIN = (
    "it refuses our login, so mail waits; mend user and password of its line in control/credentials (or in "
    "control/smtproutes), then send a HUP"
)

IMPLICIT = "at port 465 TLS begins with the connection"

_SUCCESS = Outcome.SUCCESS
_STAGES = {
    "greeting": b"Connected to %s but greeting failed.\nRemote host said: %s\n",
    "starttls": b"Connected to %s but it would not begin TLS.\nRemote host said: %s\n",
    "auth": b"Connected to %s but my login was rejected.\nRemote host said: %s\n",
    "helo": b"Connected to %s but my name was rejected.\nRemote host said: %s\n",
    "mail": b"Connected to %s but sender was rejected.\nRemote host said: %s\n",
    "rcpt": b"%s does not like recipient.\nRemote host said: %s\n",
    "data": b"%s failed on DATA command.\nRemote host said: %s\n",
    "message": b"%s failed after I sent the message.\nRemote host said: %s\n",
}
_OF_THE_MESSAGE = frozenset(("rcpt", "data", "body", "message", "chunk", "nothing"))
"""Stages of a session (see `smtp.client`) after MAIL has been answered."""


def because(result: Result, stop: Stop, reason: str) -> Result:
    """The same, and the administrator is told of an address that was of no use."""
    before = f"{result.why}; " if result.why else "no connection: "
    return msgspec.structs.replace(result, why=f"{before}{stop.place}: {reason}"[:MOST_WHY])


def lookup_failed(why: str) -> Result:
    """The DNS gave no answer; `why` names the server, and is nothing for a bounce."""
    text = b"Sorry, I couldn't find any host by that name. (#4.1.2)\n"
    return Result(Outcome.DEFERRAL, text, host=True, why=why)


def no_host(name: bytes) -> Result:
    """The name does not exist, or has no address."""
    return Result(Outcome.FAILURE, b"Sorry, I couldn't find any host named %s. (#5.1.2)\n" % name)


def no_mail(name: bytes) -> Result:
    """A null MX (RFC 7505 section 4.2)."""
    return Result(Outcome.FAILURE, b"Sorry, %s does not accept mail: it has a null MX. (#5.1.10)\n" % name)


def no_transport(name: str) -> Result:
    """What control/smtproutes names is not installed: the administrator can mend that."""
    text = f"Sorry, control/smtproutes names the transport {name}, which is not installed here. (#4.3.5)\n"
    return Result(Outcome.DEFERRAL, text.encode("utf-8", "replace"))


def not_bound(address: str) -> Result:
    """A source address is none of this host's: the administrator can mend that."""
    text = f"Sorry, I can't send from {address}: it cannot be bound here. (#4.3.5)\n"
    return Result(Outcome.DEFERRAL, text.encode())


def no_family(place: str) -> Result:
    """All addresses are of a family that the line in that place forbids to this sender."""
    text = f"Sorry, there are only addresses of a family that {place} does not use. (#4.4.4)\n"
    return Result(Outcome.DEFERRAL, text.encode())


def refused(host: bytes, stage: str, reply: Reply, reason: str = "", name: bytes = b"") -> Result:
    """A greeting, or the answer to EHLO, HELO, STARTTLS or AUTH, that makes the host of no use now;
    `reason`: who asks for TLS there, `name`: what the host is called in control/smtproutes."""
    text = _STAGES[stage] % (host, quote(reply))
    if stage == "starttls" and reason:
        text += _because(reason) + b" (#4.7.4)\n"
    why = ""
    if stage == "auth" and reply.code >= 500:  # 4xx: it cannot tell now (RFC 4954 section 6)
        why = f"{name.decode('utf-8', 'backslashreplace')}: {_NOT_OUR_LOGIN}"
    return Result(Outcome.DEFERRAL, text, host=True, why=why[:MOST_WHY])


def not_secure(host: bytes, why: str, reason: str) -> Result:
    """The host does not fulfil what mail demands of it: `why`, a clause about it; `reason`: who demands."""
    text = b"Connected to %s but %s." % (host, why.encode("ascii", "backslashreplace"))
    return Result(Outcome.DEFERRAL, text + b"\n" + _because(reason) + b" (#4.7.5)\n", host=True)


def _because(reason: str) -> bytes:
    return f"No mail goes there so: {reason or IMPLICIT}.".encode("ascii", "backslashreplace")


def concluded(host: bytes, stage: str, reply: Reply, relay: bytes = b"") -> Result:
    """The reply that decided about a recipient, and what it was an answer to; `relay`: the name by which a
    route leads there, empty where none does."""
    if reply.code < 400 and stage == "message":
        return Result(_SUCCESS, b"%s accepted message.\nRemote host said: %s\n" % (host, quote(reply)))
    text = _STAGES[stage] % (host, quote(reply))
    if stage == "rcpt":
        text += b"Giving up on %s.\n" % host
    if relay and reply.code == WANTS_MORE:
        why = f"{relay.decode('utf-8', 'backslashreplace')}: {_WANTS_MORE}"
        return Result(Outcome.DEFERRAL, text, host=stage == "mail", why=why[:MOST_WHY])
    # A reply that is neither 2xx, 4xx nor 5xx where one of them must stand: nothing is known, so later.
    # 421: the host is about to close (RFC 5321 section 3.8).  Once it has taken the sender, filters say so of
    # one message, too; who counts that against the host lets one message hold up all the others.
    outcome = Outcome.FAILURE if 500 <= reply.code < 600 else Outcome.DEFERRAL
    return Result(outcome, text, host=reply.code == 421 and stage == "mail")


def transaction(host: bytes, outcomes: Iterable[tuple[str, Reply]], relay: bytes = b"") -> tuple[Result, ...]:
    """A result for each recipient; those who share an outcome share the result."""
    results: list[Result] = []
    last = None
    for outcome in outcomes:
        if outcome is not last:
            last = outcome
            result = concluded(host, *outcome, relay)
        results.append(result)
    return tuple(results)


def taken_over(results: Iterable[Result]) -> tuple[Result, ...]:
    """The same, from a host that will tell the senders what they want to be told (RFC 3461)."""
    return tuple(
        Result(each.outcome, each.text, each.host, dsn=True) if each.outcome is _SUCCESS else each
        for each in results
    )


def died(host: bytes, stage: str, *, whole_message_sent: bool) -> Result:
    """The connection broke, fell silent, or the peer stopped speaking SMTP; `stage`: what it owed an
    answer to.  Once MAIL is answered that may be the message's doing, not the host's."""
    duplicate = b" Possible duplicate!" if whole_message_sent else b""
    text = b"Connected to %s but connection died.%s (#4.4.2)\n" % (host, duplicate)
    return Result(Outcome.DEFERRAL, text, host=not whole_message_sent and stage not in _OF_THE_MESSAGE)


def too_slow(host: bytes) -> Result:
    """The peer answered each time, but did not get to the message in the time for that."""
    text = b"Connected to %s but it took too long until it would take a message. (#4.4.2)\n" % host
    return Result(Outcome.DEFERRAL, text, host=True)


def taken_too_slowly(host: bytes) -> Result:
    """The peer wanted the message, and took it piece by piece in more time than any line needs."""
    return Result(Outcome.DEFERRAL, b"Connected to %s but it took the message too slowly. (#4.4.2)\n" % host)


def unfit(reason: str) -> Result:
    """No SMTP can carry this message; `reason` goes on with "it holds …"."""
    text = f"Sorry, SMTP cannot carry this message: {reason}. (#5.6.0)\n"
    return Result(Outcome.FAILURE, text.encode("utf-8", "replace"))


def unable(host: bytes, reason: str) -> Result:
    """This host's SMTP cannot carry this message; `reason` is the machine's sentence."""
    return Result(Outcome.FAILURE, b"%s: %s\n" % (host, reason.encode("utf-8", "replace")))


def quote(reply: Reply) -> bytes:
    """The reply as it came, its lines divided by LF, without a NUL."""
    lines = reply.lines
    last = len(lines) - 1
    prefix = reply.enhanced + b" " if reply.enhanced else b""
    if not last:
        text = b"%d %s%s" % (reply.code, prefix, lines[0])
    else:
        text = b"\n".join(
            b"%d%s%s%s" % (reply.code, b"-" if at < last else b" ", prefix, line)
            for at, line in enumerate(lines)
        )
    return text[:MOST_OF_A_REPLY].replace(b"\0", b"?").rstrip()
