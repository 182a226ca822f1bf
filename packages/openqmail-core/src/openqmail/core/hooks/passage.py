"""One message on its way past the hooks: who is asked about it still, and what was decided so far.

What a hook answers counts for the message that it was asked about, however late, and never for the next:
that has a passage of its own.
"""

from asyncio import Future
from collections import deque
from collections.abc import Callable
from typing import Any

from openqmail.core.hooks.interface import SessionFacts
from openqmail.core.message.fields import HeaderReader
from openqmail.core.values import Decision
from openqmail.core.values.verdict import GO_ON

_NONE: frozenset[str] = frozenset()


class Passage:
    """From MAIL to its end.  `asked`: the steps at which any hook has a say still; `facts`: what is known
    while the message comes, when none of it changes any more."""

    __slots__ = ("asked", "drop", "facts", "hold", "over", "stream")

    def __init__(self, asked: frozenset[str]) -> None:
        self.asked = asked
        self.facts: SessionFacts | None = None
        self.stream: Stream | None = None
        self.drop = False
        self.hold = ""
        self.over = False

    @property
    def examined(self) -> bool:
        """Whether the end of the message is anything to hooks, or to what they decided."""
        return self.stream is not None or self.drop or "message" in self.asked

    def note(self, decision: Decision) -> None:
        if decision.silent:
            self.asked = _NONE
        self.drop = self.drop or decision.drop
        self.hold = self.hold or decision.hold

    def end(self) -> None:
        """The message is over: no hook is asked about it any more."""
        self.over = True
        self.asked = _NONE
        if self.stream is not None:
            self.stream.stop()


class Stream:
    """A message on its way to the hooks, as it comes: no faster than they take it, and no further than
    the first that refuses it.  `ask`: what hooks say at a step; `busy` is told when they are behind, and when
    they are not."""

    def __init__(
        self,
        ask: "Callable[[str, Any], Decision | Future[Decision]]",
        busy: Callable[[bool], None],
    ) -> None:
        self._ask = ask
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

    def stop(self) -> None:
        """Nothing of it is of interest any more; what is asked just now is asked to its end."""
        self._over = True
        self._waiting.clear()

    def _put(self, fields: list[Any], body: bytes) -> None:
        if self._over:
            return
        self._waiting.extend(("header", field) for field in fields)
        if body:
            self._waiting.append(("chunk", body))

    def _go_on(self) -> None:
        waiting = self._waiting
        while waiting and self._asking is None:
            step, what = waiting.popleft()
            asked = self._ask(step, what)
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
            self.stop()

    def _answered(self, done: "Future[Decision]") -> None:
        self._asking = None
        self._take(GO_ON if done.cancelled() else done.result())
        self._go_on()
        if self._asking is None and self._ended is not None and not self._ended.done():
            self._ended.set_result(self._decision)
        self._busy(False)
