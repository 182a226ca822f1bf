"""Each failure is answered later than the one before, on a clock that only the test moves."""

import asyncio

import pytest

from openqmail.core.gate import Authentication, Guard
from openqmail.core.log import MemoryLog
from openqmail.core.ports import SaslClient, SaslDenied
from openqmail.core.sasl import Facts, No
from openqmail.core.world import SimulatedClock
from openqmail.core.world.simulated import SimulatedLoop


class Nobody:
    """A back end in which nobody is right."""

    mechanisms = frozenset({b"PLAIN"})

    async def look(self):
        pass

    async def answer(self, query, client):
        return No()

    def close(self):
        pass


@pytest.mark.parametrize("logins", [[b"alice"] * 6, [b"u%d" % number for number in range(6)]])
def test_answers_to_failures_come_ever_later(logins):
    clock = SimulatedClock()

    async def story():
        made = Authentication(Nobody(), Guard(100), clock, MemoryLog())
        waited = []
        for login in logins:
            before = clock.monotonic()
            exchange = made.begin(b"PLAIN", SaslClient("192.0.2.1", 1, "smtp"), Facts(True))
            assert await exchange.respond(b"\0%b\0guess" % login) == SaslDenied("wrong")
            waited.append(clock.monotonic() - before)
            assert not made._open
        assert waited == pytest.approx([0.5, 1, 2, 4, 8, 8])

    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(clock)) as runner:
        runner.run(story())
