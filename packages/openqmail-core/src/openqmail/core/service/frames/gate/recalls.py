"""Leases that are kept at hand and not used: given in proportion to what is left, and called back before
anybody is refused.

Who keeps some is not known to the unit, only who may: whoever was given more than he needed.  Who was
called gives back what he does not use and keeps nothing until he is given something ahead again, which he
is not before he has answered; so at a limit he is called once and not for each who is refused.  An answer
waits for those who are called, but not for long: who is silent holds nobody up.
"""

import asyncio
from asyncio import TimerHandle
from collections import deque
from collections.abc import Callable, Collection
from typing import Protocol

import msgspec

from openqmail.core.gate import LocalGate

PATIENCE = 1.0
"""Seconds in which one who is called answers; then nobody waits for him any more."""


class Holder(Protocol):
    """One who has leases."""

    def recall(self, counter: bytes) -> None:
        """Ask him for what he does not use; `Recalls.recalled` is his answer."""
        ...


class Want(msgspec.Struct, frozen=True):
    """`count`: for those who wait, of which as much is given as there is; `ahead`: more, where that costs
    nobody anything; `give` is told how many there were."""

    holder: Holder
    counter: bytes
    count: int
    ahead: int
    give: Callable[[int], None]


class _Counter:
    """`keeping`: who may have some at hand; `called`: who was called and has not answered; `awaited`:
    those of them whose time is not over, for whom whoever comes waits, too."""

    def __init__(self) -> None:
        self.keeping: set[Holder] = set()
        self.called: set[Holder] = set()
        self.awaited: dict[Holder, TimerHandle] = {}
        self.waiting: deque[Want] = deque()


class Recalls:
    """`holders`: all who share the gate, as many as they are just now."""

    def __init__(self, gate: LocalGate, holders: Collection[Holder]) -> None:
        self._gate = gate
        self._holders = holders
        self._counters: dict[bytes, _Counter] = {}

    def want(self, want: Want) -> None:
        """`want.give` is called, now or later."""
        known = self._counters.get(want.counter)
        room = self._gate.room(want.counter)
        if known is None or not known.waiting:
            # Who asks before he has heard that he is called: his answer will not be about this.
            ahead = 0 if known is not None and want.holder in known.called else want.ahead
            if room is None:
                self._give(want, want.count + ahead)
                return
            if want.count <= room:
                share = (room - want.count) // (2 * len(self._holders))
                self._give(want, want.count + min(ahead, share))
                return
        if not want.count:
            want.give(0)
            return
        known = self._known(want.counter)
        known.waiting.append(want)
        self._call(want, known)
        self._go_on(want.counter, known)

    def holds(self, holder: Holder, counter: bytes) -> None:
        """He says so; what of it he does not use is not known."""
        self._known(counter).keeping.add(holder)

    def released(self, holder: Holder, counter: bytes, left: int) -> None:
        """He has given some back, and holds so many."""
        if known := self._counters.get(counter):
            if not left:
                known.keeping.discard(holder)
            self._go_on(counter, known)

    def recalled(self, holder: Holder, counter: bytes) -> bool:
        """He has given back all that he did not use; False when he was not called."""
        known = self._counters.get(counter)
        if known is None or holder not in known.called:
            return False
        self._let_go(holder, known)
        self._go_on(counter, known)
        return True

    def lost(self, holder: Holder) -> None:
        """He is gone, and what he held has been given back."""
        for counter, known in list(self._counters.items()):
            known.waiting = deque(want for want in known.waiting if want.holder is not holder)
            self._let_go(holder, known)
            self._go_on(counter, known)

    def _known(self, counter: bytes) -> _Counter:
        known = self._counters.get(counter)
        if known is None:
            known = self._counters[counter] = _Counter()
        return known

    def _let_go(self, holder: Holder, known: _Counter) -> None:
        known.keeping.discard(holder)
        known.called.discard(holder)
        if timer := known.awaited.pop(holder, None):
            timer.cancel()

    def _call(self, want: Want, known: _Counter) -> None:
        """All who may keep something; he who wants some has used up what he had."""
        loop = asyncio.get_running_loop()
        for holder in known.keeping - known.called - {want.holder}:
            holder.recall(want.counter)
            known.called.add(holder)
            known.awaited[holder] = loop.call_later(PATIENCE, self._wait_no_more, holder, want.counter, known)

    def _wait_no_more(self, holder: Holder, counter: bytes, known: _Counter) -> None:
        del known.awaited[holder]
        self._go_on(counter, known)

    def _go_on(self, counter: bytes, known: _Counter) -> None:
        """Give what there is to those who wait, in order, and less to the first when no more can come."""
        while known.waiting:
            want, room = known.waiting[0], self._gate.room(counter)
            if room is not None and room < want.count and known.awaited:
                return
            known.waiting.popleft()
            self._give(want, want.count if room is None else max(0, min(want.count, room)))
        if not known.keeping and not known.called:
            self._counters.pop(counter, None)

    def _give(self, want: Want, count: int) -> None:
        if count:
            self._gate.hold(want.counter, count)
            if count != want.count:
                self._known(want.counter).keeping.add(want.holder)
        want.give(count)
