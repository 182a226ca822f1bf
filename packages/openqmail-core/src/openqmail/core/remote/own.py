"""Which addresses are this host's own (qmail's ipme), so that mail does not go round in circles.

Linux tells them in /proc/net/fib_trie and /proc/net/if_inet6; elsewhere the addresses of the
host's name have to do.  The unspecified and the loopback addresses are always ours; but only
those of 127.0.0.0/8 that an interface has, as in qmail.
"""

import ipaddress
import re
import socket

ALWAYS = frozenset({"0.0.0.0", "::", "127.0.0.1", "::1"})

_LOCAL = re.compile(r"\|-- (\d+\.\d+\.\d+\.\d+)\n\s+/32 host LOCAL")


def own_addresses() -> frozenset[str]:
    """The addresses of this host's interfaces, as text in canonical form; reads /proc."""
    found = set(ALWAYS)
    try:
        with open("/proc/net/fib_trie", encoding="ascii") as file:
            found.update(_LOCAL.findall(file.read()))
    except (OSError, UnicodeDecodeError):
        found.update(_of_the_name())
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as file:
            found.update(str(ipaddress.IPv6Address(int(line.split()[0], 16))) for line in file)
    except (OSError, ValueError, IndexError):
        pass
    return frozenset(found)


def canonical(address: str) -> str:
    """The one spelling of an address; an IPv4 address mapped into IPv6 is that IPv4 address.

    Raises ValueError when it is none.  A zone (`%eth0`) is none."""
    if "%" in address:
        raise ValueError(f"{address} has a zone")
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(parsed)


def _of_the_name() -> set[str]:
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {str(each[4][0]).partition("%")[0] for each in found}
