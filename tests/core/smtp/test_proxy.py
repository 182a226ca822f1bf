"""The reader of PROXY headers: both versions, any division, and never an octet too many."""

import ipaddress
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.smtp.proxy import LONGEST, HeaderReader, Passed, ProxyError

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(family: int, payload: bytes, command: int = 0x21) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(payload)) + payload


def ends(client: str, port: int, server: str, server_port: int) -> bytes:
    packed = b"".join([ipaddress.ip_address(one).packed for one in (client, server)])
    return packed + struct.pack("!HH", port, server_port)


def read(stream: bytes, step: int = 1 << 16) -> tuple[HeaderReader, bytes]:
    """The reader after a stream that it took as it wanted, and what is left of it."""
    reader = HeaderReader()
    while stream and not reader.done:
        taken = min(reader.wanted, step)
        assert taken > 0
        reader.feed(stream[:taken])
        stream = stream[taken:]
    return reader, stream


V4 = Passed("192.0.2.9", 40000, "198.51.100.1", 25)
V6 = Passed("2001:db8::9", 65535, "2001:db8::1", 0)
LONG = "ffff:" * 7 + "ffff"
GOOD = {
    b"PROXY TCP4 192.0.2.9 198.51.100.1 40000 25\r\n": V4,
    b"PROXY TCP6 2001:db8::9 2001:DB8:0::1 65535 0\r\n": V6,
    b"PROXY TCP6 ::ffff:192.0.2.9 ::ffff:198.51.100.1 40000 25\r\n": V4,
    b"PROXY TCP6 %b %b 65535 65535\r\n" % (LONG.encode(), LONG.encode()): Passed(LONG, 65535, LONG, 65535),
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN ffff:ffff 1 2 whatever\r\n": None,
    v2(0x11, ends("192.0.2.9", 40000, "198.51.100.1", 25)): V4,
    v2(0x21, ends("2001:db8::9", 65535, "2001:db8::1", 0)): V6,
    v2(0x21, ends("::ffff:192.0.2.9", 40000, "::ffff:198.51.100.1", 25)): V4,
    v2(0x11, ends("192.0.2.9", 40000, "198.51.100.1", 25) + b"\x03\x00\x04abcd\x04\x00\x00"): V4,
    v2(0x11, ends("192.0.2.9", 40000, "198.51.100.1", 25), 0x20): None,
    v2(0x00, b"", 0x20): None,
    v2(0x00, b"junk", 0x21): None,
    v2(0x10, b"x" * 12, 0x21): None,
    v2(0x31, b"/run/x" + bytes(210), 0x21): None,
    v2(0x11, ends("192.0.2.9", 40000, "198.51.100.1", 25) + bytes(LONGEST - 16 - 12)): V4,
}
BAD = [
    b"EHLO client.example\r\n",
    b"QUIT\r\n",
    b"PROXI TCP4 192.0.2.9 198.51.100.1 40000 25\r\n",
    b"proxy TCP4 192.0.2.9 198.51.100.1 40000 25\r\n",
    b"PROXY  TCP4 192.0.2.9 198.51.100.1 40000 25\r\n",
    b"PROXY TCP4 192.0.2.9 198.51.100.1 40000 25\n",
    b"PROXY TCP4 192.0.2.9 198.51.100.1 40000 25\rx\r\n",
    b"PROXY TCP4 192.0.2.9 198.51.100.1 40000\r\n",
    b"PROXY TCP4 192.0.2.9 198.51.100.1 40000 25 26\r\n",
    b"PROXY TCP4 192.0.2.9 198.51.100.1 65536 25\r\n",
    b"PROXY TCP4 192.0.2.9 198.51.100.1 -1 25\r\n",
    b"PROXY TCP4 192.0.2.9 198.51.100.1 040 25\r\n",
    b"PROXY TCP4 192.0.2.09 198.51.100.1 40000 25\r\n",
    b"PROXY TCP4 192.0.2.999 198.51.100.1 40000 25\r\n",
    b"PROXY TCP4 2001:db8::9 2001:db8::1 40000 25\r\n",
    b"PROXY TCP6 192.0.2.9 198.51.100.1 40000 25\r\n",
    b"PROXY TCP6 fe80::1%eth0 fe80::2 40000 25\r\n",
    b"PROXY UDP4 192.0.2.9 198.51.100.1 40000 25\r\n",
    b"PROXY TCP4\r\n" + b"x" * 20,
    b"PROXY \r\n" + b"x" * 20,
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    b"PROXY UNKNOWN " + b"x" * 1000,
    SIGNATURE[:-1] + b"\r" + b"\x21\x11\x00\x0c" + bytes(12),
    v2(0x11, ends("192.0.2.9", 1, "198.51.100.1", 25), 0x22),
    v2(0x11, ends("192.0.2.9", 1, "198.51.100.1", 25), 0x11),
    v2(0x41, bytes(12)),
    v2(0x13, bytes(12)),
    v2(0x12, bytes(12)),
    v2(0x11, bytes(11)),
    v2(0x21, bytes(35)),
    v2(0x11, bytes(LONGEST)),
    v2(0x11, bytes(65535)),
]
REST = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello"


@pytest.mark.parametrize("step", [1, 3, 1 << 16])
@pytest.mark.parametrize("header", GOOD, ids=repr)
def test_a_header_is_read_and_what_follows_is_left(header: bytes, step: int) -> None:
    reader, rest = read(header + REST, step)
    assert reader.done and reader.passed == GOOD[header]
    assert rest == REST and reader.wanted == 0


@pytest.mark.parametrize("step", [1, 3, 1 << 16])
@pytest.mark.parametrize("stream", BAD, ids=repr)
def test_what_is_no_header_is_known_as_soon_as_it_can_be(stream: bytes, step: int) -> None:
    with pytest.raises(ProxyError):
        read(stream, step)


def test_a_header_that_is_too_long_is_known_by_its_length() -> None:
    with pytest.raises(ProxyError, match="4096"):
        read(v2(0x11, b"")[:14] + b"\xff\xff")


@given(st.binary(max_size=200), st.integers(1, 20))
@settings(max_examples=400)
def test_any_octets_are_a_header_or_an_error(data: bytes, step: int) -> None:
    for stream in (data, SIGNATURE + data, b"PROXY " + data, b"PROXY TCP4 " + data):
        try:
            reader, rest = read(stream, step)
        except ProxyError:
            continue
        assert reader.done or not rest


@given(st.ip_addresses(), st.integers(0, 65535), st.data())
@settings(max_examples=200)
def test_both_versions_say_the_same(
    client: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, data: st.DataObject
) -> None:
    server = data.draw(st.ip_addresses(v=client.version))
    step = data.draw(st.integers(1, 30))
    line = b"PROXY TCP%d %s %s %d 25\r\n" % (client.version, str(client).encode(), str(server).encode(), port)
    family = 0x11 if client.version == 4 else 0x21
    first, rest = read(line + REST, step)
    second, other = read(v2(family, ends(str(client), port, str(server), 25)) + REST, step)
    assert first.passed == second.passed and rest == other == REST


def test_more_than_was_wanted_is_never_taken() -> None:
    with pytest.raises(ValueError, match="wanted"):
        HeaderReader().feed(b"PROXY UNKNOWN\r\n")
