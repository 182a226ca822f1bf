"""Which addresses were silent, in qmail's file queue/lock/tcpto (qmail-tcpto(8)): they are left alone.

An address that was silent twice, two minutes or more apart, is not tried for an hour or one and a
half; how long is drawn anew for each silence, so that senders do not come back all at once.  One
that answers is forgotten.  A refused connection is an answer: it costs no time.  The file holds 64
IPv4 addresses, and `qmail-tcpok` may clear it meanwhile.  IPv6 addresses do not fit into qmail's records:
64 of them have longer ones behind its 1024 bytes, where qmail does not look, and only our own
`qmail-tcpok` clears them.  A file that cannot be read or written loses only that.
"""

import contextlib
import fcntl
import os
import random
import socket
import struct
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

RECORDS = 64
MODE = 0o644
"""Of the file, as qmail's install makes it."""

MOST = 10
"""Silences are not counted further."""

APART = 120
"""Seconds; what comes sooner after a counted silence is the same one."""

REST = range(60 * 64, 91 * 64 + 1)
"""Seconds for which an address is left alone: what tcpto.c draws by the number of its process."""


class Form(msgspec.Struct, frozen=True):
    """How the records of one family stand in the file, and where they begin."""

    record: struct.Struct
    begin: int

    @property
    def end(self) -> int:
        return self.begin + RECORDS * self.record.size


V4 = Form(struct.Struct("<4sB3xL4x"), 0)
V6 = Form(struct.Struct("<16sB3xL8x"), V4.end)
SIZE = V6.end
"""Of the file; what is shorter is qmail's."""


class Silence(msgspec.Struct, frozen=True, gc=False):
    """`address` in network form, `count` silences, the last one at `when`, in seconds since 1970."""

    address: bytes
    count: int
    when: int


NONE = Silence(b"", 0, 0)


class Table(Protocol):
    def read(self) -> list[Silence]:
        """All records, the empty ones (`count` 0) as well.  Raises OSError."""
        ...

    def change(self, decide: Callable[[list[Silence]], tuple[int, Silence] | None]) -> None:
        """Put one record in its place, as `decide` says; nobody else changes any meanwhile.
        Raises OSError."""
        ...


class MemoryTable:
    """A table of this process alone."""

    def __init__(self) -> None:
        self._records = [NONE] * RECORDS

    def read(self) -> list[Silence]:
        return self._records

    def change(self, decide: Callable[[list[Silence]], tuple[int, Silence] | None]) -> None:
        decided = decide(self._records)
        if decided is not None:
            self._records[decided[0]] = decided[1]


class FileTable:
    """The records of one family in the file, by a descriptor that is open for reading and writing."""

    def __init__(self, descriptor: int, form: Form = V4) -> None:
        self._descriptor = descriptor
        self._form = form

    def read(self) -> list[Silence]:
        record, begin = self._form.record, self._form.begin
        data = os.pread(self._descriptor, self._form.end - begin, begin)
        whole = len(data) // record.size * record.size
        return [Silence(*fields) for fields in record.iter_unpack(data[:whole])]

    def change(self, decide: Callable[[list[Silence]], tuple[int, Silence] | None]) -> None:
        # Without waiting: whoever holds the lock must not hold up deliveries.
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            decided = decide(self.read())
            if decided is not None:
                place, one = decided
                record = self._form.record
                data = record.pack(one.address, one.count, one.when & 0xFFFFFFFF)
                os.pwrite(self._descriptor, data, self._form.begin + place * record.size)
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)


class Timeouts:
    """What transports tell of addresses, and ask before they try one.  `descriptor`: of the open file;
    without one all is kept in memory."""

    def __init__(self, descriptor: int | None = None, now: Callable[[], float] = time.time) -> None:
        self._descriptor = descriptor
        self._v4: Table = MemoryTable() if descriptor is None else FileTable(descriptor, V4)
        self._v6: Table = MemoryTable() if descriptor is None else FileTable(descriptor, V6)
        self._now = now
        self._salt = random.getrandbits(64)

    def close(self) -> None:
        """Give the descriptor back; from now on all is kept in memory."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._v4, self._v6 = MemoryTable(), MemoryTable()
            os.close(descriptor)

    def resting(self, address: str) -> bool:
        """Whether it is to be left alone now."""
        table, packed = self._find(address)
        with contextlib.suppress(OSError):
            for one in table.read():
                if one.address == packed:
                    # A clock that was set back keeps nothing at rest.
                    return one.count > 1 and 0 <= int(self._now()) - one.when < self._rest(one)
        return False

    def silent(self, address: str) -> None:
        """It did not answer: no connection came about, or no greeting."""
        table, packed = self._find(address)
        with contextlib.suppress(OSError):
            table.change(lambda records: after_silence(records, packed, int(self._now())))

    def answered(self, address: str) -> None:
        """It is there."""
        table, packed = self._find(address)
        with contextlib.suppress(OSError):
            if any(one.count and one.address == packed for one in table.read()):
                table.change(lambda records: _forgotten(records, packed))

    def _find(self, address: str) -> tuple[Table, bytes]:
        if ":" in address:
            return self._v6, socket.inet_pton(socket.AF_INET6, address)
        return self._v4, socket.inet_aton(address)

    def _rest(self, one: Silence) -> int:
        """The same for as long as the record stays."""
        return random.Random(f"{self._salt} {one.address.hex()} {one.when}").choice(REST)


def after_silence(records: list[Silence], address: bytes, now: int) -> tuple[int, Silence] | None:
    """The place to be changed, and what stands there then; None: the silence is no new one.

    A new address takes an empty place, else that of the oldest, where each silence counts as 1024
    seconds."""
    for place, one in enumerate(records):
        if one.address == address:
            if one.count and now < one.when + APART:
                return None
            return place, Silence(address, min(one.count + 1, MOST), now)
    if not records:
        return None
    place = min(range(len(records)), key=lambda at: (_worth(records[at]), at))
    return place, Silence(address, 1, now)


def _worth(one: Silence) -> int:
    return one.when + (one.count << 10) if one.count else -1


def _forgotten(records: list[Silence], address: bytes) -> tuple[int, Silence] | None:
    for place, one in enumerate(records):
        if one.address == address:
            return place, Silence(address, 0, one.when)
    return None


def silences(queue: str) -> dict[str, Silence]:
    """What the file of the queue at `queue` has, by address; nothing when it is not there.  To be
    called as the queue's owner.  Raises OSError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path_of(queue), flags)
    except FileNotFoundError:
        return {}
    try:
        records = [one for form in (V4, V6) for one in FileTable(descriptor, form).read()]
    finally:
        os.close(descriptor)
    return {address_of(one): one for one in records if one.count}


def address_of(one: Silence) -> str:
    """As people write it."""
    return socket.inet_ntop(socket.AF_INET if len(one.address) == 4 else socket.AF_INET6, one.address)


def path_of(queue: str) -> str:
    return os.path.join(queue, "lock", "tcpto")


def open_file(queue: str) -> int | None:
    """The file of the queue at `queue`, open for reading and writing; made where it is missing, with
    all its records.  To be called as the queue's owner.  None when it cannot be had."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path_of(queue), flags, MODE)
    except OSError:
        return None
    try:
        length = os.fstat(descriptor).st_size
        if length < SIZE:
            if not length:
                os.fchmod(descriptor, MODE)  # whatever the umask is
            with contextlib.suppress(OSError) if length >= V4.end else contextlib.nullcontext():
                os.pwrite(descriptor, bytes(SIZE - length), length)
    except OSError:  # no plain file, or a full disk
        os.close(descriptor)
        return None
    return descriptor
