"""Asks the hooks of one process, in the order of `control/hooks`; the first refusal ends a step.

What is answered at once costs no task and no turn of the loop; only a hook that waits does.  A hook
that raises, takes longer than its time or answers what makes no sense defers, and the log says so;
with `on_error=pass` it is passed over.  What a hook that failed has made of a message is thrown away.
Nothing here raises.
"""

import asyncio
import inspect
from asyncio import Future
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from openqmail.core.hooks.body import MessageBody, wire
from openqmail.core.hooks.edits import Edits, checked
from openqmail.core.hooks.interface import STEPS, Delivery, Place, SessionFacts
from openqmail.core.log import Alert, Log
from openqmail.core.values import (
    Accept,
    Body,
    Decision,
    Defer,
    Drop,
    Envelope,
    HangUp,
    Hold,
    Next,
    Recipient,
    Reject,
    Replace,
    Reply,
    Result,
    SkipChecks,
)
from openqmail.core.values.verdict import GO_ON

T = TypeVar("T")

TIMEOUT = 60.0
"""Seconds that one hook may take for one step, where its line says nothing else."""

BEFORE_MAIL = ("connect", "helo", "auth")

_BROKEN = Defer(Reply(451, b"4.3.0", (b"a check of ours failed; try again later",)))

_PASSED: Any = object()
"""In place of an answer, of a hook that failed and is passed over."""


class Named(NamedTuple):
    """A hook, and what its line of `control/hooks` says of it."""

    name: str
    hook: object
    timeout: float = TIMEOUT
    on_error: Literal["defer", "pass"] = "defer"


class _Asked(NamedTuple):
    """One method of one hook."""

    named: Named
    method: Callable[..., Any]


class Message(msgspec.Struct, frozen=True):
    """What the hooks made of a message: `body` is the given one where none of them edited it."""

    decision: Decision
    envelope: Envelope
    body: Body


class Prepared(msgspec.Struct, frozen=True):
    """What the hooks made of a transaction's body; `failed`: one of them could not do its work."""

    body: Body
    failed: bool


