"""100 large messages come in at once: memory stays where it was, and small mail goes on in between.

OPENQMAIL_LARGE_MIB: how large each is (10; 50 is the whole of what is promised).
"""

import asyncio
import os
import smtplib

import pytest

from homes import Home, Place, Waiting
from large import Client, Large, Memory, found, free

MIB = 1024 * 1024
MESSAGES = 100
SIZE = int(os.environ.get("OPENQMAIL_LARGE_MIB", "10")) * MIB
ROOM = 2 * MESSAGES * SIZE + 1024 * MIB
"""Bytes that must be free beside the tenth that the queue leaves free."""
RISE = 32 * MIB
SMALL = 10
"""So many small ones are accepted before any large one may come to its end."""
DELIVERED = 5
"""So many large ones go to a Maildir, the others wait for a port that is closed."""


class Coming:
    """The large messages on their way in, the small ones beside them, and the memory meanwhile."""

    def __init__(self, home: Home) -> None:
        self._home, self._port = home, home.port
        self._halfway = 0
        self._all_halfway = asyncio.Event()
        self._go_on = asyncio.Event()
        self.events: list[str] = []
        self.before = self.memory()
        self.peak = self.before

    def memory(self) -> Memory:
        """Of all processes."""
        return Memory.of(self._home.pids_of_all())

    async def run(self) -> None:
        watch = asyncio.create_task(self._watch())
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(MESSAGES):
                    group.create_task(self._large(number))
                group.create_task(self._smalls())
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        while True:
            self.peak = Memory(*map(max, self.peak, self.memory()))
            await asyncio.sleep(0.05)

    async def _large(self, number: int) -> None:
        recipient = "bob@a.example" if number < DELIVERED else "dave@far.example"
        client = await Client.connect(self._port)
        await client.send(recipient, Large(number, SIZE), self._half)
        self.events.append("large")
        await client.close()

    async def _half(self) -> None:
        self._halfway += 1
        if self._halfway == MESSAGES:
            self._all_halfway.set()
        await self._go_on.wait()

    async def _smalls(self) -> None:
        """Some before a large one may end, then one after the other until all have ended."""
        while self.events.count("large") < MESSAGES:
            if self.smalls == SMALL:
                await self._all_halfway.wait()
                self.events.append("all are halfway")
                self._go_on.set()
            client = await Client.connect(self._port)
            await client.begin("alice@a.example")
            await client.write(b"Subject: small\r\n\r\n")
            await client.end()
            self.events.append("small")
            await client.close()

    @property
    def smalls(self) -> int:
        return self.events.count("small")


@pytest.mark.timeout(900)
def test_100_large_messages_at_once_raise_memory_by_little_and_small_mail_goes_on(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    if free(place.path) < ROOM:
        pytest.skip(f"{place.path}: less than {ROOM // MIB} MiB and a tenth are free")
    home = place.home("a.example", "alice", "bob")
    home.control("smtproutes", "far.example:[127.0.0.1]:1")
    home.control("databytes", str(2 * SIZE))
    home.control("concurrencyincoming", str(MESSAGES + 10))
    home.start()
    with smtplib.SMTP("127.0.0.1", home.port, "client.example") as client:
        client.sendmail("", ["alice@a.example"], b"Subject: warm\r\n\r\n")
    home.wait_mails("alice", 1)
    home.wait_empty()
    coming = Coming(home)
    asyncio.run(coming.run())
    after = coming.memory()
    with capsys.disabled():
        for when, what in (("before", coming.before), ("peak", coming.peak), ("after", after)):
            print(f"\n{MESSAGES} of {SIZE // MIB} MiB, {when}: {what}", end="")

    halfway = coming.events.index("all are halfway")
    assert coming.events[:halfway] == ["small"] * SMALL, "these waited for no large one"
    last = len(coming.events) - coming.events[::-1].index("large")
    assert "small" in coming.events[halfway:last], "nor did these while the rest came in, and was synced"
    assert coming.peak.pss - coming.before.pss < RISE
    assert after.pss - coming.before.pss < RISE

    home.wait_mails("alice", 1 + coming.smalls)
    home.wait_mails("bob", DELIVERED, 60.0)
    wanted = {number: Large(number, SIZE).digest() for number in range(MESSAGES)}
    delivered = dict(found(path) for path in (home.maildir("bob") / "new").iterdir())
    assert delivered == {number: wanted[number] for number in range(DELIVERED)}
    for _ in Waiting("what was delivered has left the queue"):
        files = [path for path in (home.path / "queue" / "mess").rglob("*") if path.is_file()]
        if len(files) == MESSAGES - DELIVERED:
            break
    kept = dict(found(path) for path in files)
    assert kept == {number: wanted[number] for number in range(DELIVERED, MESSAGES)}
