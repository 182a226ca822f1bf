"""A journal that goes on where the one that was found ends.

Nothing that was found is believed to be durable only because it reads well (`write_again`), and no segment of
it goes before what it holds is elsewhere.
"""

import contextlib
from collections.abc import Callable, Sequence

from openqmail.core.queue.journal import Item, Journal
from openqmail.core.queue.journal.recovery import Found
from openqmail.core.queue.journal.salvage import carry_over
from openqmail.core.queue.limits import Limits
from openqmail.core.world import Clock, Disk


def write_again(disk: Disk, folder: bytes, found: Found) -> None:
    """What nobody attests as synced: which segments there are, and the end of the last one.  That reads
    well, but after a failed sync it may be from memory alone, and another sync would prove nothing.

    Raises OSError."""
    disk.sync_folder(folder)
    if not found.segments or found.counts <= found.attested:
        return
    path = found.segments[-1].path
    file = disk.open(path)
    try:
        tail = file.read_at(found.attested, found.counts - found.attested)
    finally:
        file.close()
    disk.overwrite(path, found.attested, tail)
    disk.sync_file(path)


def resume(
    disk: Disk,
    clock: Clock,
    folder: bytes,
    found: Found,
    waiting: Sequence[Item],
    limits: Limits,
    entropy: Callable[[int], bytes],
) -> Journal:
    """The journal, which has what waits.  Raises HomeError, JournalLost, OSError."""
    total = disk.room(folder)[1]
    limit = min(limits.segment, max(total // 16, 1024 * 1024))
    reserve = min(limits.reserve, limit // 4)
    journal = Journal(disk, clock, folder, found.queue, limit, reserve, entropy)
    carries = bool(found.reports or waiting)
    for segment in found.segments:
        segment.live += carries  # none may go before what it holds is carried over
    journal.begin(found.segments, found.counts, found.sequence)
    if waiting:
        journal.commit(waiting, sync=True)
    if found.reports:
        carry_over(disk, folder, found, journal, limits.memory)
    elif not journal.held:
        journal.unpin(found.segments if carries else ())
    for path in found.discard:
        with contextlib.suppress(OSError):
            disk.unlink(path)
    return journal
