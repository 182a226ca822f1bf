"""Reads the header of HAProxy's PROXY protocol, versions 1 and 2, and never an octet beyond it.

Feed at most `wanted` octets at a time: so what follows the header, a TLS hello perhaps, stays where it
is for who reads it next.  Source: doc/proxy-protocol.txt of HAProxy, sections 2.1 and 2.2.  A header is
read strictly and has at most `LONGEST` octets; TLVs are skipped.  A header that names nobody (LOCAL,
UNKNOWN, a family without addresses of IP) says that the connection is the front end's own.
"""

import ipaddress
import re

import msgspec

from openqmail.core.values import OpenqmailError

LONGEST = 4096
"""Octets in a header of version 2; what its TLVs say is of no use here."""

_LONGEST_LINE = 107
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
_ADDRESS = re.compile(rb"[0-9A-Fa-f:.]{2,45}")
_ENDS: dict[int, int] = {1: 4, 2: 16}
"""A family of version 2 -> the octets of one of its addresses."""


class ProxyError(OpenqmailError):
    """What came is no header of the PROXY protocol."""


class Passed(msgspec.Struct, frozen=True):
    """Whose connection is passed on, and to which address of the front end it came."""

    client: str
    port: int
    server: str
    server_port: int


class HeaderReader:
    """`done` is true once the header is whole; then `passed` is who it names, None for the front end
    itself."""

    __slots__ = ("_header", "done", "passed")

    def __init__(self) -> None:
        self._header = b""
        self.done = False
        self.passed: Passed | None = None

    @property
    def wanted(self) -> int:
        """How many octets may come next; 0 when it is whole."""
        header = self._header
        size = len(header)
        if self.done:
            return 0
        if size < len(_SIGNATURE):
            return len(_SIGNATURE) - size
        if header[0] == _SIGNATURE[0]:
            whole = _FIXED if size < _FIXED else _FIXED + int.from_bytes(header[14:16])
            return whole - size
        return 1 if header.endswith(b"\r") else 2

    def feed(self, data: bytes) -> None:
        """The next octets.  Raises ProxyError as soon as it can be no header."""
        if len(data) > self.wanted:
            raise ValueError("more than was wanted")
        self._header += data
        header = self._header
        if header[:1] == _SIGNATURE[:1]:
            self._binary(header)
        else:
            self._text(header)

    # --- version 1: a line ------------------------------------------------------------

    def _text(self, header: bytes) -> None:
        if not header.startswith(b"PROXY "[: len(header)]):
            raise ProxyError("it does not begin as a header of the PROXY protocol does")
        if len(header) > _LONGEST_LINE:
            raise ProxyError("its line is over 107 octets")
        if b"\n" in header:
            self.passed = _line(header)
            self.done = True

    # --- version 2 --------------------------------------------------------------------

    def _binary(self, header: bytes) -> None:
        if not header.startswith(_SIGNATURE[: len(header)]):
            raise ProxyError("it does not begin as a header of the PROXY protocol does")
        if len(header) < _FIXED:
            return
        command, family, length = header[12], header[13], int.from_bytes(header[14:16])
        if command not in (0x20, 0x21):
            raise ProxyError("it is of a version or has a command that nobody knows")
        if length > LONGEST - _FIXED:
            raise ProxyError(f"it has more than {LONGEST} octets")
        if family >> 4 > 3 or family & 15 > 2:
            raise ProxyError("it has a family or a transport that nobody knows")
        if len(header) < _FIXED + length:
            return
        if command == 0x21:
            self.passed = _ends(family, header[_FIXED:])
        self.done = True


def _line(header: bytes) -> Passed | None:
    """What a whole line says."""
    line = header.removesuffix(b"\r\n")
    if line == header or b"\r" in line:
        raise ProxyError("its line does not end with CRLF")
    words = line.split(b" ")
    if words[1] == b"UNKNOWN":
        return None
    if words[1] not in (b"TCP4", b"TCP6") or len(words) != 6:
        raise ProxyError("its line is not PROXY TCP4 or TCP6, two addresses and two ports")
    version = 4 if words[1] == b"TCP4" else 6
    client, server = (_address(word, version) for word in words[2:4])
    ports = [int(word) if _PORT.fullmatch(word) else 65536 for word in words[4:]]
    if max(ports) > 65535:
        raise ProxyError("it has a port that is none")
    return Passed(client, ports[0], server, ports[1])


def _address(word: bytes, version: int) -> str:
    try:
        if not _ADDRESS.fullmatch(word):
            raise ValueError
        found = ipaddress.ip_address(word.decode("ascii"))
    except ValueError:
        raise ProxyError("it has an address that is none") from None
    if found.version != version:
        raise ProxyError("it has an address of another family")
    return plain(found)


def _ends(family: int, payload: bytes) -> Passed | None:
    """The two ends of a connection of version 2; None for a family that has none of IP."""
    size = _ENDS.get(family >> 4)
    if size is None or not family & 15:
        return None
    if family & 15 == 2:
        raise ProxyError("it passes on datagrams, and mail comes by none")
    if len(payload) < 2 * size + 4:
        raise ProxyError("it is too short for its addresses")
    client, server = (ipaddress.ip_address(payload[at : at + size]) for at in (0, size))
    ports = payload[2 * size : 2 * size + 4]
    return Passed(plain(client), int.from_bytes(ports[:2]), plain(server), int.from_bytes(ports[2:]))


def plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """In its usual spelling; one of IPv4 within IPv6 as IPv4, or rules would take it for another."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)
