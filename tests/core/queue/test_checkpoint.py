"""Files become facts in lists, one list at a time."""

import asyncio

from openqmail.core.ports import Written
from openqmail.core.queue import Checkpoint

A, B, C = (Written(name, 1) for name in (b"a", b"b", b"c"))


class Syncer:
    def __init__(self):
        self.asked = []

    def __call__(self, written):
        future = asyncio.get_running_loop().create_future()
        self.asked.append((list(written), future))
        return future


def test_each_delivery_learns_of_its_own_files():
    async def run():
        sync = Syncer()
        checkpoint = Checkpoint(sync, interval=1000)
        both, one, none = checkpoint.cover((A, B)), checkpoint.cover((C,)), checkpoint.cover(())
        checkpoint.hurry()
        assert [files for files, _ in sync.asked] == [[A, B, C]]
        sync.asked[0][1].set_result((True, False, True))
        assert await asyncio.gather(both, one, none) == [False, True, True]
        assert not checkpoint.busy

    asyncio.run(run())


def test_one_at_a_time_and_the_next_begins_when_the_first_has_ended():
    async def run():
        sync = Syncer()
        checkpoint = Checkpoint(sync, interval=1000)
        first = checkpoint.cover((A,))
        checkpoint.hurry()
        second = checkpoint.cover((B,))
        checkpoint.hurry()
        assert len(sync.asked) == 1 and checkpoint.busy
        sync.asked[0][1].set_result((True,))
        assert await first and not second.done()
        assert [files for files, _ in sync.asked] == [[A], [B]]
        sync.asked[1][1].set_result((True,))
        assert await second

    asyncio.run(run())


def test_without_hurry_the_list_is_taken_by_itself():
    async def run():
        sync = Syncer()
        checkpoint = Checkpoint(sync, interval=0.001)
        covered = checkpoint.cover((A,))
        while not sync.asked:
            await asyncio.sleep(0)
        sync.asked[0][1].set_result((True,))
        assert await covered

    asyncio.run(run())


def test_a_sync_that_raises_makes_nothing_a_fact():
    async def run():
        sync = Syncer()
        checkpoint = Checkpoint(sync, interval=1000)
        covered = checkpoint.cover((A,))
        checkpoint.hurry()
        sync.asked[0][1].set_exception(OSError("gone"))
        assert await covered is False

        def broken(written):
            raise RuntimeError("broken")

        other = Checkpoint(broken, interval=1000)
        covered = other.cover((A,))
        other.hurry()
        assert await covered is False

    asyncio.run(run())
