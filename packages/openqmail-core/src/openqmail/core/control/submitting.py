"""Control files of who logs in, and what a login may send: their parsers and definitions."""

import os
from collections.abc import Collection, Container, Iterable, Mapping

from openqmail.core.control import syntax
from openqmail.core.control.definition import Definition
from openqmail.core.control.mechanisms import mechanism
from openqmail.core.control.text import ControlText, integer, members, shown, value
from openqmail.core.values import ControlError

PROGRAMS = ("checkpassword", "checkcram", "checktoken")
SENDERS, LISTEN = "control/senders", "control/listen"
SUBMISSION = frozenset({"submission", "submissions"})
FEW = 5
"""Logins that are named where all would be too many."""
_MANY = 100_000_000


def command(text: ControlText) -> tuple[bytes, ...]:
    """One line, its words; the first is an absolute path.  Empty where there is no line."""
    entries = list(text.entries())
    for number, _ in entries[1:]:
        text.problem(number, "is a second command; keep one, which may try several programs by itself")
    return (text.parse(*entries[0], _words) or ()) if entries else ()


def _words(line: str) -> tuple[bytes, ...]:
    if not line.startswith("/"):
        raise ValueError(f"'{shown(line)}' has no absolute path; write one like /usr/bin/checkpw /bin/true")
    return tuple(word.encode() for word in line.split())


def senders(text: ControlText) -> Mapping[bytes, frozenset[bytes]]:
    """Login -> addresses, and domains with their @, in lower case."""
    found: dict[bytes, set[bytes]] = {}
    for number, line in text.entries():
        entry = text.parse(number, line, _sender)
        if entry is not None:
            found.setdefault(entry[0], set()).update(entry[1])
    return {login: frozenset(some) for login, some in found.items()}


def _sender(line: str) -> tuple[bytes, tuple[bytes, ...]]:
    login, colon, sender = line.partition(":")
    if not login or not colon or not sender:
        raise ValueError("is no LOGIN:ADDRESS; write one like alice:alice@example.org or alice:@example.org")
    local, at, domain = sender.rpartition("@")
    if not at:
        raise ValueError(f"'{shown(sender)}' has no @; write an address, or a domain with its @")
    if not local.startswith('"') and any(one in local for one in " \t,;:@"):
        raise ValueError(f"'{shown(sender)}' is not one address; write a line for each, LOGIN:ADDRESS")
    name = local.lower().encode()
    return login.encode(), tuple(name + b"@" + one for one in syntax.domain(domain))


def doubtful(values: Mapping[str, object], broken: Container[str]) -> Iterable[ControlError]:
    """What may be meant, and looks mistaken; `values`: by file; `broken`: files whose mistakes are told."""
    for name in PROGRAMS:
        words = values.get(name)
        if not isinstance(words, tuple) or not words:
            continue
        path = os.fsdecode(words[0])
        if not os.access(words[0], os.X_OK):
            yield ControlError(f"control/{name}", 0, f"{path} is no program that can be run; install it")
        elif len(words) == 1:
            why = (
                f"has no program behind {path}, and without one those of checkpassword's interface let "
                f"nobody in; write it there: {path} /bin/true"
            )
            yield ControlError(f"control/{name}", 0, why)
    if _submission(values) and values.get("senders") == {} and SENDERS not in broken:
        yield ControlError(
            SENDERS,
            0,
            "has no line, so whoever logs in may send as anybody; write lines like alice:@example.org",
        )


def of_nobody(values: Mapping[str, object], logins: Container[bytes]) -> Iterable[ControlError]:
    """Logins in control/senders that nobody has; nothing where a program may know others.

    `logins`: those of users/smtpauth, as they stand there."""
    found = values.get("senders")
    if not isinstance(found, Mapping) or any(values.get(name) for name in PROGRAMS):
        return
    for login in found:
        if login not in logins:
            name = shown(login.decode())
            yield ControlError(
                SENDERS,
                0,
                f"nobody has the login '{name}', and beside any line here one without may send as nobody; "
                f"mend the line, or: openqmail user add {name}",
            )


def without_senders(
    values: Mapping[str, object], logins: Iterable[bytes], broken: Container[str]
) -> Iterable[ControlError]:
    """Logins that may send as nobody, since control/senders has lines, and none for them; nothing where a
    wrong line may be meant for one."""
    found = values.get("senders")
    if not found or not isinstance(found, Mapping) or SENDERS in broken:
        return
    lacking = sorted(login for login in logins if login not in found)
    if lacking:
        names = [shown(login.decode()) for login in lacking]
        few = ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")
        example = names[0] if "@" in names[0] else f"{names[0]}@example.org"
        why = f"has no line for {few}, who may log in and send as nobody; write one like {names[0]}:{example}"
        yield ControlError(SENDERS, 0, why)