class HookChain:
    """The hooks of one configuration.  `hooks`: each is a `Named`, or begins as one, in their order."""

    def __init__(self, hooks: Sequence[Named | tuple[str, object]], log: Log, place: Place = "smtpd") -> None:
        self._log = log
        self._tasks: set[Future[Any]] = set()
        self._steps: dict[str, list[_Asked]] = {}
        for step in STEPS[place]:
            named = [one if isinstance(one, Named) else Named(*one) for one in hooks]
            self._steps[step] = [
                _Asked(one, getattr(one.hook, step)) for one in named if hasattr(one.hook, step)
            ]

    def has(self, step: str) -> bool:
        """Whether any hook has a say at this step; asking costs next to nothing."""
        return bool(self._steps.get(step))

    def ask(self, step: str, session: SessionFacts, *facts: Any) -> "Decision | Future[Decision]":
        """What they decide, at once where all of them answer at once."""
        at, answer = 0, None
        try:
            for _, method in self._steps[step]:
                answer = method(session, *facts)
                if answer is not None:
                    break
                at += 1
            else:
                return GO_ON  # what nearly all have to say
        except Exception as error:
            answer = self.failed(self._steps[step][at], step, error)
        asking = _Round(self, step, session, facts, at)
        waiting = asking.go_on_with(answer)
        return asking.decision if waiting is None else self._start(asking.rest(waiting))

    def message(self, session: SessionFacts, envelope: Envelope, body: Body) -> "Message | Future[Message]":
        """What they decide about a whole message, and what they make of it."""
        asking = _Examination(self, session, envelope, body)
        waiting = asking.go_on()
        return asking.message() if waiting is None else self._start(_then(asking, waiting))

    def tell(self, step: str, *facts: Any) -> "Future[None] | None":
        """What asks for no answer (`reset`, `finished`): every hook is told.  None: all have been told."""
        for at, asked in enumerate(self._steps[step]):
            waiting = self._tell(asked, step, facts)
            if waiting is not None:
                return self._start(self._tell_rest(step, at, waiting, facts))
        return None

    # --- the way out --------------------------------------------------------------------

    async def forward(self, envelope: Envelope, via: bytes) -> Envelope | None:
        """The envelope of a forwarded message; None when a hook failed."""
        for asked in self._steps["forward"]:
            answer = await self._value(asked, "forward", Envelope, envelope, via)
            if answer is _FAILED:
                return None
            envelope = answer or envelope
        return envelope

    async def route(self, recipient: bytes, proposed: Any) -> Any:
        """By which way a recipient's mail goes (a `Route`); None when a hook failed."""
        for asked in self._steps["route"]:
            answer = await self._value(asked, "route", type(proposed), recipient, proposed)
            if answer is _FAILED:
                return None
            proposed = answer or proposed
        return proposed

    async def prepare(self, delivery: Delivery, body: Body) -> Prepared:
        """The body of a transaction, in its stored form."""
        for asked in self._steps["prepare"]:
            edits = Edits()  # of this hook alone: a thread that took too long may write to it still
            answer = await self._made(asked, "prepare", type(None), delivery, body, edits, on_the_wire=True)
            if answer is _FAILED:
                return Prepared(body, True)
            if answer is _PASSED:
                continue
            try:
                body = edits.body(body)
            except Exception as error:  # what it gave as a new body may break in any way
                if self.failed(asked, "prepare", error) is _BROKEN:
                    return Prepared(body, True)
        return Prepared(body, False)

    def finished(self, delivery: Delivery, results: tuple[Result, ...]) -> None:
        """Nobody waits for what they do with it."""
        self.tell("finished", delivery, results)

    # --- parts --------------------------------------------------------------------------

    def _start(self, work: "Coroutine[Any, Any, T]") -> "Future[T]":
        """In the background; nobody else may keep it."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def failed(self, asked: _Asked, step: str, error: BaseException | str) -> Any:
        """What a hook that did not do its work counts as: `_BROKEN` or `_PASSED`."""
        name, passes = asked.named.name, asked.named.on_error == "pass"
        why = error if isinstance(error, str) else f"failed at {step}: {error!r}"
        self._log(Alert(f"hook {name} {why}; {'passed over' if passes else 'deferred'}"))
        return _PASSED if passes else _BROKEN

    async def awaited(self, asked: _Asked, step: str, answer: Any) -> Any:
        """What a hook that waits answers in the end.  Its failure counts as that."""
        seconds = asked.named.timeout
        try:
            async with asyncio.timeout(seconds) as limit:
                return await answer
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                return self.failed(asked, step, f"took more than {seconds:g} seconds at {step}")
            return self.failed(asked, step, error)

    async def _value(self, asked: _Asked, step: str, kind: type, *facts: Any) -> Any:
        """What a hook on the way out gives, None for nothing, or `_FAILED`."""
        made = await self._made(asked, step, kind, *facts)
        return None if made is _PASSED else made

    async def _made(
        self, asked: _Asked, step: str, kind: type, *facts: Any, on_the_wire: bool = False
    ) -> Any:
        """As `_value`, or `_PASSED`."""
        body = facts[1] if on_the_wire else None
        if body is not None:
            facts = (facts[0], MessageBody(wire(body), b"\r\n"), *facts[2:])
        try:
            answer = _in_a_thread(asked, facts) if _reads(body, asked) else asked.method(*facts)
        except Exception as error:
            answer = self.failed(asked, step, error)
        if answer is not None and inspect.isawaitable(answer):
            answer = await self.awaited(asked, step, answer)
        if answer is None or answer is _PASSED or isinstance(answer, kind):
            return answer
        if not isinstance(answer, Defer):
            answer = self.failed(asked, step, f"answered {answer!r} at {step}")
        return answer if answer is _PASSED else _FAILED

    def _tell(self, asked: _Asked, step: str, facts: tuple[Any, ...]) -> Any:
        """What it waits for, if for anything."""
        try:
            answer = asked.method(*facts)
        except Exception as error:
            self.failed(asked, step, error)
            return None
        return answer if answer is not None and inspect.isawaitable(answer) else None

    async def _tell_rest(self, step: str, at: int, waiting: Any, facts: tuple[Any, ...]) -> None:
        asked = self._steps[step]
        await self.awaited(asked[at], step, waiting)
        for one in asked[at + 1 :]:
            waiting = self._tell(one, step, facts)
            if waiting is not None:
                await self.awaited(one, step, waiting)


class _Round:
    """One step, on its way through the hooks."""

    def __init__(
        self, chain: HookChain, step: str, session: SessionFacts, facts: tuple[Any, ...], at: int = 0
    ) -> None:
        """The hook at `at` is the next to be asked, or has been asked and its answer is to be taken."""
        self._chain = chain
        self._step = step
        self._session = session
        self._facts = facts
        self._asked = chain._steps[step]
        self._at = at
        self.decision = GO_ON

    def go_on_with(self, answer: Any) -> Any:
        """As `go_on`; this one has been asked already."""
        if answer is not None and type(answer) not in _ACTIONS and inspect.isawaitable(answer):
            return answer
        self._take(self._asked[self._at], answer)
        return self.go_on()

    def go_on(self) -> Any:
        """Ask until one waits, which is returned, or all have been asked, or need not be: None."""
        asked, session = self._asked, self._session
        while self._at < len(asked):
            one = asked[self._at]
            try:
                answer = self._call(one, session)
                if answer is not None and type(answer) not in _ACTIONS and inspect.isawaitable(answer):
                    return answer
            except Exception as error:
                answer = self._chain.failed(one, self._step, error)
            self._take(one, answer)
        return None

    async def rest(self, waiting: Any) -> Decision:
        """From where one waited to the end."""
        while waiting is not None:
            one = self._asked[self._at]
            self._take(one, await self._chain.awaited(one, self._step, waiting))
            waiting = self.go_on()
        return self.decision

    def _call(self, one: _Asked, session: SessionFacts) -> Any:
        return one.method(session, *self._facts)

    def _take(self, one: _Asked, answer: Any) -> bool:
        """What it answered, and on to the next.  Whether it did its work."""
        self._at += 1
        if answer is None or answer is _PASSED:
            return answer is None
        try:
            _ACTIONS[type(answer)](self, answer)
        except (KeyError, ValueError):
            answer = self._chain.failed(one, self._step, f"answered {answer!r} at {self._step}")
            if answer is _BROKEN:
                self._refuse(_BROKEN)
            return False
        return answer is not _BROKEN

    # --- answers ------------------------------------------------------------------------

    def _decide(self, *, ends: bool = True, **what: Any) -> None:
        self.decision = msgspec.structs.replace(self.decision, **what)
        if ends:
            self._at = len(self._asked)

    def _accept(self, answer: Accept) -> None:
        self._decide(silent=True)

    def _refuse(self, answer: Reject | Defer | HangUp) -> None:
        first = _CODES.get(type(answer))
        if first is not None and answer.reply is not None and answer.reply.code // 100 != first:
            raise ValueError
        self._decide(refusal=answer)

    def _drop(self, answer: Drop) -> None:
        if self._step in BEFORE_MAIL:
            self._decide(refusal=HangUp())
        else:
            self._decide(drop=True, silent=True)

    def _hold(self, answer: Hold) -> None:
        if self._step in BEFORE_MAIL:  # there is no message yet
            raise ValueError
        if not self.decision.hold:
            self._decide(hold=answer.reason or "a hook wants it", ends=False)

    def _next(self, answer: Next) -> None:
        self._decide()

    def _replace(self, answer: Replace) -> None:
        address = checked(answer.address)
        if self._step == "mail":
            self._facts = (address,)
        elif self._step == "rcpt":
            recipient: Recipient = self._facts[0]
            self._facts = (Recipient(address, recipient.notify, recipient.orcpt),)
        else:
            raise ValueError
        skip = self.decision.skip_checks or answer.skip_checks
        self._decide(address=address, skip_checks=skip, ends=False)

    def _skip(self, answer: SkipChecks) -> None:
        if self._step not in ("mail", "rcpt"):
            raise ValueError
        self._decide(skip_checks=True)


class _Examination(_Round):
    """The step `message`: each hook sees the edits of those before."""

    def __init__(self, chain: HookChain, session: SessionFacts, envelope: Envelope, body: Body) -> None:
        super().__init__(chain, "message", session, ())
        self._envelope, self._body = envelope, body
        self._shown = MessageBody(body)
        self._edits = Edits()  # each hook has its own: a thread that took too long may write to it still

    def message(self) -> Message:
        return Message(self.decision, self._envelope, self._body)

    def _call(self, one: _Asked, session: SessionFacts) -> Any:
        facts = (session, self._envelope, self._shown, self._edits)
        return _in_a_thread(one, facts) if _reads(self._body, one) else one.method(*facts)

    def _take(self, one: _Asked, answer: Any) -> bool:
        edits, self._edits = self._edits, Edits()
        body, envelope = self._body, self._envelope
        if edits.any and answer is not _BROKEN and answer is not _PASSED:
            try:
                body, envelope = edits.body(body), edits.envelope(envelope)
            except Exception as error:  # what it gave as a new body may break in any way
                answer = self._chain.failed(one, self._step, error)
        done = super()._take(one, answer)
        if done and edits.any:
            self._body, self._envelope, self._shown = body, envelope, MessageBody(body)
        return done


async def _then(asking: _Examination, waiting: Any) -> Message:
    await asking.rest(waiting)
    return asking.message()


def _reads(body: Body | None, asked: _Asked) -> bool:
    """Whether the disk is read in a method that would keep the loop waiting."""
    return body is not None and body.data is None and not inspect.iscoroutinefunction(asked.method)


def _in_a_thread(asked: _Asked, facts: tuple[Any, ...]) -> "Future[Any]":
    return asyncio.get_running_loop().run_in_executor(None, asked.method, *facts)


_FAILED: Any = object()

_CODES = {Reject: 5, Defer: 4}
"""The first digit that the reply of a refusal has."""

_ACTIONS: dict[type, Callable[[Any, Any], None]] = {
    Accept: _Round._accept,
    Reject: _Round._refuse,
    Defer: _Round._refuse,
    HangUp: _Round._refuse,
    Drop: _Round._drop,
    Hold: _Round._hold,
    Next: _Round._next,
    Replace: _Round._replace,
    SkipChecks: _Round._skip,
}
