"""Constant databases: D. J. Bernstein's cdb, read and written byte for byte as cdbmake does.

A reader holds the whole file in memory, so that replacing the file never disturbs it; every
position in it is checked before use, and a damaged file is a CdbDamaged.  The form: 256
pairs of (position, slots) in front, then records (key length, data length, key, data), then
the hash tables; all numbers are 32 bits, little-endian.
"""

from collections.abc import Iterable, Iterator
from struct import Struct, error

from openqmail.core.values import TemporaryFailure

HEAD = 2048
LARGEST = 2**32 - 1

_PAIR = Struct("<II")


class CdbDamaged(TemporaryFailure):
    """The file is not a constant database, or no longer one."""


def cdb_hash(key: bytes) -> int:
    value = 5381
    for byte in key:
        value = ((value << 5) + value & 0xFFFFFFFF) ^ byte
    return value


class Cdb:
    """A constant database in memory.  `name` is what errors call it."""

    __slots__ = ("_data", "_name")

    def __init__(self, data: bytes, name: str = "cdb") -> None:
        self._data, self._name = data, name
        if len(data) < HEAD:
            raise self._damaged(f"it has {len(data)} bytes, a whole one at least {HEAD}")

    def get(self, key: bytes) -> bytes | None:
        """The data of the first record with this key."""
        return next(self.get_all(key), None)

    def get_all(self, key: bytes) -> Iterator[bytes]:
        """The data of each record with this key, in the order they were written."""
        wanted = cdb_hash(key)
        table, slots = self._pair((wanted & 255) * 8)
        if not slots:
            return
        slot = (wanted >> 8) % slots
        for _ in range(slots):
            found, position = self._pair(table + slot * 8)
            if not position:
                return
            if found == wanted:
                stored, data = self._record(position)
                if stored == key:
                    yield data
            slot = slot + 1 if slot + 1 < slots else 0

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every record, in the order they were written."""
        end = min(self._pair(index * 8)[0] for index in range(256))
        position = HEAD
        while position < end:
            key, data = self._record(position)
            position += 8 + len(key) + len(data)
            yield key, data

    def _record(self, position: int) -> tuple[bytes, bytes]:
        key_length, data_length = self._pair(position)
        middle = position + 8 + key_length
        end = middle + data_length
        if end > len(self._data):
            raise self._damaged(f"a record at {position} ends behind the file")
        return self._data[position + 8 : middle], self._data[middle:end]

    def _pair(self, position: int) -> tuple[int, int]:
        try:
            first, second = _PAIR.unpack_from(self._data, position)
        except error:
            raise self._damaged(f"it points to {position}, behind its end") from None
        return first, second

    def _damaged(self, why: str) -> CdbDamaged:
        return CdbDamaged(f"{self._name}: damaged: {why}; make it anew from its source")


def make_cdb(items: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The file for these records, equal keys included.  Raises ValueError over 4 GiB."""
    records: list[bytes] = []
    chains: list[list[tuple[int, int]]] = [[] for _ in range(256)]
    position = HEAD
    for key, data in items:
        value = cdb_hash(key)
        chains[value & 255].append((value, position))
        record = b"".join((_PAIR.pack(len(key), len(data)), key, data))
        records.append(record)
        position += len(record)
        if position > LARGEST:
            raise ValueError("a constant database has at most 4 GiB; there is more data than that")
    head: list[bytes] = []
    tables: list[bytes] = []
    for chain in chains:
        slots = 2 * len(chain)
        head.append(_PAIR.pack(position, slots))
        table = [(0, 0)] * slots
        for value, where in chain:
            slot = (value >> 8) % slots
            while table[slot][1]:
                slot = slot + 1 if slot + 1 < slots else 0
            table[slot] = (value, where)
        tables += [_PAIR.pack(*pair) for pair in table]
        position += 8 * slots
    if position > LARGEST:
        raise ValueError("a constant database has at most 4 GiB; there is more data than that")
    return b"".join(head + records + tables)
