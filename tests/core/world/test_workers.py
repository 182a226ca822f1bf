"""Workers, threads and simulated: in order, each answer once, nothing forgotten at the end."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from openqmail.core.world import ThreadWorkers, Workers
from openqmail.core.world.simulated import PowerCut, SimulatedLoop, SimulatedWorkers

Story = Callable[[Callable[[int], Workers]], Awaitable[Any]]


def in_threads(story: Story) -> Any:
    async def life() -> Any:
        loop = asyncio.get_running_loop()
        return await story(lambda count: ThreadWorkers(loop, count, "test"))

    return asyncio.run(life())


def simulated(story: Story, seed: int = 1) -> Any:
    async def life() -> Any:
        loop, random = asyncio.get_running_loop(), Random(seed)
        return await story(lambda count: SimulatedWorkers(loop, random, count))

    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(life())


@pytest.fixture(params=[in_threads, simulated])
def run(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_one_worker_works_and_answers_in_order(run: Any) -> None:
    async def story(make: Any) -> tuple[list[int], list[int]]:
        workers, done, told = make(1), [], []
        for number in range(200):
            workers.do(lambda result, error: told.append(result), lambda at: done.append(at) or at, number)
        await workers.close()
        return done, told

    assert run(story) == (list(range(200)), list(range(200)))


def test_answers_come_in_the_loop_and_calls_are_made_off_it(run: Any) -> None:
    async def story(make: Any) -> list[bool]:
        workers, told = make(1), []
        loop = asyncio.get_running_loop()

        def then(result: Any, error: Any) -> None:
            told.append(asyncio.get_running_loop() is loop)

        workers.do(then, threading.get_ident)
        assert told == []  # never before do() returns
        await workers.close()
        return told

    assert run(story) == [True]


def test_what_a_call_raises_is_its_answer(run: Any) -> None:
    class Unusual(BaseException):
        pass

    def fail(error: BaseException) -> None:
        raise error

    async def story(make: Any) -> list[Any]:
        workers, told = make(2), []
        for error in (OSError(28, "full"), Unusual()):
            workers.do(lambda result, error: told.append((result, type(error))), fail, error)
        with pytest.raises(ZeroDivisionError):
            await workers.run(lambda: 1 // 0)
        assert await workers.run(divmod, 7, 2) == (3, 1)
        await workers.close()
        return sorted(told, key=str)

    assert run(story) == sorted([(None, OSError), (None, Unusual)], key=str)


def test_closing_waits_for_what_answers_give(run: Any) -> None:
    async def story(make: Any) -> list[int]:
        workers, told = make(1), []

        def then(result: int, error: Any) -> None:
            told.append(result)
            if result < 5:
                workers.do(then, lambda: result + 1)

        workers.do(then, lambda: 0)
        await asyncio.gather(workers.close(), workers.close())
        with pytest.raises(RuntimeError, match="closed"):
            workers.do(then, lambda: 0)
        return told

    assert run(story) == [0, 1, 2, 3, 4, 5]


def test_an_answer_that_nobody_awaits_any_more_harms_nothing(run: Any) -> None:
    async def story(make: Any) -> int:
        workers = make(1)
        workers.run(int, "1").cancel()
        return await workers.run(int, "2")

    assert run(story) == 2


def test_workers_that_have_nothing_to_do_close_at_once(run: Any) -> None:
    async def story(make: Any) -> None:
        await make(4).close()

    run(story)


def test_threads_work_at_the_same_time() -> None:
    async def story(make: Any) -> list[int]:
        workers, barrier = make(2), threading.Barrier(2)
        return sorted(await asyncio.gather(*[workers.run(barrier.wait, 10) for _ in range(2)]))

    assert in_threads(story) == [0, 1]


def test_an_answer_for_a_closed_loop_is_dropped() -> None:
    loop, told, go = asyncio.new_event_loop(), [], threading.Event()
    workers = ThreadWorkers(loop, 1, "test")
    done = threading.Event()
    workers.do(lambda result, error: told.append(result), go.wait)
    workers.do(lambda result, error: told.append(result), done.set)
    loop.close()
    go.set()
    assert done.wait(10)  # the thread goes on with what it was given
    assert told == []


def test_what_was_worked_on_is_let_go() -> None:
    class Large:
        pass

    async def story(make: Any) -> None:
        workers, large = make(1), Large()
        seen = weakref.ref(large)
        await workers.run(lambda given: given, large)
        del large
        await workers.run(int)
        gc.collect()
        assert seen() is None
        await workers.close()

    in_threads(story)


def test_several_simulated_workers_overtake_each_other_in_some_seed() -> None:
    async def story(make: Any) -> list[int]:
        workers, done = make(2), []
        for number in range(4):
            workers.do(lambda result, error: None, done.append, number)
        await workers.close()
        return done

    assert len({tuple(simulated(story, seed)) for seed in range(20)}) > 1


def test_the_same_seed_gives_the_same_order() -> None:
    async def story(make: Any) -> list[Any]:
        loop, workers, others, seen = asyncio.get_running_loop(), make(2), make(1), []
        for number in range(20):
            for name, made in (("a", workers), ("b", others)):
                made.do(
                    lambda result, error: seen.append((result, loop.time())), lambda *it: it, name, number
                )
        await workers.close()
        await others.close()
        return seen

    for seed in range(5):
        assert simulated(story, seed) == simulated(story, seed)
    assert simulated(story, 1) != simulated(story, 2)


def test_a_power_cut_in_a_call_is_nobodys_answer() -> None:
    told = []

    def cut() -> None:
        raise PowerCut

    async def story(make: Any) -> None:
        workers = make(1)
        workers.do(lambda *answer: told.append(answer), int)
        workers.do(lambda *answer: told.append(answer), cut)
        workers.do(lambda *answer: told.append(answer), int)
        await workers.close()
        told.append("closed")

    for seed in range(20):
        with pytest.raises(PowerCut):
            simulated(story, seed)
        assert told in ([], [(0, None)])
        told.clear()


def test_a_power_cut_is_told_to_who_asked_for_it() -> None:
    async def life() -> list[str]:
        cuts: list[str] = []
        loop = asyncio.get_running_loop()
        workers = SimulatedWorkers(loop, Random(1), 1, lambda cut: cuts.append(str(cut)))

        def cut() -> None:
            raise PowerCut("here")

        workers.do(lambda *answer: cuts.append("told"), cut)
        await asyncio.sleep(10)
        return cuts

    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        assert runner.run(life()) == ["here"]
