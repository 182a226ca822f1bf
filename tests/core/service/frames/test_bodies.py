"""Bodies on their way to another process: whole, undamaged, and nothing beside them."""

import os
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.queue.body import FileBody
from openqmail.core.service.frames.bodies import DescriptorBody, pack, release, unpack
from openqmail.core.service.frames.codec import FrameError
from openqmail.core.values import BytesBody, QueueDamaged, TemporaryFailure
from openqmail.core.world import PosixDisk
from spawned import descriptors

TEXT = b"Subject: x\n\n" + b"0123456789\n" * 20_000


def digest(data):
    return blake2b(data, digest_size=32).digest()


@pytest.fixture(autouse=True)
def none_stays_open():
    before = descriptors()
    yield
    assert descriptors() == before


@pytest.fixture
def stored(tmp_path):
    def store(content=TEXT, offset=0, size=220_012, said=b""):
        path = tmp_path / "7"
        path.write_bytes(content)
        return FileBody(PosixDisk(), os.fsencode(path), offset, size, said)

    return store


@given(st.binary(max_size=1000))
def test_what_is_in_memory_goes_into_the_frame(data):
    size, said, inline, sent = pack(BytesBody(data))
    assert (size, inline, sent) == (len(data), data, ())
    assert b"".join(unpack(size, said, inline, []).chunks()) == data


@pytest.mark.parametrize("said", [b"", digest(TEXT)])
def test_a_large_one_crosses_as_its_file_and_can_be_read_again(stored, said):
    size, told, inline, sent = pack(stored(said=said))
    assert (size, told, inline) == (len(TEXT), said, None)
    body = unpack(size, told, inline, list(sent))
    assert body.data is None
    assert [b"".join(body.chunks()) for _ in range(2)] == [TEXT, TEXT]
    release(body)


def test_the_file_of_a_body_cannot_be_written_by_who_gets_it(stored):
    *_, (sent,) = pack(stored())
    with pytest.raises(OSError):
        os.write(sent, b"x")
    os.close(sent)


@pytest.mark.parametrize("content, offset", [(b"others' mail" + TEXT, 12), (TEXT + b"others' mail", 0)])
def test_a_part_of_a_file_never_leaves_as_a_descriptor(stored, content, offset):
    size, said, inline, sent = pack(stored(content, offset))
    assert (size, said, sent) == (len(TEXT), b"", ())
    assert (inline == TEXT) is True  # a comparison that does not print it


def test_a_file_that_has_become_shorter_is_not_sent(stored):
    with pytest.raises(TemporaryFailure):
        pack(stored(TEXT[:-1]))


def test_a_file_that_is_gone_is_an_error_of_the_disk(stored, tmp_path):
    body = stored()
    (tmp_path / "7").unlink()
    with pytest.raises(OSError):
        pack(body)


def test_a_body_without_a_file_that_no_frame_can_hold_is_refused():
    class Endless:
        data = None
        size = 1 << 40

        def chunks(self):
            raise AssertionError("nobody should read it")

    with pytest.raises(TemporaryFailure):
        pack(Endless())


@given(st.integers(0, len(TEXT) - 1))
def test_nobody_ever_has_a_damaged_one_whole(at):
    number = os.memfd_create("damaged")
    os.write(number, TEXT)
    os.pwrite(number, bytes([TEXT[at] ^ 1]), at)
    body = DescriptorBody(number, len(TEXT), digest(TEXT))
    got = 0
    with pytest.raises(QueueDamaged):
        for chunk in body.chunks():
            got += len(chunk)
    assert got < len(TEXT)
    body.close()


def test_who_reads_when_it_is_closed_reads_on(stored):
    size, told, inline, sent = pack(stored(said=digest(TEXT)))
    body = unpack(size, told, inline, list(sent))
    reading = body.chunks()
    begun = next(reading)
    body.close()
    body.close()
    assert begun + b"".join(reading) == TEXT
    with pytest.raises(TemporaryFailure):
        next(body.chunks())


@pytest.mark.parametrize("data, count", [(None, 0), (None, 2), (b"x", 1)])
def test_a_frame_brings_a_body_in_one_of_two_ways(data, count):
    sent = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    with pytest.raises(FrameError):
        unpack(1, b"", data, sent)


def test_a_descriptor_that_is_no_file_is_an_error_of_the_disk():
    reading, writing = os.pipe()
    body = unpack(10, b"", None, [reading])
    with pytest.raises(OSError):
        list(body.chunks())
    release(body)
    os.close(writing)
