"""The gate itself: counters, each with its limit, and rates an hour.

It answers at once and never waits.  A counter without a limit is counted but never refused; a
rate without one is not even counted.  Nothing is kept for a counter whose leases have all come
back, nor for a key that has spent nothing lately, so names of clients do not add up.
"""

import asyncio
import heapq
from asyncio import Future
from collections.abc import Mapping, Sequence

import msgspec

from openqmail.core.control.settings import Settings
from openqmail.core.gate.authentication import Authentication
from openqmail.core.limits import Buckets
from openqmail.core.ports.gate import (
    CONNECTIONS,
    CONNECTIONS_OF_NETWORK,
    CONNECTIONS_PER_HOUR,
    MESSAGES_OF_LOGIN,
    MESSAGES_PER_HOUR,
    RECIPIENTS_OF_LOGIN,
    RECIPIENTS_PER_HOUR,
)
from openqmail.core.ports.lockouts import LockedNow
from openqmail.core.ports.sasl import Exchange, SaslAnswer, SaslClient, SaslDenied
from openqmail.core.sasl import Facts
from openqmail.core.world import Clock, SystemClock

TOLD = 1000
"""Lock-outs that are told at once."""

SHARE = 16
"""Of what a key may still have of a rate, one in so many is had ahead."""


class Limits(msgspec.Struct, frozen=True):
    """How much each counter has to give, or each one `of` it, and how much of each rate a key may have in
    an hour (0: as much as it likes)."""

    counters: Mapping[bytes, int]
    rates: Mapping[bytes, int] = {}


def limits_of(settings: Settings) -> Limits:
    counters = {CONNECTIONS: settings.concurrencyincoming}
    if settings.concurrencynetwork:
        counters[CONNECTIONS_OF_NETWORK] = settings.concurrencynetwork
    rates = {
        CONNECTIONS_PER_HOUR: settings.connectionsperhour,
        MESSAGES_PER_HOUR: settings.messagesperhour,
        RECIPIENTS_PER_HOUR: settings.recipientsperhour,
        MESSAGES_OF_LOGIN: settings.loginmessagesperhour,
        RECIPIENTS_OF_LOGIN: settings.loginrecipientsperhour,
    }
    return Limits(counters, rates)


class LocalGate:
    """Serves the ports `Gate` and `LockoutAdmin`.

    `take` and `charge` are what `lease` and `spend` answer, without a future; so are `locked_now` and `lift`
    for `locked` and `unlock`.
    `authentication` None: nobody can log in."""

    def __init__(
        self, limits: Limits, clock: Clock | None = None, authentication: Authentication | None = None
    ) -> None:
        self._authentication = authentication
        self._clock: Clock = SystemClock() if clock is None else clock
        self._taken: dict[bytes, int] = {}
        self._buckets: dict[bytes, Buckets] = {}
        self.reconfigure(limits)

    def lease(self, counter: bytes, count: int = 1) -> "Future[bool]":
        return _answered(self.take(counter, count))

    def spend(self, rate: bytes, key: bytes, count: int = 1) -> "Future[bool]":
        return _answered(self.charge(rate, key, count))

    @property
    def mechanisms(self) -> frozenset[bytes]:
        return self._authentication.mechanisms if self._authentication else frozenset()

    def sasl(self, mechanism: bytes, client: SaslClient, facts: Facts) -> Exchange:
        if self._authentication is None:
            return _Nobody()
        return self._authentication.begin(mechanism, client, facts)

    def locked_now(self) -> LockedNow:
        """Who may not log in."""
        if self._authentication is None:
            return LockedNow(())
        found = list(self._authentication.guard.all_locked(self._clock.monotonic()))
        latest = heapq.nlargest(TOLD, found, key=lambda one: one.seconds)
        return LockedNow(tuple(latest), len(found) - len(latest))

    def lockouts(self) -> tuple[int, int, int]:
        """How many there are, as `Guard.counts` has them."""
        if self._authentication is None:
            return 0, 0, 0
        return self._authentication.guard.counts(self._clock.monotonic())

    def lift(self, names: Sequence[str]) -> tuple[int, ...]:
        """What `LockoutAdmin.unlock` answers, without waiting."""
        if self._authentication is None:
            return (0,) * len(names)
        guard, now = self._authentication.guard, self._clock.monotonic()
        return tuple([guard.unlock(name, now) for name in names])

    async def locked(self) -> LockedNow:
        return self.locked_now()

    async def unlock(self, names: Sequence[str]) -> tuple[int, ...]:
        return self.lift(names)

    def take(self, counter: bytes, count: int = 1) -> bool:
        """Take `count` of what `counter` still has to give; False when that is too much."""
        room = self.room(counter)
        if room is not None and count > room:
            return False
        self.hold(counter, count)
        return True

    def room(self, counter: bytes) -> int | None:
        """How much it has to give, less than nothing after `hold`; None without a limit."""
        limit = self._limits.counters.get(counter.partition(b" ")[0])
        return None if limit is None else limit - self._taken.get(counter, 0)

    def hold(self, counter: bytes, count: int) -> None:
        """Count what is held already, as from a gate that is gone, also beyond the limit."""
        self._taken[counter] = self._taken.get(counter, 0) + count

    def charge(self, rate: bytes, key: bytes, count: int = 1) -> bool:
        """Take `count` of what `key` may have of `rate`; False when that is too much."""
        buckets = self._buckets.get(rate)
        return buckets is None or buckets.take(key, count, self._clock.monotonic())

    def advance(self, rate: bytes, key: bytes, most: int) -> int:
        """Take up to `most` of what `key` may have of `rate`, and tell how many: a small share of what is
        left, so that whoever else asks for the same key finds the rest."""
        buckets, now = self._buckets.get(rate), self._clock.monotonic()
        if buckets is None:
            return most
        room = buckets.room(key, now)
        count = most if room is None else min(most, room // SHARE)
        return count if count and buckets.take(key, count, now) else 0

    def refund(self, rate: bytes, key: bytes, count: int) -> None:
        """So many of what was taken have come to nothing."""
        buckets = self._buckets.get(rate)
        if buckets is not None:
            buckets.give(key, count, self._clock.monotonic())

    def release(self, counter: bytes, count: int = 1) -> None:
        """Give back what was leased; giving back more than that is the caller's error."""
        left = self._taken.get(counter, 0) - count
        if left < 0:
            raise ValueError(f"{count} of {counter!r} given back, but fewer are leased")
        if left:
            self._taken[counter] = left
        else:
            self._taken.pop(counter, None)

    def taken(self, counter: bytes) -> int:
        """How much is leased now."""
        return self._taken.get(counter, 0)

    def reconfigure(self, limits: Limits) -> None:
        """New limits; what is leased stays leased, also where it is now over the limit, and what is
        spent stays spent."""
        self._limits = limits
        for name, rate in limits.rates.items():
            self._buckets.setdefault(name, Buckets(rate)).reconfigure(rate)


class _Nobody:
    """An exchange where nobody can log in."""

    def respond(self, data: bytes | None) -> "Future[SaslAnswer]":
        answer: Future[SaslAnswer] = asyncio.get_running_loop().create_future()
        answer.set_result(SaslDenied("malformed"))
        return answer

    def abort(self) -> None:
        pass


def _answered(yes: bool) -> "Future[bool]":
    answer = asyncio.get_running_loop().create_future()
    answer.set_result(yes)
    return answer
