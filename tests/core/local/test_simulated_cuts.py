"""Whatever was reported as durable is whole after a power cut, from any seed."""

import asyncio
from random import Random
from typing import Any

import pytest

from openqmail.core.control import Home, User
from openqmail.core.local import LocalDeliveries
from openqmail.core.ports import LocalJob
from openqmail.core.values import BytesBody, MessageId, Outcome
from openqmail.core.world.simulated import (
    PowerCut,
    SimulatedDisk,
    SimulatedLoop,
    SimulatedWorkers,
)

SEEDS = 200
MAILDIR = b"/home/alice/Maildir/"


class Alice:
    """Everybody here is alice."""

    def find(self, local: bytes) -> User | None:
        return User(b"alice", 1, 1, b"/home/alice", b"", b"")


def text(number: int) -> bytes:
    return b"Subject: %d\n\n%s\n" % (number, b"%d." % number * 400)


async def deliver(
    local: LocalDeliveries, number: int, synced: bool, durable: set[int], again: bool = False
) -> None:
    """Until it is a fact, as the sender does it."""
    while number not in durable:
        message = MessageId(number, b"%024d" % number)
        body = BytesBody(text(number))
        job = LocalJob(number, message, 1_700_000_000, b"bob@x.test", b"alice@x.test", 0, body, again, synced)
        report = await local.deliver(job)
        if report.result.outcome is Outcome.SUCCESS:
            assert not (synced and report.written)
            if all(await local.sync(report.written)):
                durable.add(number)
        again = True


def live(
    seed: int, disk: SimulatedDisk, settings: Any, before: frozenset[int] | None = None
) -> frozenset[int]:
    """One life of the process; which messages were durable when the power was cut or all was done.

    `before`: those of an earlier life, after which whatever is not among them is tried again."""
    random, loop, durable = Random(seed), SimulatedLoop(), set(before or ())
    disk.faults.on_power_cut = loop.cut

    async def life() -> None:
        local = LocalDeliveries(
            Home("/home"),
            settings,
            disk,
            loop.clock,
            Alice(),
            lambda count, name: SimulatedWorkers(loop, random, count),
        )
        each = [
            deliver(local, number, random.random() < 0.5, durable, before is not None) for number in range(6)
        ]
        await asyncio.gather(*each)
        await local.close()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        try:
            runner.run(life())
        except PowerCut:
            return frozenset(durable)  # before what the end of the tasks makes of it
    return frozenset(durable)


def lost(disk: SimulatedDisk, durable: frozenset[int]) -> set[int]:
    """Which of the durable are not whole in new/ or cur/."""
    there = set()
    for part in (b"new", b"cur"):
        for name in disk.names(MAILDIR + part):
            file = disk.open(MAILDIR + part + b"/" + name)
            there.add(file.read_at(0, file.size()).partition(b"alice@x.test\n")[2])
            file.close()
    return {number for number in durable if text(number) not in there}


def read(disk: SimulatedDisk, random: Random) -> None:
    """The user has looked at some of it."""
    for name in disk.names(MAILDIR + b"new"):
        if random.random() < 0.5:
            disk.rename(MAILDIR + b"new/" + name, MAILDIR + b"cur/" + name + b":2,S")


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_what_was_durable_is_whole_after_every_cut(rig: Any, ordered: bool, whole: bool) -> None:
    cuts = 0
    for seed in range(SEEDS):
        random = Random(seed)
        disk = SimulatedDisk(random, ordered=ordered, whole=whole, sync_failures=random.choice((0.0, 0.2)))
        for part in (b"tmp", b"new", b"cur"):
            disk.make(MAILDIR + part)
        disk.faults.stop_at = random.randrange(10, 120)
        durable = live(seed, disk, rig.settings)
        cuts += bool(durable) and len(durable) < 6
        missing = lost(disk.after_power_cut(random), durable)
        assert not missing, f"seed {seed}"
    assert cuts > 10


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_killed_process_could_not_sync_is_not_believed_by_the_next(rig: Any, whole: bool) -> None:
    """Its syncs failed, and what it wrote looks well for as long as the machine runs."""
    found_something = 0
    for seed in range(SEEDS):
        random = Random(seed)
        disk = SimulatedDisk(random, ordered=seed % 2 == 0, whole=whole, sync_failures=0.6)
        for part in (b"tmp", b"new", b"cur"):
            disk.make(MAILDIR + part)
        disk.faults.stop_at = random.randrange(20, 80)
        first = live(seed, disk, rig.settings)
        disk = disk.after_kill()
        read(disk, random)
        found_something += len(disk.names(MAILDIR + b"new") + disk.names(MAILDIR + b"cur")) > len(first)
        disk.faults.stop_at = random.randrange(20, 200)
        durable = live(seed + SEEDS, disk, rig.settings, before=first)
        missing = lost(disk.after_power_cut(random), durable)
        assert not missing, f"seed {seed}"
    assert found_something > 10
