"""dot-qmail(5): which `.qmail` file an address has, and what its lines ask for.

A pure function: it sees files only through the `look` that it is handed and does nothing.
It knows Maildirs, mbox files, forwards and comments.  Any line that it does not know defers the whole
message, naming file and line, before anything of it is carried out.  The forward's sender
is the message's own: `-owner` files are not looked for.
"""

from collections.abc import Iterator
from functools import lru_cache

from openqmail.core.dotqmail.plan import Delivery, Look, Maildir, Mbox, Plan
from openqmail.core.values import Outcome, Result

NO_MAILBOX = Result(Outcome.FAILURE, b"Sorry, no mailbox here by that name. (#5.1.1)\n")
FIRST_LINE_BLANK = b"Uh-oh: first line of .qmail file is blank. (#4.2.1)\n"
FORWARDS_ONLY = b"Uh-oh: .qmail has file delivery but has x bit set. (#4.7.0)\n"
FORWARDS_ONLY_PROGRAM = b"Uh-oh: .qmail has prog delivery but has x bit set. (#4.7.0)\n"


def interpret(look: Look, dash: bytes, ext: bytes, default: bytes) -> Plan:
    """The plan for an address whose user has it as `dash` and `ext` (qmail-users(5)).

    `default`: the default delivery, in the form of a `.qmail` file.
    """
    trail: list[bytes] = []
    for name in names(dash, ext):
        file = look(name)
        if file is None:
            trail.append(name + b" is not there")
            continue
        if file.problem:
            return _deferral(file.problem, (*trail, name + b" may not be used"))
        if not file.content:
            trail.append(name + b" is empty: the default delivery")
            return _with_trail(_default(default), trail)
        trail.append(name + b" decides")
        return _with_trail(_read(name, file.content, file.executable), trail)
    if dash:
        return Plan(refusal=NO_MAILBOX, trail=(*trail, b"no mailbox by that name"))
    return _with_trail(_default(default), [*trail, b"the default delivery"])


def names(dash: bytes, ext: bytes) -> Iterator[bytes]:
    """The files an address may have, first the one that counts most.

    Dots become colons, so no extension reaches another folder.  For a basic address qmail
    would also look for `.qmaildefault`; that is nobody's intention and is left out.
    """
    safe = ext.lower().replace(b".", b":")
    yield b".qmail" + dash + safe
    if not dash and not safe:
        return
    at = len(safe)
    while at > 0:
        if safe[at - 1 : at] == b"-":
            yield b".qmail" + dash + safe[:at] + b"default"
        at = safe.rfind(b"-", 0, at - 1) + 1
    yield b".qmail" + dash + b"default"


@lru_cache(maxsize=8)
def _default(content: bytes) -> Plan:
    return _read(b"the default delivery", content, False)


def _read(name: bytes, content: bytes, forwards_only: bool) -> Plan:
    """The lines of one file, in order; the first that cannot be obeyed refuses all."""
    deliveries: list[Delivery] = []
    forwards: list[bytes] = []
    if not content.endswith(b"\n"):
        content += b"\n"
    for number, raw in enumerate(content[:-1].split(b"\n"), 1):
        line = raw.rstrip(b" \t").split(b"\0", 1)[0]  # qmail's lines are C strings
        first = line[:1]
        if not line:
            if number == 1:
                return _deferral(FIRST_LINE_BLANK)
        elif first in (b".", b"/"):
            if forwards_only:
                return _deferral(FORWARDS_ONLY)
            deliveries.append(Maildir(line) if line.endswith(b"/") else Mbox(line))
        elif first == b"|":
            if forwards_only:
                return _deferral(FORWARDS_ONLY_PROGRAM)
            return _unknown(name, number, b"delivery to a program")
        elif first == b"+":
            return _unknown(name, number, b"a line that begins with +")
        elif first == b"&":
            forwards.append(line[1:])
        elif first != b"#":
            forwards.append(line)
    return Plan(deliveries=tuple(deliveries), forwards=tuple(forwards))


def _unknown(name: bytes, number: int, what: bytes) -> Plan:
    shown = name.replace(b"\n", b"_")
    return _deferral(b"%s, line %d: %s is not supported yet. (#4.3.0)\n" % (shown, number, what))


def _deferral(text: bytes, trail: tuple[bytes, ...] = ()) -> Plan:
    return Plan(refusal=Result(Outcome.DEFERRAL, text), trail=trail)


def _with_trail(plan: Plan, trail: list[bytes]) -> Plan:
    return Plan(plan.deliveries, plan.forwards, plan.refusal, tuple(trail))
