"""The front end's side: leases and tokens at hand, questions for the others.

Counters that are asked for all the time are leased ahead, so as a rule a lease is there at once and
costs no frame; those of networks, too, of which the ones last used are kept.  What is held is told to the
next gate when one is lost, and what was unanswered is asked again.  Where none comes, as one that lives has
ended the connection, somebody is told: only a new start helps then.
"""

import asyncio
import itertools
import socket
from asyncio import Future
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from openqmail.core.ports.gate import CONNECTIONS, CONNECTIONS_OF_NETWORK
from openqmail.core.ports.sasl import Exchange, SaslClient
from openqmail.core.sasl import Facts
from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.codec import FrameError
from openqmail.core.service.frames.gate.batch import Batch, settle
from openqmail.core.service.frames.gate.exchanges import Exchanges, FromGate
from openqmail.core.service.frames.gate.messages import (
    Answer,
    Held,
    Lease,
    Leased,
    Recall,
    Recalled,
    Refund,
    Release,
    Spend,
    ToClient,
    ToServer,
)
from openqmail.core.service.frames.gate.purses import Name, Purses

IDLE = 256
"""Counters by key of which leases are kept although nobody uses one."""

AHEAD = 64
"""Tokens of a rate that are spent ahead for a key at a time."""

KEYS = 1024
"""Keys of rates for which some are at hand."""

PATIENCE = 30.0
"""Seconds until another gate is there when one is lost; one that has died is back sooner."""


