"""One client's session as hooks see it, message by message: they are asked one thing after the other, and
told that a message is over before they are asked about the next.  A front end has one where there are
hooks, and none where there are not.
"""

from asyncio import Future
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from itertools import count
from typing import Any

from openqmail.core.hooks.interface import SessionFacts, WhyReset
from openqmail.core.hooks.passage import Passage, Stream
from openqmail.core.hooks.round import BEFORE_MAIL, Message
from openqmail.core.ports import InboundHooks
from openqmail.core.values import Body, Decision, Envelope
from openqmail.core.values.verdict import GO_ON

_numbers = count(1)

_ALWAYS = frozenset({"reset"})
"""Steps of which hooks hear even where they are not asked any more."""


class Conversation:
    """From the connection to its end.  `passage`: the message under way.  `asked`: the steps at which any
    hook has a say; `facts(id, listed)` tells what is known of the client now."""

    # How every one begins: what most never change is not set anew for each.
    _asking: "Future[Any] | None" = None
    _resetting: "Future[Any] | None" = None

    def __init__(
        self, chain: InboundHooks, asked: frozenset[str], facts: Callable[[int, bool], SessionFacts]
    ) -> None:
        self._chain = chain
        self._asked = self._unheard = asked  # for the rest of the session; the same whatever a client said
        self._facts = facts
        self._id = next(_numbers)
        self.passage = Passage(asked)

    def has(self, step: str) -> bool:
        return step in self.passage.asked

    @property
    def examines(self) -> bool:
        return self.passage.examined

    @property
    def readers(self) -> Executor:
        """Of its chain."""
        return self._chain.readers

    @property
    def hold(self) -> str:
        """Why the message under way is to be held; empty where it is not."""
        return self.passage.hold

    @property
    def stream(self) -> Stream | None:
        """The message under way, as it comes."""
        return self.passage.stream

    def ask(self, step: str, fact: Any = None, listed: bool = True) -> "Decision | Future[Decision]":
        """What hooks decide about `fact`, None at connect; `listed`: as in `SessionFacts`."""
        if step in BEFORE_MAIL:
            if step not in self._asked:
                return GO_ON
            return self._put(partial(self._silenced, step), step, fact, self._facts(self._id, listed))
        if step == "mail":
            self.passage = Passage(self._asked)
        return self._about(self.passage, step, fact, listed)

    def _about(
        self, passage: Passage, step: str, fact: Any, listed: bool = True
    ) -> "Decision | Future[Decision]":
        if step not in passage.asked:
            return GO_ON
        return self._put(passage.note, step, fact, passage.facts or self._facts(self._id, listed))

    def _put(
        self, note: Callable[[Decision], None], step: str, fact: Any, session: SessionFacts
    ) -> "Decision | Future[Decision]":
        """Ask, and note what they decide, before anybody has it."""
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
            note(asked)
        else:
            self._asking = asked
            asked.add_done_callback(partial(_note_later, note))
        return asked

    def message(self, envelope: Envelope, body: Body) -> "Message | Future[Message]":
        """What hooks decide about the whole message."""
        passage = self.passage
        if "message" not in passage.asked:
            return Message(GO_ON, envelope, body)
        session = passage.facts or self._facts(self._id, True)
        before = self._resetting
        asked: Message | Future[Message]
        if before is not None and not before.done():
            asked = _after(before, partial(self._chain.message, session, envelope, body))
        else:
            asked = self._chain.message(session, envelope, body)
        if not isinstance(asked, Message):
            self._asking = asked
            asked.add_done_callback(partial(_note_later, passage.note))
        elif asked.decision is not GO_ON:
            passage.note(asked.decision)
        return asked

    def listen(self, busy: Callable[[bool], None]) -> None:
        """A message is about to come; `busy` is told when hooks are behind, and when they are not."""
        passage = self.passage
        if "header" in passage.asked or "chunk" in passage.asked:
            passage.facts = self._facts(self._id, True)
            passage.stream = Stream(partial(self._about, passage), busy)

    def secured(self) -> None:
        """TLS begins: what hooks answered to what the client had said before is forgotten."""
        self._asked = self._unheard

    def reset(self, why: WhyReset) -> None:
        """The message, or the session, is over.  Hooks are told when they have answered what they are asked
        just now, and what comes next waits for that."""
        self.passage.end()
        before = self._resetting if self._asking is None or self._asking.done() else self._asking
        waits = before is not None and not before.done()
        self._asking, self._resetting = None, before if waits else None
        if "reset" in self._asked:
            tell = partial(self._chain.tell, "reset", self._facts(self._id, True), why)
            self._resetting = _after(before, tell) if before is not None and waits else tell()

    def _silenced(self, step: str, decision: Decision) -> None:
        """What was decided before there is any message, where it silences them."""
        if decision.silent:
            self._asked &= _ALWAYS
            if step == "connect":  # nobody had said anything yet
                self._unheard = self._asked


def _note_later(note: Callable[[Decision], None], asked: "Future[Any]") -> None:
    if not asked.cancelled():
        answer = asked.result()
        note(answer.decision if isinstance(answer, Message) else answer)


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
