"""The network that a client is counted with: /24 of IPv4, /64 of IPv6.  Pure.

A host of IPv6 has a /64 for itself as a rule (RFC 4291, RFC 6177), so its addresses are one
client; an IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`) counts as IPv4.
"""

import socket

_MAPPED = bytes(10) + b"\xff\xff"


def network_of(address: str) -> bytes:
    """`192.0.2.7` -> `192.0.2.0/24`, `2001:db8::1` -> `2001:db8::/64`; what is neither, as it is."""
    try:
        if ":" not in address:
            return _network(socket.inet_pton(socket.AF_INET, address))
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return address.encode("utf-8", "surrogateescape")
    if packed.startswith(_MAPPED):
        return _network(packed[len(_MAPPED) :])
    return socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8)).encode() + b"/64"


def _network(packed: bytes) -> bytes:
    return b"%d.%d.%d.0/24" % tuple(packed[:3])
