"""A message in qmail's layout, read from its files: as the queue's `Stored`.

Recipients are those in `local`, then those in `remote`.  Results that are in the journal and
not yet in the files are laid over them.  A message that qmail took in has a key that follows
from the queue, its number and its birth.
"""

from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from openqmail.core.queue.index import Resident
from openqmail.core.queue.journal.records import Kept
from openqmail.core.queue.layout.forms import (
    Extra,
    Listed,
    bytes_of,
    decode_info,
    decode_recipients,
    missing_paragraphs,
    text_of,
    whole_paragraphs,
)
from openqmail.core.queue.layout.paths import Files
from openqmail.core.queue.store import Due, Progress, Stored
from openqmail.core.queue.unreadable import unreadable
from openqmail.core.values import Envelope, MessageId, Origin, Outcome, QueueDamaged, Recipient
from openqmail.core.values.address import Channel
from openqmail.core.world import Disk

FRESH = Progress()
_LOCAL: tuple[Channel, ...] = ("local",)
_REMOTE: tuple[Channel, ...] = ("remote",)
_DONE = Progress(Outcome.SUCCESS)


class Info(msgspec.Struct, frozen=True):
    """What `info/N` says.  `birth`: seconds UTC."""

    sender: bytes
    extra: Extra | None
    key: bytes
    birth: int


def read_info(disk: Disk, path: bytes, number: int, queue: bytes) -> Info:
    """`queue`: its id.  Raises FileNotFoundError, OSError, QueueDamaged."""
    data, mtime = disk.contents(path)
    try:
        sender, extra = decode_info(data)
        if extra is not None:
            return Info(sender, extra, bytes.fromhex(extra.key), extra.birth)
    except ValueError as error:
        raise QueueDamaged(unreadable(path, error)) from error
    return Info(sender, None, foreign_key(queue, number, mtime), mtime)


def foreign_key(queue: bytes, number: int, birth: int) -> bytes:
    """The key of a message that another qmail has taken in: 24 bytes."""
    return blake2b(b"%s%d %d" % (queue, number, birth), digest_size=24).digest()


def read_list(disk: Disk, path: bytes) -> list[Listed]:
    """Raises OSError, QueueDamaged."""
    try:
        listed = decode_recipients(disk.contents(path)[0])
        if not listed:
            raise ValueError("it lists nobody")
        return listed
    except (FileNotFoundError, ValueError) as error:
        raise QueueDamaged(unreadable(path, error)) from error


def read_bounce(disk: Disk, path: bytes) -> bytes:
    """Raises OSError."""
    try:
        return disk.contents(path)[0]
    except FileNotFoundError:
        return b""


def stored(
    number: int,
    size: int,
    info: Info,
    lists: tuple[Sequence[Listed], Sequence[Listed]],
    bounce: bytes,
    due: Due,
    pending: Sequence[Kept] = (),
    held: str | None = None,
) -> Stored:
    """`lists`: local and remote; `pending`: results in the order in which they occurred."""
    extra = info.extra
    local, remote = lists
    progress = _progress(local, "l", extra) + _progress(remote, "r", extra)
    failures: list[bytes] = []
    for record in pending:
        failures += _overlay(progress, len(local), record)
    if failures:  # the file may have them already, the last one perhaps by half
        bounce = whole_paragraphs(bounce)
        bounce += b"".join(missing_paragraphs(bounce, failures))
    return Stored(
        MessageId(number, info.key),
        info.birth,
        size,
        _envelope(info, local, remote),
        tuple(progress),
        due,
        True,
        _LOCAL * len(local) + _REMOTE * len(remote),
        bounce,
        held,
    )


def _progress(recipients: Sequence[Listed], channel: str, extra: Extra | None) -> list[Progress]:
    tried = extra.tried if extra is not None else {}
    if not tried:
        return [_DONE if one.done else FRESH for one in recipients]
    found = []
    for place, one in enumerate(recipients):
        attempts, text = tried.get(f"{channel}{place}", (0, ""))
        if one.done:  # the text is an earlier attempt's
            found.append(Progress(Outcome.SUCCESS, attempts))
        else:
            found.append(Progress(None, attempts, bytes_of(text)))
    return found


def _overlay(progress: list[Progress], locals_: int, record: Kept) -> list[bytes]:
    """The paragraphs of its failures."""
    failures = []
    for channel, place, letter, text in record.changes:
        position = place if channel == "l" else locals_ + place
        if position >= len(progress):
            continue
        outcome = Outcome(letter.encode())
        done = None if outcome is Outcome.DEFERRAL else outcome
        progress[position] = Progress(done, progress[position].attempts + 1, text)
        if done is Outcome.FAILURE:
            failures.append(text)
    return failures


def _envelope(info: Info, local: Sequence[Listed], remote: Sequence[Listed]) -> Envelope:
    extra = info.extra
    if extra is None:
        return Envelope(info.sender, tuple([Recipient(one.address) for one in (*local, *remote)]))
    if not extra.notify:
        recipients = [Recipient(one.address) for one in (*local, *remote)]
    else:
        recipients = []
        for channel, listed in (("l", local), ("r", remote)):
            for place, one in enumerate(listed):
                notify, orcpt = extra.notify.get(f"{channel}{place}", ("", ""))
                recipients.append(Recipient(one.address, bytes_of(notify), bytes_of(orcpt)))
    return Envelope(
        info.sender,
        tuple(recipients),
        Origin(extra.uid, extra.pid),
        extra.smtputf8,
        bytes_of(extra.ret),
        bytes_of(extra.envid),
    )


def read(
    disk: Disk,
    files: Files,
    number: int,
    resident: Resident,
    queue: bytes,
    pending: Sequence[Kept] = (),
    held: str | None = None,
) -> Stored:
    """Raises FileNotFoundError, OSError, QueueDamaged."""
    info = read_info(disk, files.info, number, queue)
    local = read_list(disk, files.local) if resident.locals else ()
    remote = read_list(disk, files.remote) if resident.has_remote else ()
    bounce = read_bounce(disk, files.bounce) if resident.has_bounce else b""
    due = resident.due_local, resident.due_remote
    return stored(number, resident.size, info, (local, remote), bounce, due, pending, held)


def extra_of(stored: Stored, places: Sequence[tuple[str, int]]) -> Extra:
    """What stands behind the sender in `info/N`; `places`: of each recipient, its list and its place
    there."""
    envelope = stored.envelope
    notify: dict[str, tuple[str, str]] = {}
    tried: dict[str, tuple[int, str]] = {}
    for (channel, place), recipient, progress in zip(
        places, envelope.recipients, stored.progress, strict=True
    ):
        if recipient.notify or recipient.orcpt:
            notify[f"{channel}{place}"] = text_of(recipient.notify), text_of(recipient.orcpt)
        if progress.attempts and progress.outcome is None:
            tried[f"{channel}{place}"] = progress.attempts, text_of(progress.text[:256])
    return Extra(
        stored.id.key.hex(),
        stored.birth,
        envelope.origin.uid,
        envelope.origin.pid,
        envelope.smtputf8,
        text_of(envelope.ret),
        text_of(envelope.envid),
        notify,
        tried,
        sum(progress.outcome is None for progress in stored.progress),
    )
