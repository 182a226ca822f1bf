"""One step on its way through the hooks: what they answer comes to one decision, the first refusal ends it.

A chain asks in its own loop until one has something to say; from there on it is a round's.  At `message`
each hook sees the edits of those before, and what a hook that failed has made is thrown away.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from openqmail.core.hooks.body import MessageBody
from openqmail.core.hooks.edits import Edits, checked
from openqmail.core.hooks.failure import FAILURES
from openqmail.core.hooks.interface import SessionFacts
from openqmail.core.hooks.method import BROKEN, PASSED, Method, Waiting
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
    SkipChecks,
)
from openqmail.core.values.verdict import GO_ON, sound

BEFORE_MAIL = ("connect", "helo", "auth")


class Message(msgspec.Struct, frozen=True):
    """What the hooks made of a message: `body` is the given one where none of them edited it."""

    decision: Decision
    envelope: Envelope
    body: Body


class Round:
    """`hooks`: who is to be asked still; who is asked is taken from it.  `facts`: with what, the session's
    first."""

    def __init__(self, step: str, hooks: Iterator[Method], facts: tuple[Any, ...]) -> None:
        self._step = step
        self._hooks = hooks
        self._facts = facts
        self._ended = False
        self.decision = GO_ON

    def go_on(self) -> Waiting | None:
        """Ask until one waits: which, and for what.  None: all have been asked, or need not be."""
        while not self._ended and (method := next(self._hooks, None)) is not None:
            try:
                answer = self._call(method)
            except FAILURES as error:
                answer = method.failed(error)
            if _waits(answer):
                return method, answer
            self._take(method, answer)
        return None

    def go_on_with(self, method: Method, answer: Any) -> Waiting | None:
        """As `go_on`; this one has been asked already."""
        if _waits(answer):
            return method, answer
        self._take(method, answer)
        return self.go_on()

    async def rest(self, waiting: Waiting | None) -> Decision:
        """From where one waited to the end."""
        while waiting is not None:
            method, answer = waiting
            self._take(method, await method.awaited(answer))
            waiting = self.go_on()
        return self.decision

    def _call(self, method: Method) -> Any:
        return method.call(*self._facts)

    def _take(self, method: Method, answer: Any) -> bool:
        """What it answered.  Whether it did its work."""
        if answer is None or answer is PASSED:
            return answer is None
        try:
            _ACTIONS[type(sound(answer))](self, answer)
        except (KeyError, ValueError):
            answer = method.senseless(answer)
            if answer is BROKEN:
                self._refuse(BROKEN)
            return False
        return answer is not BROKEN

    # --- answers ------------------------------------------------------------------------

    def _decide(self, *, ends: bool = True, **what: Any) -> None:
        self.decision = msgspec.structs.replace(self.decision, **what)
        self._ended = self._ended or ends

    def _accept(self, answer: Accept) -> None:
        self._decide(silent=True)

    def _refuse(self, answer: Reject | Defer | HangUp) -> None:
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
        session, *facts = self._facts
        if self._step == "mail":
            self._facts = (session, address)
        elif self._step == "rcpt":
            recipient: Recipient = facts[0]
            self._facts = (session, Recipient(address, recipient.notify, recipient.orcpt))
        else:
            raise ValueError
        skip = self.decision.skip_checks or answer.skip_checks
        self._decide(address=address, skip_checks=skip, ends=False)

    def _skip(self, answer: SkipChecks) -> None:
        if self._step not in ("mail", "rcpt"):
            raise ValueError
        self._decide(skip_checks=True)


class Examination(Round):
    """The step `message`.  `edits`: of the hook that was asked last, where one was."""

    def __init__(
        self,
        hooks: Iterator[Method],
        session: SessionFacts,
        envelope: Envelope,
        body: Body,
        edits: Edits | None = None,
    ) -> None:
        super().__init__("message", hooks, ())
        self._session = session
        self._envelope, self._body = envelope, body
        self._shown = MessageBody(body)
        self._edits = edits or Edits()

    def message(self) -> Message:
        return Message(self.decision, self._envelope, self._body)

    async def whole(self, waiting: Waiting) -> Message:
        """As `rest`."""
        await self.rest(waiting)
        return self.message()

    def _call(self, method: Method) -> Any:
        self._edits = Edits()  # each hook has its own: a thread that took too long may write to it still
        call = method.call if self._body.data is not None else method.beside
        return call(self._session, self._envelope, self._shown, self._edits)

    def _take(self, method: Method, answer: Any) -> bool:
        edits, body, envelope = self._edits, self._body, self._envelope
        if edits.any and answer is not BROKEN and answer is not PASSED:
            try:
                body, envelope = edits.body(body, method.own), edits.envelope(envelope)
            except FAILURES as error:  # what it gave as a new body may break in any way
                answer = method.failed(error)
        done = super()._take(method, answer)
        if done and edits.any:
            self._body, self._envelope, self._shown = body, envelope, MessageBody(body)
        return done


def _waits(answer: Any) -> bool:
    return answer is not None and type(answer) not in _ACTIONS and inspect.isawaitable(answer)


_ACTIONS: dict[type, Callable[[Any, Any], None]] = {
    Accept: Round._accept,
    Reject: Round._refuse,
    Defer: Round._refuse,
    HangUp: Round._refuse,
    Drop: Round._drop,
    Hold: Round._hold,
    Next: Round._next,
    Replace: Round._replace,
    SkipChecks: Round._skip,
}
