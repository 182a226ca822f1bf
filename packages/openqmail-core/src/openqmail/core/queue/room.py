"""Room for new mail: which segments of the journal are to go, and when (rules 7 and 13).

What is left in those that are too old or too many moves to the layout.  That takes room itself, so where
room is short it is done only as far as it gains some.  What is not needed goes when the journal goes on;
where room is short that is not waited for, as perhaps no mail is taken that would make it go on: then even
the segment that is written to may be emptied.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from openqmail.core.queue.index import Entry, Segment
from openqmail.core.queue.journal import Journal
from openqmail.core.queue.journal.commit import Committer
from openqmail.core.queue.limits import Limits
from openqmail.core.world import Clock, Disk

PINNED = 600.0
"""Seconds after which what is left in a segment that is no longer written to is moved out."""

FILES = 16 * 1024
"""Bytes that a message takes in the layout, beside its text: four files of a block each."""


class Written(msgspec.Struct, frozen=True):
    """A segment: its bytes, its age in seconds, and the bytes that what is left in it would take in the
    layout."""

    sequence: int
    size: int
    age: float
    moved: int


def to_be_emptied(segments: Sequence[Written], limit: int, free: int, watermark: int) -> set[int]:
    """Sequences of those (oldest first, the last one is written to) that are too old, or beyond `limit`
    bytes of the newest, or, where they take more than is left above the watermark, that cost less than they
    bring."""
    ended = segments[:-1]
    found = {segment.sequence for segment in ended if segment.age > PINNED}
    size = 0
    for segment in reversed(ended):
        size += segment.size
        if size > limit:
            found.add(segment.sequence)
    if size > free - watermark:
        found.update(_worth_moving(segments if free < watermark else ended, free // 4))
    return found


def _worth_moving(segments: Sequence[Written], room: int) -> list[int]:
    """The oldest, as only those can go: of as many as the room suffices for, those that free most beyond
    what they take."""
    size = moved = count = most = 0
    for at, segment in enumerate(segments, 1):
        size, moved = size + segment.size, moved + segment.moved
        if moved > room:
            break
        if size - moved > most:
            count, most = at, size - moved
    return [segment.sequence for segment in segments[:count]]


class Room:
    """`folder`: of the queue; `entries`: the messages in the journal."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        folder: bytes,
        limits: Limits,
        journal: Journal,
        committer: Committer,
        entries: Mapping[int, Entry],
    ) -> None:
        self._disk = disk
        self._clock = clock
        self._folder = folder
        self._limits = limits
        self._journal = journal
        self._committer = committer
        self._entries = entries

    def make(self) -> set[int]:
        """Have go what is not needed, if room is short; the segments that are to be emptied."""
        try:
            free, total = self._disk.room(self._folder)
        except OSError:
            free = total = 1 << 62  # nobody knows
        watermark = int(total * self._limits.watermark)
        segments = self._journal.segments
        sizes = list(map(self._size, segments))
        if free - watermark < sum(sizes):
            self._committer.drop()
        written = self._written(segments, sizes)
        return to_be_emptied(written, self._limits.journal, free, watermark)

    def spare(self) -> int:
        """Bytes that moves may take: results, which make room in the end, have the rest, and the reserve."""
        try:
            free, _ = self._disk.room(self._folder)
        except OSError:
            return 1 << 62  # nobody knows
        return free - self._journal.reserve_size

    def cost(self, entry: Entry) -> int:
        """Bytes that the files of a message take in the layout."""
        return entry.body_size + FILES

    def taken(self) -> tuple[int, int]:
        """Segments of the journal, and the bytes that they take."""
        segments = self._journal.segments
        return len(segments), sum(map(self._size, segments))

    def _written(self, segments: Sequence[Segment], sizes: Iterable[int]) -> list[Written]:
        now = self._clock.monotonic()
        moved: dict[int, int] = {}
        for entry in self._entries.values():
            if entry.segment is not None:
                sequence = entry.segment.sequence
                moved[sequence] = moved.get(sequence, 0) + self.cost(entry)
        return [
            Written(one.sequence, size, now - one.begun, moved.get(one.sequence, 0))
            for one, size in zip(segments, sizes, strict=True)
        ]

    def _size(self, segment: Segment) -> int:
        try:
            return self._disk.stat(segment.path).size
        except OSError:  # not needed any more
            return 0
