"""The port Gate as frames: leases of counters, and rates that are spent; logins are in exchanges.py.

Counters that are asked for all the time are leased in batches and ahead, so as a rule a lease is
there at once and costs no frame; those of networks, too, of which the ones last used are kept.  A
connection that is lost gives back all its leases on the side of the gate; the client tells the next
one what it holds, and asks again what was unanswered.
"""

import asyncio
import itertools
import socket
from asyncio import Future
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from openqmail.core.gate import LocalGate
from openqmail.core.ports.gate import CONNECTIONS, CONNECTIONS_OF_NETWORK
from openqmail.core.ports.sasl import Exchange, SaslClient
from openqmail.core.sasl import Facts
from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.codec import FrameError, understand
from openqmail.core.service.frames.exchanges import Exchanges, ExchangesServed, FromGate, ToGate

LARGEST = 16 * 1024
"""Bytes of a frame to a gate: a client's longest word in a login, and what else there is to it."""

NAMES = 10_000
"""Counters of which one client may have leases at a time."""

IDLE = 256
"""Counters by key of which leases are kept although nobody uses one."""


class Lease(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    id: int
    counter: bytes
    count: int


class Release(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    counter: bytes
    count: int


class Held(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """So much was leased from a gate that is gone: it counts here, also beyond the limit."""

    counter: bytes
    count: int


class Spend(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    id: int
    rate: bytes
    key: bytes
    count: int


ToServer = Lease | Release | Held | Spend | ToGate


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    id: int
    yes: bool


ToClient = Answer | FromGate

understand(ToServer, ToClient)


class Batched:
    """A counter of which some are kept at hand.  `held`: leased from the gate, of which `left` are
    not in use; `asked`: how many it is being asked for, 0 for none."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.held = 0
        self.left = 0
        self.asked = 0
        self.dry = False
        """The gate had no more: it is asked only for what somebody waits for."""
        self.waiting: deque[tuple[int, Future[bool]]] = deque()

    def wanted(self) -> int:
        """How many to ask for now."""
        need = self.waiting[0][0] if self.waiting else 0
        if self.dry:
            return need
        return max(need, self.size) if need or self.left < self.size // 2 else 0

    def less(self) -> int:
        """How many to ask for after a refusal; 0 when that is the end of it."""
        need = self.waiting[0][0] if self.waiting else 1
        return max(need, self.asked // 2) if self.asked > need else 0

    def hand_out(self) -> None:
        while self.waiting and self.waiting[0][0] <= self.left:
            wanted, future = self.waiting.popleft()
            if not future.done():
                self.left -= wanted
                future.set_result(True)

    def refuse(self) -> None:
        self.dry = True
        while self.waiting:
            _answer(self.waiting.popleft()[1], False)


class GateClient:
    """Serves the port Gate by asking a server; needs a running loop.

    `batches`: the counters that are leased ahead, and how many at a time; `keyed`: the same of those that
    each key has for itself, from its first lease on."""

    def __init__(
        self, batches: Mapping[bytes, int] | None = None, keyed: Mapping[bytes, int] | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        sizes = {CONNECTIONS: 16} if batches is None else batches
        self._batched = {counter: Batched(size) for counter, size in sizes.items()}
        if keyed is None:
            keyed = {CONNECTIONS_OF_NETWORK: 4} if batches is None else {}
        self._keyed = dict(keyed)
        self._idle: dict[bytes, None] = {}  # counters by key that nobody uses, the last used last
        self._singly: dict[bytes, int] = {}
        self._asked: dict[int, tuple[Lease | Spend, Future[bool] | None]] = {}
        self._exchanges = Exchanges(self._say)
        self._channel: Channel | None = None
        self._closed = False

    def attach(self, connection: socket.socket) -> None:
        """From now on ask this one."""
        if self._channel is not None:
            self._channel.close()
            self._exchanges.lost()
        self._channel = Channel(connection, ToClient, self._received, self._lost, descriptors=False)
        held = self._singly | {counter: batch.held for counter, batch in self._batched.items() if batch.held}
        for counter, amount in held.items():
            self._say(Held(counter, amount))
        for question, _ in self._asked.values():
            self._say(question)
        for counter, batch in self._batched.items():
            self._ask_ahead(counter, batch)

    def lease(self, counter: bytes, count: int = 1) -> "Future[bool]":
        answer: Future[bool] = self._loop.create_future()
        batch = self._batched.get(counter) or self._begin(counter)
        if self._closed:
            answer.set_result(False)
        elif batch is None:
            self._ask(Lease(next(self._ids), counter, count), answer)
        else:
            batch.waiting.append((count, answer))
            batch.hand_out()
            self._ask_ahead(counter, batch)
            self._rest(counter, batch)
        return answer

    def spend(self, rate: bytes, key: bytes, count: int = 1) -> "Future[bool]":
        answer: Future[bool] = self._loop.create_future()
        if self._closed:
            answer.set_result(False)
        else:
            self._ask(Spend(next(self._ids), rate, key, count), answer)
        return answer

    @property
    def mechanisms(self) -> frozenset[bytes]:
        return self._exchanges.mechanisms

    def sasl(self, mechanism: bytes, client: SaslClient, facts: Facts) -> Exchange:
        return self._exchanges.begin(mechanism, client, facts)

    def release(self, counter: bytes, count: int = 1) -> None:
        batch = self._batched.get(counter)
        if batch is None:
            self._give_back(counter, count)
            return
        batch.left += count
        batch.hand_out()
        if batch.left > 2 * batch.size:
            self._trim(counter, batch, batch.left - batch.size)
        self._rest(counter, batch)

    def drain(self) -> None:
        """Fewer and fewer will be wanted: lease nothing ahead any more, and give back what is left."""
        self._keyed = dict.fromkeys(self._keyed, 0)
        for counter, batch in list(self._batched.items()):
            batch.size = 0
            self._trim(counter, batch, batch.left)
            self._rest(counter, batch)

    def close(self) -> None:
        """End the connection, by which all is given back; what is unanswered is refused."""
        self._closed = True
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._exchanges.lost()
        asked, self._asked = self._asked, {}
        for _, answer in asked.values():
            _answer(answer, False)
        for batch in self._batched.values():
            batch.refuse()

    # --- one by one ---------------------------------------------------------------------

    def _ask(self, question: Lease | Spend, answer: "Future[bool] | None") -> None:
        self._asked[question.id] = (question, answer)
        self._say(question)

    def _give_back(self, counter: bytes, count: int) -> None:
        left = self._singly.get(counter, 0) - count
        if left < 0:
            raise ValueError(f"{count} of {counter!r} given back, but fewer are leased")
        if left:
            self._singly[counter] = left
        else:
            self._singly.pop(counter, None)
        self._say(Release(counter, count))

    # --- in batches ---------------------------------------------------------------------

    def _begin(self, counter: bytes) -> Batched | None:
        """For one that a key has for itself, and that is to be leased in batches."""
        kind, blank, _ = counter.partition(b" ")
        if not blank or kind not in self._keyed:
            return None
        batch = self._batched[counter] = Batched(self._keyed[kind])
        return batch

    def _rest(self, counter: bytes, batch: Batched) -> None:
        """One of a key that nobody uses just now is kept with what it holds, until too many are."""
        if b" " not in counter:
            return
        self._idle.pop(counter, None)
        if batch.left < batch.held or batch.asked or batch.waiting:
            return
        self._idle[counter] = None
        if not batch.held:
            self._forget(counter)
        elif len(self._idle) > IDLE:
            self._forget(next(iter(self._idle)))

    def _forget(self, counter: bytes) -> None:
        """Give back what is held of one that nobody uses."""
        del self._idle[counter]
        batch = self._batched.pop(counter)
        self._trim(counter, batch, batch.left)

    def _ask_ahead(self, counter: bytes, batch: Batched) -> None:
        if not batch.asked and self._channel is not None and (amount := batch.wanted()):
            self._ask_for(counter, batch, amount)

    def _ask_for(self, counter: bytes, batch: Batched, amount: int) -> None:
        batch.asked = amount
        self._ask(Lease(next(self._ids), counter, amount), None)

    def _answer_batch(self, counter: bytes, batch: Batched, yes: bool) -> None:
        amount = batch.asked
        if yes:
            batch.asked = 0
            batch.dry = False
            batch.held += amount
            batch.left += amount
            batch.hand_out()
            self._ask_ahead(counter, batch)
            self._rest(counter, batch)
        elif less := batch.less():
            self._ask_for(counter, batch, less)
        else:
            batch.asked = 0
            batch.refuse()
            self._rest(counter, batch)

    def _trim(self, counter: bytes, batch: Batched, amount: int) -> None:
        if amount:
            batch.left -= amount
            batch.held -= amount
            self._say(Release(counter, amount))

    # --- the connection -----------------------------------------------------------------

    def _say(self, message: ToServer) -> bool:
        """False where nobody is there."""
        if self._channel is None:
            return False
        self._channel.send(message)
        return True

    def _received(self, message: Any, descriptors: list[int]) -> None:
        if not isinstance(message, Answer):
            self._exchanges.received(message)
            return
        if message.id not in self._asked:
            raise FrameError("an answer to nothing")
        question, answer = self._asked.pop(message.id)
        if isinstance(question, Spend):
            _answer(answer, message.yes)
        elif answer is None:
            self._answer_batch(question.counter, self._batched[question.counter], message.yes)
        else:
            if message.yes:
                self._singly[question.counter] = self._singly.get(question.counter, 0) + question.count
                if answer.done():
                    self._give_back(question.counter, question.count)
            _answer(answer, message.yes)

    def _lost(self, error: Exception | None) -> None:
        self._channel = None
        self._exchanges.lost()


def _answer(answer: "Future[bool] | None", yes: bool) -> None:
    if answer is not None and not answer.done():
        answer.set_result(yes)


# --- the server -----------------------------------------------------------------------------


class GateServer:
    """Asks `gate` for each of its clients; needs a running loop."""

    def __init__(self, gate: LocalGate) -> None:
        self._gate = gate
        self._talks: set[_Talk] = set()

    def serve(self, connection: socket.socket) -> None:
        self._talks.add(_Talk(self._gate, connection, self._talks.discard))

    def tell_mechanisms(self) -> None:
        """To be called when they may have changed."""
        for talk in list(self._talks):
            talk.exchanges.tell_mechanisms()

    def close(self) -> None:
        """End all connections."""
        for talk in list(self._talks):
            talk.close()


class _Talk:
    """One connection of a server, and what is leased by it."""

    def __init__(self, gate: LocalGate, connection: socket.socket, gone: "Callable[[_Talk], None]") -> None:
        self._gate = gate
        self._gone = gone
        self._leased: dict[bytes, int] = {}
        self._channel = Channel(
            connection, ToServer, self._received, self._lost, largest=LARGEST, descriptors=False
        )
        self.exchanges = ExchangesServed(gate, self._channel.send)
        self.exchanges.tell_mechanisms()

    def close(self) -> None:
        self._channel.close()
        self._lost(None)

    def _received(self, message: Any, descriptors: list[int]) -> None:
        if self._channel.full:
            raise FrameError("does not read its answers")
        if isinstance(message, ToGate):
            self.exchanges.received(message)
            return
        if message.count < 1:
            raise FrameError("leases are counted from one")
        match message:
            case Lease(id, counter, count):
                yes = self._has_room(counter) and self._gate.take(counter, count)
                if yes:
                    self._leased[counter] = self._leased.get(counter, 0) + count
                self._channel.send(Answer(id, yes))
            case Spend(id, rate, key, count):
                self._channel.send(Answer(id, self._gate.charge(rate, key, count)))
            case Release(counter, count):
                self._give_back(counter, count)
            case Held(counter, count):
                if not self._has_room(counter):
                    raise FrameError("holds too many counters")
                self._gate.hold(counter, count)
                self._leased[counter] = self._leased.get(counter, 0) + count

    def _has_room(self, counter: bytes) -> bool:
        return counter in self._leased or len(self._leased) < NAMES

    def _give_back(self, counter: bytes, count: int) -> None:
        left = self._leased.get(counter, 0) - count
        if left < 0:
            raise FrameError("gives back more than it has")
        self._gate.release(counter, count)
        if left:
            self._leased[counter] = left
        else:
            del self._leased[counter]

    def _lost(self, error: Exception | None) -> None:
        self.exchanges.lost()
        leased, self._leased = self._leased, {}
        for counter, count in leased.items():
            self._gate.release(counter, count)
        self._gone(self)
