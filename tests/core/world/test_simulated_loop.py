"""Simulated time: it passes by what is due, never by waiting, and ends when the power does."""

import asyncio
from random import Random
from typing import Any

import pytest

from openqmail.core.world.simulated import (
    NothingHappens,
    PowerCut,
    SimulatedClock,
    SimulatedDisk,
    SimulatedLoop,
)


def run(story: Any, clock: SimulatedClock | None = None) -> Any:
    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(clock)) as runner:
        return runner.run(story)


def test_a_week_passes_in_no_time() -> None:
    clock = SimulatedClock(1000.0)

    async def story() -> list[float]:
        seen = []
        for hours in (1, 24, 168):
            await asyncio.sleep(hours * 3600)
            seen.append(clock.now())
        return seen

    assert run(story(), clock) == pytest.approx([4600.0, 91000.0, 695800.0])


def test_timers_run_in_the_order_of_their_times() -> None:
    async def story() -> list[tuple[str, float]]:
        loop, seen = asyncio.get_running_loop(), []

        async def each(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append((name, loop.time()))

        await asyncio.gather(each("third", 3.0), each("first", 1.0), each("second", 2.0))
        return seen

    assert run(story()) == [("first", 1.0), ("second", 2.0), ("third", 3.0)]


def test_a_time_out_comes_when_nothing_else_does() -> None:
    async def story() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1200):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run(story()) == 1200.0


def test_waiting_for_what_cannot_come_is_an_error() -> None:
    with pytest.raises(NothingHappens, match="nothing will ever happen"):
        run(asyncio.Event().wait())


def test_threads_are_refused() -> None:
    with pytest.raises(RuntimeError, match="SimulatedWorkers"):
        run(asyncio.to_thread(int))


def test_nothing_happens_after_a_power_cut() -> None:
    happened: list[str] = []
    loop = SimulatedLoop()

    def happens(what: str) -> None:
        if not loop.is_cut:
            happened.append(what)

    def cut() -> None:
        happens("cut")
        raise PowerCut

    async def story() -> None:
        asyncio.get_running_loop().call_soon(cut)
        asyncio.get_running_loop().call_soon(happened.append, "next")
        asyncio.get_running_loop().call_later(0, happens, "soon")
        try:
            await asyncio.sleep(1)
        finally:
            happens("cleaned up")

    task = loop.create_task(story())
    with pytest.raises(PowerCut):
        loop.run_until_complete(task)
    assert happened == ["cut"]
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    assert "cleaned up" not in happened


def test_a_task_of_which_the_disk_says_that_the_power_was_cut_ends_all() -> None:
    happened: list[str] = []
    disk = SimulatedDisk(Random(1))
    disk.faults.stop_at = 3

    async def writes() -> None:
        for number in range(5):
            disk.create(b"/%d" % number).close()
            happened.append(f"created {number}")
            await asyncio.sleep(1)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        disk.faults.on_power_cut = loop.cut
        task = asyncio.create_task(writes())
        try:
            await task
        finally:
            if not loop.is_cut:
                happened.append("more")

    with pytest.raises(PowerCut):
        run(story())
    assert happened == ["created 0", "created 1"]
