"""maildir(5): a message becomes one file, whole or not at all, and is known again.

A file is named `birth.Q<digest>.host,S=size`; the digest is of the message's key, the
recipient, the Maildir and its place in the plan, so a repeated delivery finds what an earlier
one left.  That may read well and not be on the disk: its sync may have failed, also in a
process that is no more.  So in `new/` it is written anew, synced; in `cur/`, which is the
reader's, what is equal is written over with itself.  Names hold nothing that a stranger chose.
A new file is written, and synced only where that is asked for: see `durability` for the others.
Blocks.
"""

import os
from collections.abc import Iterator
from hashlib import blake2b

from openqmail.core.local.durability import Durability, stem_of
from openqmail.core.ports import LocalJob, Written
from openqmail.core.values import Body, TemporaryFailure
from openqmail.core.world import Clock, Disk

COPIES = 9
"""How many files of one delivery may lie in `cur/` and differ, before it gives up."""

FRESH = 1.0
"""Seconds for which the listing of a folder is believed while deliveries are repeated."""


def stem(job: LocalJob, path: bytes, ordinal: int) -> bytes:
    """The part of a file's name that no other delivery has."""
    what = b"%s%s\0%s\0%d" % (job.message.key, job.recipient, path, ordinal)
    return b"%d.Q%s" % (job.birth, blake2b(what, digest_size=16).hexdigest().encode())


def host_part(me: bytes) -> bytes:
    """A host's name, as maildir(5) wants it in a file name."""
    return me.replace(b"/", rb"\057").replace(b":", rb"\072")


class Maildirs:
    """Writes into any Maildir; `path` is always absolute and ends with a slash."""

    def __init__(self, disk: Disk, clock: Clock, durability: Durability) -> None:
        self._disk = disk
        self._clock = clock
        self._durability = durability
        self._pid = os.getpid()  # an earlier process may still be at it
        self._writing: set[bytes] = set()
        self._listings: dict[bytes, tuple[float, dict[bytes, bytes]]] = {}

    def write(
        self,
        path: bytes,
        name: bytes,
        host: bytes,
        head: bytes,
        body: Body,
        delivery: int,
        synced: bool = False,
    ) -> Written:
        """The message, `head` before its body, as a file of `new/`; `synced`: its content is durable.

        `name`: the stem.  Raises OSError, and what the body raises."""
        self._durability.meet(path)
        data = body.data
        size = len(head) + (body.size if data is None else len(data))
        temporary = b"%stmp/%s-%d-%d.%s" % (path, name, self._pid, delivery, host)
        final = b"%snew/%s.%s,S=%d" % (path, name, host, size)
        self._writing.add(temporary)
        try:
            if data is None or synced:
                self._stream(temporary, head, body, size, synced)
            else:
                self._put(temporary, head, data)
            self._disk.rename(temporary, final)
        except BaseException:
            self._forget_file(temporary)
            raise
        finally:
            self._writing.discard(temporary)
        return Written(final, size)

    def write_durably(
        self, path: bytes, name: bytes, host: bytes, head: bytes, body: Body, delivery: int
    ) -> None:
        """The same, and the file is durable with its name when it returns.  Raises as `write` does."""
        self.write(path, name, host, head, body, delivery, synced=True)
        self._disk.sync_folder(path + b"new")

    def write_once(
        self,
        path: bytes,
        name: bytes,
        host: bytes,
        head: bytes,
        body: Body,
        delivery: int,
        synced: bool = False,
    ) -> Written | None:
        """The same where an earlier attempt may have left files; None: it is durable already,
        which it always is when it is to be `synced`.  Raises as `write` does."""
        self._durability.meet(path)
        self._clear(path, name)
        for copy in range(1, COPIES + 1):
            mine = name if copy == 1 else b"%s_%d" % (name, copy)
            there = self._find(path, mine, host, len(head) + body.size)
            if there is None or there.startswith(path + b"new/"):
                break
            if self._equal(there, head, body):
                self._write_over(there, head, body)
                return None
        else:
            raise TemporaryFailure("too many different copies of one delivery")
        if there is None and mine == name and not synced:
            return self.write(path, mine, host, head, body, delivery)
        written = self.write(path, mine, host, head, body, delivery, synced=True)
        if there is not None and there != written.path:  # it had another size in its name
            self._forget_file(there)
        self._disk.sync_folder(path + b"new")
        return None

    # --- writing ----------------------------------------------------------------------

    def _write_over(self, path: bytes, head: bytes, body: Body) -> None:
        """A file that is the message already, with the message: now its sync tells the truth."""
        at = 0
        for piece in _pieces(head, body):
            self._disk.overwrite(path, at, piece)
            at += len(piece)
        self._disk.sync_file(path)
        self._disk.sync_folder(os.path.dirname(path))

    def _put(self, temporary: bytes, head: bytes, data: bytes) -> None:
        try:
            self._disk.write_new(temporary, (head, data))
        except FileExistsError:  # left by a process that ended in the middle of it
            self._disk.unlink(temporary)
            self._disk.write_new(temporary, (head, data))

    def _stream(self, temporary: bytes, head: bytes, body: Body, size: int, synced: bool) -> None:
        try:
            file = self._disk.create(temporary)
        except FileExistsError:
            self._disk.unlink(temporary)
            file = self._disk.create(temporary)
        try:
            written = sum([file.append((piece,)) for piece in _pieces(head, body)])
            if written != size:
                raise TemporaryFailure(f"the stored message has {written} bytes, not {size}")
            if synced:
                file.sync()
        finally:
            file.close()

    def _forget_file(self, path: bytes) -> None:
        try:
            self._disk.unlink(path)
        except OSError:
            return  # the reader of a Maildir cleans tmp/ by itself

    # --- recognising ------------------------------------------------------------------

    def _clear(self, path: bytes, name: bytes) -> None:
        """What an earlier process left of this delivery in `tmp/`."""
        for found in self._disk.names(path + b"tmp"):
            temporary = path + b"tmp/" + found
            if found.startswith(name) and temporary not in self._writing:
                self._forget_file(temporary)

    def _find(self, path: bytes, name: bytes, host: bytes, size: int) -> bytes | None:
        """The file of this stem, in `new/` or where its reader has moved it."""
        expected = b"%snew/%s.%s,S=%d" % (path, name, host, size)
        try:
            self._disk.open(expected).close()
            return expected
        except FileNotFoundError:
            pass
        for folder in (path + b"new/", path + b"cur/"):
            found = self._listing(folder).get(name)
            if found is not None:
                return folder + found
        return None

    def _listing(self, folder: bytes) -> dict[bytes, bytes]:
        """Files of ours by their stem.  An old listing costs a second copy at worst."""
        now = self._clock.monotonic()
        known = self._listings.get(folder)
        if known is not None and now - known[0] < FRESH:
            return known[1]
        stems = {stem_of(name): name for name in self._disk.names(folder) if b".Q" in name}
        if len(self._listings) >= 16:
            self._listings.clear()
        self._listings[folder] = (now, stems)
        return stems

    def _equal(self, path: bytes, head: bytes, body: Body) -> bool:
        """Whether the file is the message, from the first byte to the last."""
        try:
            file = self._disk.open(path)
        except FileNotFoundError:
            return False
        try:
            if file.size() != len(head) + body.size:
                return False
            at = 0
            for piece in _pieces(head, body):
                if file.read_at(at, len(piece)) != piece:
                    return False
                at += len(piece)
        finally:
            file.close()
        return True


def _pieces(head: bytes, body: Body) -> Iterator[bytes]:
    yield head
    yield from body.chunks()
