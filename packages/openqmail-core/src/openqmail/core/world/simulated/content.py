"""What is in a simulated file: as a process sees it, and what of it is on the disk.

A write is on the disk for certain after a sync.  Until then a power cut leaves, drawn by lot,
all of it, none, what was written first, or of each block (512 or 4096 bytes) an older state,
zeros where it had none; its length is any that the file had.  After a failed sync what was
written looks as before and will never be on the disk.
"""

from random import Random

_BLOCKS = (512, 4096)


class Content:
    """The bytes of one file."""

    __slots__ = ("_changes", "_durable", "data")

    def __init__(self, durable: bytes = b"") -> None:
        self.data = bytearray(durable)
        self._durable = bytearray(durable)
        # Since the last sync, in order: (offset, what was written there); None: cut at offset.
        self._changes: list[tuple[int, bytes | None]] = []

    def copy(self) -> "Content":
        other = Content()
        other.data[:] = self.data
        other._durable[:] = self._durable
        other._changes = self._changes.copy()
        return other

    def write(self, offset: int, piece: bytes) -> None:
        _write(self.data, offset, piece)
        self._changes.append((offset, piece))

    def truncate(self, size: int) -> None:
        _resize(self.data, size)
        self._changes.append((size, None))

    def flip(self, offset: int, bit: int) -> None:
        """Another bit in memory and on the disk."""
        self.data[offset] ^= 1 << bit
        if offset < len(self._durable):
            self._durable[offset] ^= 1 << bit

    @property
    def dirty(self) -> bool:
        """Whether a sync has anything to do."""
        return bool(self._changes)

    def sync(self) -> bool:
        """Whether its length on the disk is another now."""
        before = len(self._durable)
        for offset, piece in self._changes:
            _change(self._durable, offset, piece)
        # What a failed sync has lost stays lost, but the length is of now.
        _resize(self._durable, len(self.data))
        self._changes.clear()
        return len(self._durable) != before

    def lose(self, reached: Random | None) -> None:
        """A failed sync: nothing was written, or what `reached` draws."""
        if reached is not None:
            self._durable = self._cut(reached)
        self._changes.clear()

    def after_power_cut(self, random: Random) -> "Content":
        return Content(bytes(self._cut(random)))

    # --- by lot -----------------------------------------------------------------------

    def _cut(self, random: Random) -> bytearray:
        if not self._changes:
            return bytearray(self._durable)
        match random.randrange(5):
            case 0:
                found = self.copy()
                found.sync()
                return found._durable
            case 1:
                return bytearray(self._durable)
            case 2:
                return self._beginning(random)
            case _:
                return self._torn(random, random.choice(_BLOCKS))

    def _beginning(self, random: Random) -> bytearray:
        """What was written first, and of the next write its beginning."""
        found = bytearray(self._durable)
        last = random.randrange(len(self._changes))
        for offset, piece in self._changes[:last]:
            _change(found, offset, piece)
        offset, piece = self._changes[last]
        if piece is not None:
            _write(found, offset, piece[: random.randint(0, len(piece))])
        return found

    def _torn(self, random: Random, block: int) -> bytearray:
        """Each block as it was after some of the changes, under any length that the file had."""
        found, lengths, known = bytearray(self._durable), [len(self._durable)], dict[int, int]()
        everything = len(self._changes)

        def seen(at: int) -> int:
            """How many of the changes the block has."""
            if at not in known:
                known[at] = random.choice((0, everything, random.randint(0, everything)))
            return known[at]

        for number, (offset, piece) in enumerate(self._changes):
            end = max(len(found), offset) if piece is None else offset + len(piece)
            lengths.append(offset if piece is None else max(lengths[-1], end))
            if end > len(found):
                _resize(found, end)
            for at in range(offset // block, -(-end // block)):
                if seen(at) > number:
                    first, last = max(offset, at * block), min(end, (at + 1) * block)
                    new = bytes(last - first) if piece is None else piece[first - offset : last - offset]
                    found[first:last] = new
        _resize(found, random.choice((lengths[-1], random.choice(lengths))))
        return found


def _change(data: bytearray, offset: int, piece: bytes | None) -> None:
    if piece is None:
        _resize(data, offset)
    else:
        _write(data, offset, piece)


def _write(data: bytearray, offset: int, piece: bytes) -> None:
    if piece and offset > len(data):
        data += bytes(offset - len(data))
    data[offset : offset + len(piece)] = piece


def _resize(data: bytearray, size: int) -> None:
    if size < len(data):
        del data[size:]
    else:
        data += bytes(size - len(data))
