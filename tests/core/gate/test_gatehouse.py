"""The gate and who knows the users, put together."""

import asyncio

import msgspec

from logins import Checks
from openqmail.core.control.home import Home
from openqmail.core.control.reader import read_settings
from openqmail.core.gate import Gatehouse
from openqmail.core.log import Alert, MemoryLog
from openqmail.core.ports import SaslClient, SaslDenied, SaslGranted
from openqmail.core.ports.gate import CONNECTIONS
from openqmail.core.sasl import Facts, client_mechanism
from openqmail.core.world import SimulatedClock

PROGRAM = {"checkpassword": (b"/bin/true",)}


def run(path, story, **changes):
    """In a home where nobody is in users/smtpauth."""
    (path / "control").mkdir()
    (path / "control" / "me").write_text("mail.a.example\n")
    home = Home(str(path))
    settings = msgspec.structs.replace(read_settings(home), **changes)

    async def living():
        log, clock = MemoryLog(), SimulatedClock()
        house = Gatehouse(
            home, settings, Checks({b"ill": 111, b"while it is away": None, b"carol": 0}), clock, log
        )
        try:
            await asyncio.wait_for(story(house, settings, clock, log), 30)
        finally:
            await house.close()

    asyncio.run(living())


async def plain(house, login):
    exchange = house.gate.sasl(b"PLAIN", SaslClient("192.0.2.1", 40001, "submission"), Facts(True))
    return await exchange.respond(client_mechanism([b"PLAIN"], login, b"guess", Facts(True)).initial())


def test_new_settings_count_at_once_and_what_is_leased_stays_so(tmp_path):
    async def story(house, settings, clock, log):
        told = []
        await house.start(lambda: told.append(house.gate.mechanisms))
        assert house.gate.mechanisms == frozenset()
        assert house.gate.take(CONNECTIONS)
        house.reconfigure(msgspec.structs.replace(settings, concurrencyincoming=1, authfailures=1, **PROGRAM))
        assert told == [{b"PLAIN", b"LOGIN"}]
        assert not house.gate.take(CONNECTIONS)
        assert await plain(house, b"stranger") == SaslDenied("wrong")
        assert await plain(house, b"stranger") == SaslDenied("locked")

    run(tmp_path, story)


def test_a_program_that_is_not_there_is_no_reason_to_refuse_and_is_asked_when_it_is_back(tmp_path):
    async def story(house, settings, clock, log):
        await house.start()
        assert house.gate.mechanisms == {b"PLAIN", b"LOGIN"}
        for _ in range(3):
            assert await plain(house, b"while it is away") == SaslDenied("later")
        assert await plain(house, b"carol") == SaslGranted(b"carol")

    run(tmp_path, story, authfailures=1, checkpassword=(b"/no/such/program", b"/bin/true"))


def test_strangers_do_not_fill_the_log_with_one_alert(tmp_path):
    async def story(house, settings, clock, log):
        await house.start()
        for seconds in (0, 30, 29, 2):
            clock.advance(seconds)
            assert await plain(house, b"ill") == SaslDenied("later")
        said = [one.text for one in log.events if isinstance(one, Alert)]
        assert len(said) == 2
        assert all("control/checkpassword" in one for one in said)

    run(tmp_path, story, **PROGRAM)
