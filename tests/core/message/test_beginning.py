"""How much of a large message is read for its header."""

from collections.abc import Iterator

from openqmail.core.message.header import beginning
from openqmail.core.values import BytesBody


class Pieces:
    """A body on a disk, which counts what was read of it."""

    data = None

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces
        self.size = sum(map(len, pieces))
        self.read = 0

    def chunks(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.read += 1
            yield piece


def test_the_beginning_of_a_large_message_has_its_whole_header_and_not_its_whole_body() -> None:
    parted = Pieces(b"A: b\nC: ", b"d\n", b"\nbody", b"more", b"still more")
    assert beginning(parted, 100) == b"A: b\nC: d\n\nbody"
    assert parted.read == 3
    without = Pieces(b"\nbody", b"more")
    assert beginning(without, 100) == b"\nbody"
    assert beginning(Pieces(b"A: b\n", b"C: d"), 100) == b"A: b\nC: d"
    assert beginning(BytesBody(b""), 100) == b""


def test_a_header_without_end_is_read_no_further_than_allowed() -> None:
    endless = Pieces(*[b"A: b\n"] * 100)
    assert beginning(endless, 20) == b"A: b\n" * 5
    assert endless.read == 5
