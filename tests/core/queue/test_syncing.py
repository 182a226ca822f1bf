"""What makes a batch durable: a sync of the whole file system, unless the last one failed or was slow."""

from random import Random

import pytest

from openqmail.core.queue.layout.syncing import SINGLY, SLOW, Syncer
from openqmail.core.world.simulated import SimulatedClock, SimulatedDisk

A, B = b"/queue/a", b"/queue/b"


class Slow:
    """A file system whose sync takes so many seconds."""

    def __init__(self, filesystem, clock, seconds):
        self._filesystem, self._clock, self.seconds = filesystem, clock, seconds

    def sync(self):
        self._clock.advance(self.seconds)
        self._filesystem.sync()

    def close(self):
        self._filesystem.close()


class SlowDisk(SimulatedDisk):
    def filesystem(self, folder):
        self.slow = Slow(super().filesystem(folder), self._clock, 0.0)
        return self.slow


class Scene:
    def __init__(self):
        self.clock = SimulatedClock()
        self.disk = SlowDisk(Random(1), self.clock)
        self.disk.make(b"/queue")
        self.syncer = Syncer(self.disk, self.clock, b"/queue")

    def is_singly(self):
        """Whether a batch, the new file `a`, is synced by itself, with its folder."""
        self.disk.write_new(A, (b"a",))
        self.disk.write_new(B, (b"b",))
        self.syncer.sync([A], [b"/queue"])
        after = self.disk.after_power_cut(AllIsLost())
        assert after.contents(A)[0] == b"a"
        singly = not after.contents(B)[0]
        for path in (A, B):
            self.disk.unlink(path)
        return singly


class AllIsLost(Random):
    """Of what was not synced nothing is there."""

    def randrange(self, *_):
        return 1


@pytest.mark.parametrize(("seconds", "singly"), [(SLOW - 1, False), (SLOW + 1, True)])
def test_after_a_slow_sync_of_all_batches_are_synced_by_themselves_for_a_minute(seconds, singly):
    scene = Scene()
    assert not scene.is_singly()
    scene.disk.slow.seconds = seconds
    assert not scene.is_singly()
    assert scene.is_singly() == singly
    scene.clock.advance(SINGLY - 1 - SLOW)
    assert scene.is_singly() == singly
    scene.disk.slow.seconds = 0.0
    scene.clock.advance(SINGLY)
    assert not scene.is_singly()


def test_after_a_failed_sync_of_all_batches_are_synced_by_themselves_for_a_minute():
    scene = Scene()
    scene.disk.faults.fail_sync(b"/")
    with pytest.raises(OSError):
        scene.syncer.sync([], [b"/queue"])
    assert scene.is_singly()
    scene.clock.advance(SINGLY)
    assert not scene.is_singly()
