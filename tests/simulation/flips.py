"""A bit of the journal is another one when the next process comes: what `docs/queue.md` says of damage.

`Flip` is one bit of one segment on a disk of its own; the history goes on without it.  Damage of what
was known to be synced stops the start, which names the file and leaves all as it is; salvage loses
nothing but messages of that segment from the damaged batch on; what such a one left in qmail's files
may be unreadable, and is named.  What nobody attested is cut, as if torn: should that be the end of a
large message, its text is missed, and that is said.
"""

import re
from collections import Counter
from itertools import pairwise

from world import QUEUE

from openqmail.core.queue.journal.records import HEAD_SIZE, decode_segment_head
from openqmail.core.queue.journal.recovery import recover
from openqmail.core.values import QueueDamaged

JOURNAL = QUEUE + b"/journal"


def segments(disk):
    """path -> content; nothing where the first start came to no journal"""
    if b"journal" not in disk.names(QUEUE):
        return {}
    paths = [JOURNAL + b"/" + name for name in disk.names(JOURNAL) if name.endswith(b".seg")]
    return {path: data for path in paths if (data := disk.contents(path)[0])}


def attested(found, contents):
    """path -> how much of each segment that is needed is known to be on the disk"""
    known = {}
    for segment, following in pairwise(found.segments):
        known[segment.path] = decode_segment_head(bytes(contents[following.path][:HEAD_SIZE])).counts
    return known | {segment.path: found.attested for segment in found.segments[-1:]}


class Flip:
    """`recovered`: as of `Story`.  Raises AssertionError."""

    def __init__(self, disk, dice, recovered):
        self._disk, self._recovered = disk, recovered
        found = segments(disk)
        self._path = dice.choice(sorted(found))
        self._content = found[self._path]
        self._byte, self._bit = dice.randrange(len(self._content)), dice.randrange(8)
        before = recover(disk, JOURNAL)
        self._entries = before.entries
        self._attested = attested(before, found).get(self._path, 0)

    def __str__(self):
        return f"bit {self._bit} of byte {self._byte} of {self._path.decode()} is another one"

    def check(self):
        """Whether the start was refused."""
        before, _ = self._recovered(self._disk.after_kill())
        flipped = self._disk.after_kill()
        flipped.flip(self._path, self._byte, self._bit)
        content = segments(flipped)
        try:
            refused, start = False, recover(flipped, JOURNAL).counts
            after, disk = self._recovered(flipped, whole=False)
            assert self._byte >= self._attested, f"{self}: was known to be synced, and nothing is said"
        except QueueDamaged as error:
            refused = True
            if self._byte >= self._attested and "is the body of message" in str(error):
                start = recover(flipped, JOURNAL).counts
            else:
                start = self._named(str(error))
            assert segments(flipped) == content, f"{self}: a refused start changed the journal"
            after, disk = self._recovered(flipped, salvage=True, whole=False)
        lost = names(before) - names(after)
        allowed = names(
            {
                number: before[number]
                for number, entry in self._entries.items()
                if number in before and entry.segment.path == self._path and entry.offset >= start
            }
        )
        assert lost <= allowed, f"{self}: more is lost than from byte {start} on: {lost - allowed}"
        again, _ = self._recovered(disk, whole=False)
        assert names(again) == names(after), f"{self}: the next start finds {again}, not {after}"
        return refused

    def _named(self, sentence):
        """The byte from which on the segment is damaged, as the refusal says."""
        assert "run --salvage" in sentence, sentence
        if len(self._content) <= HEAD_SIZE:
            return 0  # nothing is in it; it is taken for one that was never begun, and others may be missed
        found = re.search(r"^(\S+) is damaged at byte (\d+)", sentence)
        assert found and found[1] == self._path.decode(), f"{self}, but what is named is: {sentence}"
        assert int(found[2]) <= self._byte, f"{self}, but: {sentence}"
        return int(found[2])


def names(seen):
    """How many messages there are of each name and text."""
    return Counter(one[-1] for one in seen.values())