def without_users(
    values: Mapping[str, object], logins: Collection[bytes], certificate: bool
) -> Iterable[ControlError]:
    """Services that take mail from who has logged in, where nobody can.

    `logins` as above; `certificate`: whether there is one for clients."""
    services = _submission(values)
    if not services or not values.get("submissionauth"):
        return
    has = f"has {' and '.join(sorted(services))}, for who has logged in, and nobody can: "
    if not logins and not any(values.get(name) for name in PROGRAMS):
        remedy = "openqmail user add NAME, or name a program in control/checkpassword"
        yield ControlError(LISTEN, 0, f"{has}there is no login in users/smtpauth; {remedy}")
    elif services == {"submission"} and not certificate and not values.get("authplain"):
        remedy = "'openqmail tls selfsign' makes one"
        yield ControlError(LISTEN, 0, f"{has}without control/servercert.pem there is no TLS for it; {remedy}")


def _submission(values: Mapping[str, object]) -> set[str]:
    """The services for people that are listened for."""
    listen = values.get("listen") or ()
    return {listener.service for listener in listen} & SUBMISSION  # type: ignore[attr-defined]


def _program(name: str, what: str) -> Definition:
    return Definition(
        name=name,
        kind="a command: an absolute path, and arguments",
        default="",
        readers=("gate", "local"),
        explanation=(
            f"A program with the interface of checkpassword that {what} It reads from descriptor 3, exits 0 "
            "for yes, 1 for no, anything else for: nobody can tell now; and may start the program that its "
            "arguments name. Run as root in a home of root's, where nobody else may be able to change it, "
            "else as its owner, 30 seconds at most."
        ),
        example="/usr/bin/checkpw /bin/true"
        if name == "checkpassword"
        else f"/usr/local/bin/{name} /bin/true",
        parse=command,
    )


def _rate(name: str, default: int, what: str) -> Definition:
    return Definition(
        name=name,
        kind="a number",
        default=str(default),
        readers=("gate", "smtpd"),
        explanation=f"How many {what} in an hour; 0: as many as it likes. More are put off (450 4.7.1).",
        example="500",
        parse=value(integer(0, _MANY, "a number")),
    )


DEFINITIONS: tuple[Definition, ...] = (
    _program(
        "checkpassword",
        "says whether a password is right (PLAIN and LOGIN), asked where users/smtpauth has said no.",
    ),
    _program(
        "checkcram",
        "knows passwords in plain, and says whether a response to a challenge is right (CRAM-MD5): the "
        "response stands where a password would, the challenge behind it.",
    ),
    _program(
        "checktoken",
        "says whether a token is good (OAUTHBEARER and XOAUTH2): it stands where a password would, and may "
        "be longer.",
    ),
    Definition(
        name="authplain",
        kind="0 or 1",
        default="0",
        readers=("smtpd",),
        explanation=(
            "1: AUTH is offered without TLS too, so that passwords can be heard by whoever listens. 0: only "
            "under TLS."
        ),
        example="1",
        parse=value(syntax.switch),
    ),
    Definition(
        name="submissionauth",
        kind="0 or 1",
        default="1",
        readers=("smtpd",),
        explanation=(
            "1: the services submission and submissions take mail from nobody but who has logged in, so "
            "control/senders holds for all of it. 0: also from clients that control/rules gives RELAYCLIENT, "
            "and from those of control/tlsclients, as any sender."
        ),
        example="0",
        parse=value(syntax.switch),
    ),
    Definition(
        name="authfailures",
        kind="a number",
        default="10",
        readers=("gate",),
        explanation=(
            "After so many failed logins within ten minutes from one network (IPv4 /24, IPv6 /64) nobody can "
            "log in from there for fifteen minutes but those who have before; a login that so many times ten "
            "have failed for, from wherever, only from networks where it has before. 0: nobody is locked "
            "out; failures are answered slowly all the same. 'openqmail user locked' tells who is, and "
            "'openqmail user unlock' lets somebody try again."
        ),
        example="20",
        parse=value(integer(0, 100_000, "a number of failures")),
    ),
    Definition(
        name="authmechanisms",
        kind="a list of mechanisms of SASL",
        default="",
        readers=("gate",),
        explanation=(
            "What AUTH offers, a name a line, as far as anybody can use it. Without any line: what every "
            "login can use, so that no client takes one that its login has no secret for. What is not "
            "offered cannot be used either. mutt with GNU SASL logs in where SCRAM-SHA-256-PLUS is left out."
        ),
        example="SCRAM-SHA-256\nPLAIN\nLOGIN",
        parse=members(mechanism),
    ),
    Definition(
        name="senders",
        kind="a list of LOGIN:ADDRESS or LOGIN:@DOMAIN",
        default="",
        readers=("smtpd",),
        explanation=(
            "Which senders a login may use in MAIL, a line each and as many as there are; the empty sender "
            "of receipts always. A login without a line may use no other. Without any line in the file, "
            "every login may use every sender."
        ),
        example="alice:alice@example.org\nalice:sales@example.org\nnewsletter:@news.example.org",
        parse=senders,
    ),
    _rate("loginmessagesperhour", 1000, "messages a login may begin"),
    _rate("loginrecipientsperhour", 5000, "recipients a login may name"),
)
