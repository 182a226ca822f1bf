"""One client's session as hooks see it: who is asked still, what was decided about its message so far,
and the message as it comes.  A front end has one where there are hooks, and none where there are not.
"""

from asyncio import Future
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

from openqmail.core.hooks.interface import SessionFacts, WhyReset
from openqmail.core.hooks.round import BEFORE_MAIL, Message
from openqmail.core.message.fields import HeaderReader
from openqmail.core.ports import InboundHooks
from openqmail.core.values import Body, Decision, Envelope
from openqmail.core.values.verdict import GO_ON

_numbers = count(1)

_NONE: frozenset[str] = frozenset()
_ALWAYS = frozenset({"reset"})
"""Steps of which hooks hear even where they are not asked any more."""


class Conversation:
    """From the connection to its end.  `drop` and `hold` are what hooks decided about the message under way.
    `asked`: the steps at which any hook has a say; `facts(id, listed)` tells what is known of the client
    now."""

    # How every one begins: what most never change is not set anew for each.
    drop = False
    hold = ""
    stream: "Stream | None" = None
    _resetting: "Future[None] | None" = None
    _coming: SessionFacts | None = None  # what is known while a message comes: none of it changes

    def __init__(
        self, chain: InboundHooks, asked: frozenset[str], facts: Callable[[int, bool], SessionFacts]
    ) -> None:
        self._chain = chain
        self._asked = self._now = asked  # for the rest of the session, and of the message
        self._facts = facts
        self._id = next(_numbers)

    def has(self, step: str) -> bool:
        return step in self._now

    @property
    def examines(self) -> bool:
        """Whether the end of a message is anything to hooks, or to what they decided."""
        return self.stream is not None or self.drop or "message" in self._now

    def ask(self, step: str, fact: Any = None, listed: bool = True) -> "Decision | Future[Decision]":
        """What hooks decide about `fact`, None at connect; `listed`: as in `SessionFacts`."""
        if step == "mail":
            self._forget()
        if step not in self._now:
            return GO_ON
        session = self._coming or self._facts(self._id, listed)
        before = self._resetting
        asked: Decision | Future[Decision]
        if before is not None and not before.done():
            facts = () if fact is None else (fact,)
            asked = _after(before, partial(self._chain.ask, step, session, *facts))
        elif fact is None:
            asked = self._chain.ask(step, session)
        else:
            asked = self._chain.ask(step, session, fact)
        if asked is GO_ON:  # what nearly all come to
            return GO_ON
        if isinstance(asked, Decision):
            self._note(step, asked)
        else:  # noted before anybody has it
            asked.add_done_callback(partial(self._note_later, step))
        return asked

    def message(self, envelope: Envelope, body: Body) -> "Message | Future[Message]":
        """What hooks decide about the whole message."""
        if "message" not in self._now:
            return Message(GO_ON, envelope, body)
        session = self._coming or self._facts(self._id, True)
        asked: Message | Future[Message] = self._chain.message(session, envelope, body)
        if not isinstance(asked, Message):
            asked.add_done_callback(partial(self._note_later, "message"))
        elif asked.decision is not GO_ON:
            self._note("message", asked.decision)
        return asked

    def listen(self, busy: Callable[[bool], None]) -> None:
        """A message is about to come; `busy` is told when hooks are behind, and when they are not."""
        if "header" in self._now or "chunk" in self._now:
            self._coming = self._facts(self._id, True)
            self.stream = Stream(self, busy)

    def reset(self, why: WhyReset) -> None:
        """The message, or the session, is over.  What comes next waits until hooks know that."""
        self.stream = None
        self._forget()
        if "reset" not in self._asked:
            return
        session, before = self._facts(self._id, True), self._resetting
        if before is None or before.done():
            self._resetting = self._chain.tell("reset", session, why)
        else:
            self._resetting = _after(before, partial(self._chain.tell, "reset", session, why))

    def _note_later(self, step: str, asked: "Future[Any]") -> None:
        if not asked.cancelled():
            answer = asked.result()
            self._note(step, answer.decision if isinstance(answer, Message) else answer)

    def _note(self, step: str, decision: Decision) -> None:
        if decision.silent:
            self._now = _NONE
            if step in BEFORE_MAIL:
                self._asked &= _ALWAYS
        self.drop = self.drop or decision.drop
        self.hold = self.hold or decision.hold

    def _forget(self) -> None:
        self._now = self._asked
        self.drop = False
        self.hold = ""
        self._coming = None


class Stream:
    """A message on its way to the hooks, as it comes: no faster than they take it, and no further than
    the first that refuses it."""

    def __init__(self, conversation: Conversation, busy: Callable[[bool], None]) -> None:
        self._conversation = conversation
        self._busy = busy
        self._reader = HeaderReader()
        self._waiting: deque[tuple[str, Any]] = deque()
        self._asking: Future[Decision] | None = None
        self._decision = GO_ON
        self._over = False
        self._ended: Future[Decision] | None = None

    def feed(self, data: bytes) -> None:
        """The next piece of the message, as it is stored."""
        if self._over:
            return
        if self._reader.in_body:
            self._waiting.append(("chunk", data))
        else:
            self._put(*self._reader.feed(data))
        self._go_on()

    def end(self) -> "Decision | Future[Decision]":
        """What was decided on the way, when hooks have seen all of it."""
        self._put(*self._reader.finish())
        self._go_on()
        if self._asking is None:
            return self._decision
        self._ended = Future(loop=self._asking.get_loop())
        return self._ended

    def _put(self, fields: list[Any], body: bytes) -> None:
        self._waiting.extend(("header", field) for field in fields)
        if body:
            self._waiting.append(("chunk", body))

    def _go_on(self) -> None:
        waiting = self._waiting
        while waiting and self._asking is None:
            step, what = waiting.popleft()
            asked = self._conversation.ask(step, what)
            if asked is GO_ON:
                continue
            if isinstance(asked, Future):
                self._asking = asked
                self._busy(True)
                asked.add_done_callback(self._answered)
            else:
                self._take(asked)

    def _take(self, decision: Decision) -> None:
        if decision.refusal is not None or decision.silent:
            self._decision = decision
            self._over = True
            self._waiting.clear()

    def _answered(self, done: "Future[Decision]") -> None:
        self._asking = None
        self._take(GO_ON if done.cancelled() else done.result())
        self._go_on()
        if self._asking is None and self._ended is not None and not self._ended.done():
            self._ended.set_result(self._decision)
        self._busy(False)


def _after(before: "Future[Any]", ask: Callable[[], Any]) -> "Future[Any]":
    """What comes of asking when something else is over."""
    asked: Future[Any] = Future(loop=before.get_loop())
    before.add_done_callback(lambda _: _pass_on(ask(), asked))
    return asked


def _pass_on(asked: Any, to: "Future[Any]") -> None:
    if not isinstance(asked, Future):
        to.set_result(asked)
        return
    asked.add_done_callback(lambda done: to.cancel() if done.cancelled() else to.set_result(done.result()))