class GateClient:
    """Serves the port Gate by asking a server; needs a running loop.

    `batches`: the counters that are leased ahead, and how many at a time; `keyed`: the same of those that
    each key has for itself, from its first lease on; `alone` is called where a gate was lost and no other
    came."""

    def __init__(
        self,
        batches: Mapping[bytes, int] | None = None,
        keyed: Mapping[bytes, int] | None = None,
        alone: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        sizes = {CONNECTIONS: 16} if batches is None else batches
        self._always = frozenset(sizes)
        self._batches = {counter: Batch(size) for counter, size in sizes.items()}
        if keyed is None:
            keyed = {CONNECTIONS_OF_NETWORK: 4} if batches is None else {}
        self._keyed = dict(keyed)
        self._idle: dict[bytes, None] = {}  # counters by key that nobody uses, the last used last
        self._asked: dict[int, tuple[Lease | Spend, Future[bool] | None]] = {}
        self._purses = Purses(AHEAD, KEYS)
        self._exchanges = Exchanges(self._say)
        self._channel: Channel | None = None
        self._closed = False
        self._alone = alone
        self._waiting: asyncio.TimerHandle | None = None

    def attach(self, connection: socket.socket) -> None:
        """From now on ask this one."""
        self._wait_no_more()
        if self._channel is not None:
            self._channel.close()
            self._exchanges.lost()
        self._channel = Channel(connection, ToClient, self._received, self._lost, descriptors=False)
        for counter, batch in self._batches.items():
            if batch.held:
                self._say(Held(counter, batch.held))
        for question, _ in self._asked.values():
            self._say(question)
        for counter, batch in self._batches.items():
            self._ask_for(counter, batch)

    def lease(self, counter: bytes, count: int = 1) -> "Future[bool]":
        answer: Future[bool] = self._loop.create_future()
        if self._closed:
            answer.set_result(False)
            return answer
        batch = self._batches.get(counter) or self._begin(counter)
        batch.waiting.append((count, answer))
        self._go_on(counter, batch)
        return answer

    def spend(self, rate: bytes, key: bytes, count: int = 1) -> "Future[bool]":
        answer: Future[bool] = self._loop.create_future()
        if self._closed:
            answer.set_result(False)
        elif self._purses.take((rate, key), count):
            answer.set_result(True)
        else:
            ahead = self._purses.wanted((rate, key))
            self._ask(Spend(next(self._ids), rate, key, count, ahead), answer)
            self._refund(self._purses.surplus())
        return answer

    @property
    def mechanisms(self) -> frozenset[bytes]:
        return self._exchanges.mechanisms

    def sasl(self, mechanism: bytes, client: SaslClient, facts: Facts) -> Exchange:
        return self._exchanges.begin(mechanism, client, facts)

    def release(self, counter: bytes, count: int = 1) -> None:
        batch = self._batches.get(counter)
        if batch is None or batch.used < count:
            raise ValueError(f"{count} of {counter!r} given back, but fewer are leased")
        batch.left += count
        self._go_on(counter, batch)

    def drain(self) -> None:
        """Fewer and fewer will be wanted: take nothing ahead any more, and give back what is left."""
        self._refund(self._purses.end())
        self._keyed.clear()
        for counter, batch in list(self._batches.items()):
            batch.size = batch.ahead = 0
            self._go_on(counter, batch)

    def close(self) -> None:
        """End the connection, by which all is given back; what is unanswered is refused."""
        self._closed = True
        self._wait_no_more()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._exchanges.lost()
        asked, self._asked = self._asked, {}
        for _, answer in asked.values():
            settle(answer, False)
        for batch in self._batches.values():
            for _, waiting in batch.waiting:
                settle(waiting, False)
            batch.waiting.clear()

    # --- rates --------------------------------------------------------------------------

    def _spent(self, asked: Spend, answer: "Future[bool] | None", heard: Answer) -> None:
        if asked.ahead:
            self._purses.put((asked.rate, asked.key), heard.ahead)
            self._refund(self._purses.surplus())
        settle(answer, heard.yes)

    def _refund(self, left: Iterable[tuple[Name, int]]) -> None:
        for (rate, key), count in left:
            self._say(Refund(rate, key, count))

    # --- leases -------------------------------------------------------------------------

    def _begin(self, counter: bytes) -> Batch:
        """For a counter of which nothing is held."""
        batch = self._batches[counter] = Batch(self._keyed.get(counter.partition(b" ")[0], 0))
        return batch

    def _go_on(self, counter: bytes, batch: Batch) -> None:
        """After anything that has changed."""
        batch.hand_out()
        self._ask_for(counter, batch)
        if batch.left > 2 * batch.ahead and not batch.waiting:
            self._give_back(counter, batch, batch.left - batch.ahead)
        if counter not in self._always:
            self._rest(counter, batch)

    def _rest(self, counter: bytes, batch: Batch) -> None:
        """One that nobody uses just now is kept with what it holds, until too many are."""
        self._idle.pop(counter, None)
        if batch.used or batch.asking or batch.waiting:
            return
        self._idle[counter] = None
        if not batch.held:
            self._forget(counter)
        elif len(self._idle) > IDLE:
            self._forget(next(iter(self._idle)))

    def _forget(self, counter: bytes) -> None:
        """Give back what is held of one that nobody uses."""
        del self._idle[counter]
        batch = self._batches.pop(counter)
        self._give_back(counter, batch, batch.left)

    def _ask_for(self, counter: bytes, batch: Batch) -> None:
        """Those who wait, and some more."""
        if batch.asking or self._channel is None:
            return
        need = batch.need()
        if need or batch.left < batch.ahead // 2:
            batch.asking, batch.asked = True, len(batch.waiting)
            self._ask(Lease(next(self._ids), counter, need, batch.size), None)

    def _leased(self, asked: Lease, count: int) -> None:
        batch = self._batches[asked.counter]
        batch.asking = False
        batch.held += count
        batch.left += count
        batch.ahead = max(0, min(count - asked.count, batch.size))
        batch.hand_out()
        if count < asked.count:
            batch.refuse()
        batch.asked = 0
        self._go_on(asked.counter, batch)

    def _recalled(self, counter: bytes) -> None:
        batch = self._batches.get(counter)
        if batch is not None:
            batch.ahead = 0
            self._give_back(counter, batch, batch.left)
            self._go_on(counter, batch)
        self._say(Recalled(counter))

    def _give_back(self, counter: bytes, batch: Batch, count: int) -> None:
        if count:
            batch.left -= count
            batch.held -= count
            self._say(Release(counter, count))

    # --- the connection -----------------------------------------------------------------

    def _ask(self, question: Lease | Spend, answer: "Future[bool] | None") -> None:
        self._asked[question.id] = (question, answer)
        self._say(question)

    def _say(self, message: ToServer) -> bool:
        """False where nobody is there."""
        if self._channel is None:
            return False
        self._channel.send(message)
        return True

    def _received(self, message: Any, descriptors: list[int]) -> None:
        if isinstance(message, FromGate):
            self._exchanges.received(message)
            return
        if isinstance(message, Recall):
            self._recalled(message.counter)
            return
        question, answer = self._asked.pop(message.id, (None, None))
        if isinstance(question, Spend) and isinstance(message, Answer):
            self._spent(question, answer, message)
        elif isinstance(question, Lease) and isinstance(message, Leased):
            self._leased(question, message.count)
        else:
            raise FrameError("an answer to nothing")

    def _lost(self, error: Exception | None) -> None:
        self._channel = None
        self._exchanges.lost()
        self._waiting = self._loop.call_later(PATIENCE, self._alone)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
