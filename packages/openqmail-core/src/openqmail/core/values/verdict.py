"""What a hook answers when it is asked about a command or a message, and what its chain makes of that.

An answer of None is no opinion: the next hook is asked.  What each means in SMTP is said in
docs/hooks.md; a `Replace`d address is checked as if the client had said it.
"""

import re

import msgspec

from openqmail.core.values.reply import Reply


class Accept(msgspec.Struct, frozen=True):
    """No hook is asked any more about this message; before MAIL, about this session."""


class Reject(msgspec.Struct, frozen=True):
    """Refuse for good; `reply` is 5xx."""

    reply: Reply


class Defer(msgspec.Struct, frozen=True):
    """Refuse for now; `reply` is 4xx."""

    reply: Reply


class HangUp(msgspec.Struct, frozen=True):
    """Say this, if anything, and end the connection."""

    reply: Reply | None = None


class Drop(msgspec.Struct, frozen=True):
    """Take the message and throw it away: its sender believes that it was delivered.  Before MAIL: `HangUp`
    without a word."""


class Hold(msgspec.Struct, frozen=True):
    """Take the message and hold it in the queue until the administrator releases it; hooks behind are
    still asked.  Before MAIL there is no message yet: as any answer that makes no sense there."""

    reason: str


class Next(msgspec.Struct, frozen=True):
    """No other hook is asked about this command; the checks of core are made."""


class Replace(msgspec.Struct, frozen=True):
    """At mail and rcpt: take this address instead.  Hooks behind see it, and so do the checks of core unless
    `skip_checks`; at rcpt that lets this client send to it, on whatever host it is."""

    address: bytes
    skip_checks: bool = False


class SkipChecks(msgspec.Struct, frozen=True):
    """At mail and rcpt: take this command without another hook's and without core's checks.  At rcpt it
    lets this client send to any host."""


Verdict = Accept | Reject | Defer | HangUp | Drop | Hold
Answer = Verdict | Next | Replace | SkipChecks | None
Refusal = Reject | Defer | HangUp


_ENHANCED = re.compile(rb"([245]\.\d{1,3}\.\d{1,3})?")


def sound(answer: Answer) -> Answer:
    """The answer, when all that stands in it is what it is to be, whoever made it.  Raises ValueError."""
    match answer:
        case Reject():
            good = _says(answer.reply, (5,))
        case Defer():
            good = _says(answer.reply, (4,))
        case HangUp():
            good = answer.reply is None or _says(answer.reply, (2, 4, 5))
        case Hold():
            good = isinstance(answer.reason, str)
        case Replace():
            good = isinstance(answer.address, bytes) and isinstance(answer.skip_checks, bool)
        case _:
            good = answer is None or isinstance(answer, Accept | Drop | Next | SkipChecks)
    if not good:
        raise ValueError(f"{answer!r} is no answer")
    return answer


def _says(reply: object, first: tuple[int, ...]) -> bool:
    """Whether it is a reply, with a code that begins with one of these digits."""
    return (
        isinstance(reply, Reply)
        and isinstance(reply.code, int)
        and reply.code // 100 in first
        and isinstance(reply.enhanced, bytes)
        and _ENHANCED.fullmatch(reply.enhanced) is not None
        and isinstance(reply.lines, tuple)
        and len(reply.lines) > 0
        and all(isinstance(line, bytes) for line in reply.lines)
    )


class Decision(msgspec.Struct, frozen=True):
    """What all hooks together decided at one step.

    `refusal`: what the client is told instead.  `address`: what takes the place of the one that was
    asked about.  `silent`: no hook is to be asked about the rest of the message, or session."""

    refusal: Refusal | None = None
    address: bytes | None = None
    skip_checks: bool = False
    drop: bool = False
    hold: str = ""
    silent: bool = False


GO_ON = Decision()
"""Nobody objects, and nothing is to be changed: what most answers come to."""
