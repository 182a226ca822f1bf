"""Logging in: a client's attempt as an exchange of SASL, slowed and counted, and what is logged of it.

The machine says what to ask; the back ends say who knows; the guard who may not try at all.  A failure is
counted although the client did not wait for it, and so is an exchange that is given up once a salt was
told.  What is wrong is answered later each time; attempts at once are bounded, of one network and in all.
While a client is locked out, right and wrong are answered alike, also what was asked before.
"""

import asyncio
from asyncio import Future
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import msgspec

from openqmail.core.gate.back_ends import BackEnds
from openqmail.core.gate.guard import Guard, compared
from openqmail.core.gate.guesses import Guesses
from openqmail.core.limits import network_of
from openqmail.core.log import AuthAccepted, AuthRefused, Log
from openqmail.core.ports.sasl import (
    Denial,
    Exchange,
    SaslAnswer,
    SaslChallenge,
    SaslClient,
    SaslDenied,
    SaslGranted,
)
from openqmail.core.sasl import (
    LATER,
    SCRAM_PLUS,
    WRONG,
    Answer,
    Ask,
    Challenge,
    Denied,
    Facts,
    Granted,
    Later,
    No,
    Query,
    SaslError,
    Secrets,
    Server,
    Step,
    server_mechanism,
)
from openqmail.core.world import Clock

MOST, OF_NETWORK = 1000, 50
"""Attempts at once: in all, of one network."""

SECONDS = 120.0
"""That an attempt may take."""

LOOK = 1.0
"""Seconds between two looks whether users have come or gone."""


class Authentication:
    """Needs a running loop.  `mechanisms` counts from the first `look` on."""

    def __init__(self, back_ends: BackEnds, guard: Guard, clock: Clock, log: Log) -> None:
        self.back_ends = back_ends
        self.guard = guard
        self.guesses = Guesses()
        self.clock = clock
        self.log = log
        self.changed: Callable[[], None] = lambda: None
        """Called when the mechanisms are others."""
        self.loop = asyncio.get_running_loop()
        self._open: Counter[bytes] = Counter()
        self._looking: asyncio.Task[None] | None = None

    @property
    def mechanisms(self) -> frozenset[bytes]:
        return self.back_ends.mechanisms

    async def start(self) -> None:
        """Read what is there, and look again every second."""
        await self.back_ends.look()
        self._looking = self.loop.create_task(self._look())

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
        self.back_ends.close()

    def begin(self, mechanism: bytes, client: SaslClient, facts: Facts) -> Exchange:
        return _Attempt(self, mechanism, client, facts)

    def enter(self, address: str) -> bool:
        """Take a place for an attempt; False when there is none."""
        network = network_of(address)
        if self._open[network] >= OF_NETWORK or self._open.total() >= MOST:
            return False
        self._open[network] += 1
        return True

    def leave(self, address: str) -> None:
        network = network_of(address)
        self._open[network] -= 1
        if not self._open[network]:
            del self._open[network]

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            before = self.mechanisms
            await self.back_ends.look()
            if self.mechanisms != before:
                self.changed()


