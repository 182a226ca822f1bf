"""Logins over the port Gate as frames: the gate's mechanisms, and the exchanges of SASL with it.

They go over the gate's connection.  When that is lost, or a newer one comes, the attempts under way are put
off: their clients try again.  A frame that holds what a client said never shows it.
"""

import asyncio
from asyncio import Future
from collections.abc import Callable
from functools import partial

import msgspec

from openqmail.core.gate import LocalGate
from openqmail.core.ports.sasl import (
    Denial,
    Exchange,
    SaslAnswer,
    SaslChallenge,
    SaslClient,
    SaslDenied,
    SaslGranted,
)
from openqmail.core.sasl import Facts
from openqmail.core.sasl.secret import Hidden
from openqmail.core.service.frames.codec import FrameError

MOST = 4096
"""Exchanges that one client may have at once; more are put off."""

TAGS = 16
"""Frames of this page have tags from here on."""


class Begin(Hidden, frozen=True, array_like=True, tag=TAGS, gc=False):
    """`data`: as in `Respond`."""

    id: int
    mechanism: bytes
    client: SaslClient
    facts: Facts
    data: bytes | None


class Respond(Hidden, frozen=True, array_like=True, tag=TAGS + 1, gc=False):
    id: int
    data: bytes | None


class Abort(msgspec.Struct, frozen=True, array_like=True, tag=TAGS + 2, gc=False):
    id: int


ToGate = Begin | Respond | Abort


class Mechanisms(msgspec.Struct, frozen=True, array_like=True, tag=TAGS, gc=False):
    """Comes first, and whenever they have changed."""

    names: tuple[bytes, ...]


class Challenged(msgspec.Struct, frozen=True, array_like=True, tag=TAGS + 1, gc=False):
    id: int
    data: bytes


class LetIn(msgspec.Struct, frozen=True, array_like=True, tag=TAGS + 2, gc=False):
    id: int
    identity: bytes


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=TAGS + 3, gc=False):
    id: int
    kind: Denial


FromGate = Mechanisms | Challenged | LetIn | Refused

_GONE = SaslDenied("later")


class Exchanges:
    """The client's side.  `say` sends a frame, False where nobody is there."""

    def __init__(self, say: Callable[[ToGate], bool]) -> None:
        self.mechanisms: frozenset[bytes] = frozenset()
        self._say = say
        self._last = 0
        self._under_way: dict[int, _Asked] = {}

    def begin(self, mechanism: bytes, client: SaslClient, facts: Facts) -> Exchange:
        return _Asked(self, mechanism, client, facts)

    def received(self, message: FromGate) -> None:
        """Raises FrameError."""
        if isinstance(message, Mechanisms):
            self.mechanisms = frozenset(message.names)
            return
        if not 0 < message.id <= self._last:
            raise FrameError("an answer to nothing")
        asked = self._under_way.get(message.id)
        if asked is None:  # it was given up meanwhile
            return
        match message:
            case Challenged(_, data):
                asked.told(SaslChallenge(data))
            case LetIn(_, identity):
                asked.told(SaslGranted(identity))
            case Refused(_, kind):
                asked.told(SaslDenied(kind))

    def lost(self) -> None:
        """The connection; those under way do not go on at another."""
        for asked in list(self._under_way.values()):
            asked.told(_GONE)

    # --- an exchange's ------------------------------------------------------------------

    def open(self, asked: "_Asked") -> int:
        self._last += 1
        self._under_way[self._last] = asked
        return self._last

    def close(self, id: int) -> None:
        self._under_way.pop(id, None)

    def say(self, message: ToGate) -> bool:
        return self._say(message)


class _Asked:
    """Serves the port Exchange."""

    def __init__(self, all: Exchanges, mechanism: bytes, client: SaslClient, facts: Facts) -> None:
        self._all, self._mechanism, self._client, self._facts = all, mechanism, client, facts
        self._id = 0
        self._over = False
        self._answer: Future[SaslAnswer] | None = None

    def respond(self, data: bytes | None) -> "Future[SaslAnswer]":
        answer: Future[SaslAnswer] = asyncio.get_running_loop().create_future()
        if self._over or self._answer is not None:
            answer.set_result(SaslDenied("malformed"))
            return answer
        self._answer = answer
        if self._id:
            said = self._all.say(Respond(self._id, data))
        else:
            self._id = self._all.open(self)
            said = self._all.say(Begin(self._id, self._mechanism, self._client, self._facts, data))
        if not said:
            self.told(_GONE)
        return answer

    def abort(self) -> None:
        if not self._over:
            self._over = True
            self._all.close(self._id)
            if self._id:
                self._all.say(Abort(self._id))

    def told(self, answer: SaslAnswer) -> None:
        """Raises FrameError for an answer that nobody waits for."""
        future, self._answer = self._answer, None
        if not isinstance(answer, SaslChallenge):
            self._over = True
            self._all.close(self._id)
        elif future is None:
            raise FrameError("an answer to nothing")
        if future is not None and not future.done():
            future.set_result(answer)


class ExchangesServed:
    """The gate's side, for one connection; `say` sends a frame."""

    def __init__(self, gate: LocalGate, say: Callable[[FromGate], None]) -> None:
        self._gate = gate
        self._say = say
        self._open: dict[int, Exchange] = {}
        self._last = 0
        self._told: frozenset[bytes] | None = None

    def tell_mechanisms(self) -> None:
        """Where they are others than were told last."""
        if self._gate.mechanisms != self._told:
            self._told = self._gate.mechanisms
            self._say(Mechanisms(tuple(sorted(self._told))))

    def received(self, message: ToGate) -> None:
        """Raises FrameError."""
        if isinstance(message, Begin):
            if message.id <= self._last:
                raise FrameError("begins what it has begun")
            self._last = message.id
            if len(self._open) >= MOST:
                self._say(Refused(message.id, "later"))
                return
            exchange = self._gate.sasl(message.mechanism, message.client, message.facts)
            self._open[message.id] = exchange
            self._ask(message.id, exchange, message.data)
            return
        if not 0 < message.id <= self._last:
            raise FrameError("goes on with what it has not begun")
        found = self._open.get(message.id)
        if found is None:  # it has ended meanwhile
            return
        if isinstance(message, Respond):
            self._ask(message.id, found, message.data)
        else:
            del self._open[message.id]
            found.abort()

    def lost(self) -> None:
        """The client."""
        exchanges, self._open = self._open, {}
        for one in exchanges.values():
            one.abort()

    def _ask(self, id: int, exchange: Exchange, data: bytes | None) -> None:
        exchange.respond(data).add_done_callback(partial(self._answered, id, exchange))

    def _answered(self, id: int, exchange: Exchange, done: "Future[SaslAnswer]") -> None:
        if self._open.get(id) is not exchange:
            return
        answer = done.result()
        if isinstance(answer, SaslChallenge):
            self._say(Challenged(id, answer.data))
            return
        del self._open[id]
        if isinstance(answer, SaslGranted):
            self._say(LetIn(id, answer.identity))
        else:
            self._say(Refused(id, answer.kind))