class _Attempt:
    def __init__(self, gate: Authentication, mechanism: bytes, client: SaslClient, facts: Facts) -> None:
        self._gate, self._mechanism, self._client, self._facts = gate, mechanism, client, facts
        self._server: Server | None = None
        self._answer: Future[SaslAnswer] | None = None
        self._login = b""
        self._query: Query | None = None
        self._counted = False
        self._salted = False
        """The client has been told what the file has of a login, and not proved yet that it is its own."""
        self._pause = 0.0
        self._entered = False
        self._over = False
        self._gone = False
        self._asking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- the client's word --------------------------------------------------------------

    def respond(self, data: bytes | None) -> "Future[SaslAnswer]":
        answer: Future[SaslAnswer] = self._gate.loop.create_future()
        if self._over or self._answer is not None:
            answer.set_result(SaslDenied("malformed"))
            return answer
        self._answer = answer
        if self._server is None:
            self._start(data)
        else:
            step = self._server.respond(data or b"")
            if self._query is not None and not self._counted and self._locked:
                self._deny("locked")  # also the proof of SCRAM
            else:
                self._carry_out(step)
        return answer

    def abort(self) -> None:
        """What is being checked is still counted."""
        self._gone = True
        if self._asking is None:
            self._given_up()
            self._end()

    def _start(self, initial: bytes | None) -> None:
        try:
            if self._mechanism not in self._gate.mechanisms:
                raise SaslError("nobody can use it")
            self._server = server_mechanism(self._mechanism, self._as_offered())
        except SaslError:
            self._deny("malformed")
            return
        if not self._gate.enter(self._client.address):
            self._deny("later")
            return
        self._entered = True
        self._timer = self._gate.loop.call_later(SECONDS, self._too_long)
        self._carry_out(self._server.start(initial))

    # --- the machine's --------------------------------------------------------------------

    def _carry_out(self, step: Step) -> None:
        match step:
            case Challenge(data):
                self._tell(SaslChallenge(data))
            case Ask(query):
                self._login, self._query = query.login, query
                if self._locked:
                    self._deny("locked")
                else:
                    self._asking = self._gate.loop.create_task(self._ask(query))
            case Granted(identity):
                self._grant(identity)
            case Denied(reason):
                self._deny(self._why(reason))

    async def _ask(self, query: Query) -> None:
        answer: Answer = Later()
        try:
            answer = await self._gate.back_ends.answer(query, self._client.address)
        finally:
            self._asking = None
            if not self._over:
                self._heard(answer)

    def _heard(self, answer: Answer) -> None:
        assert self._server is not None
        locked = self._locked  # by others that it ran beside, not by its own failure
        if isinstance(answer, No) or (isinstance(answer, Later) and answer.refused):
            self._fail()
        if locked:
            self._deny("locked")
        else:
            self._salted = isinstance(answer, Secrets)
            self._carry_out(self._server.answer(answer))
        if self._gone:  # it does not hear what comes of it
            self._given_up()
            self._end()

    # --- the end --------------------------------------------------------------------------

    def _grant(self, identity: bytes) -> None:
        self._gate.guard.succeeded(self._client.address, self._name)
        client = self._client
        self._gate.log(
            AuthAccepted(
                identity, self._mechanism, client.address, client.port, client.service, self._facts.tls
            )
        )
        self._tell(SaslGranted(identity))
        self._end()

    def _given_up(self) -> None:
        """By the client; whoever has a salt told, and goes, has made an attempt all the same."""
        if self._salted and not self._over:
            self._fail()
            self._say("abandoned")

    def _say(self, why: str) -> None:
        self._gate.log(
            AuthRefused(
                why,
                self._login,
                self._mechanism,
                self._client.address,
                self._client.port,
                self._client.service,
                self._facts.tls,
            )
        )

    def _deny(self, kind: Denial) -> None:
        if kind == "malformed":
            self._given_up()
        else:
            self._say(kind)
        pause = self._fail() if kind in ("wrong", "undecided") else 0.0
        if pause and not self._gone:
            self._gate.loop.call_later(pause, self._tell, SaslDenied(kind))
        else:
            self._tell(SaslDenied(kind))
        self._end()

    def _why(self, reason: bytes) -> Denial:
        if reason == LATER:
            return "undecided" if self._counted else "later"
        return "wrong" if reason == WRONG else "malformed"

    def _fail(self) -> float:
        """Count it, once, if it is a guess of its own; how long to keep the answer back."""
        if not self._counted:
            self._counted = True
            again = self._gate.guesses.again(self._client, self._name, self._mechanism, self._query)
            self._pause = self._gate.guard.failed(self._client.address, self._name, self._now, again)
        return self._pause

    def _tell(self, answer: SaslAnswer) -> None:
        future, self._answer = self._answer, None
        if future is not None and not future.done():
            future.set_result(answer)

    def _end(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._entered:
            self._entered = False
            self._gate.leave(self._client.address)

    def _too_long(self) -> None:
        self._timer = None
        if self._asking is None:
            self._deny("malformed" if self._salted else "later")

    def _as_offered(self) -> Facts:
        """Where -PLUS is not offered, a client that could bind has nobody in between."""
        if SCRAM_PLUS in self._gate.mechanisms:
            return self._facts
        return msgspec.structs.replace(self._facts, bindings={})

    @property
    def _locked(self) -> bool:
        return self._gate.guard.locked(self._client.address, self._name, self._now)

    @property
    def _name(self) -> bytes:
        return compared(self._login)

    @property
    def _now(self) -> float:
        return self._gate.clock.monotonic()
