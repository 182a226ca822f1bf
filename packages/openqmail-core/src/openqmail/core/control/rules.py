"""Who may do what by its address or name: the value that control/rules becomes, and its matching.  Pure.

The order is tcprules' (tcprulescheck(1) without users, whom nobody is asked about): the exact address,
`=name`, the networks that it lies in, longest first, the `=.suffix`es of the name, longest first,
`=` for whoever has a name, and the empty pattern for everybody.  tcprules.py reads the language.
"""

import ipaddress
from collections.abc import Mapping
from functools import cached_property

import msgspec

from openqmail.core.control.text import integer, shown

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Rule(msgspec.Struct, frozen=True):
    """`variables` as given: RELAYCLIENT (present: may relay, its value is appended to every recipient),
    DATABYTES and GREETDELAY (instead of the control files), RBLSMTPD (empty: asked about nowhere; a text:
    refused with it), and any others, which hooks may read."""

    allow: bool
    variables: Mapping[str, str]


ALLOW = Rule(allow=True, variables={})
"""What holds for an address that no rule speaks of."""


class _Tables(msgspec.Struct, frozen=True):
    """`exact`: by family (4, 6) and number.  `networks`: by family, how many bits lie behind a network's
    own, the fewest first, and the rules by those.  A search is one look into a table for each length
    that occurs."""

    exact: Mapping[tuple[int, int], Rule]
    networks: Mapping[int, tuple[tuple[int, Mapping[int, Rule]], ...]]
    names: Mapping[str, Rule]


class Rules(msgspec.Struct, frozen=True, dict=True):
    """Rules by their pattern: `192.0.2.1`, `10.1.`, `10.64.0.0/10`, `[::1]`, `[2001:db8:]`,
    `[2001:db8::]/33`, `=host.example`, `=.example`, `=`, and nothing for the default."""

    rules: Mapping[str, Rule]

    def match(self, address: str, name: str = "") -> Rule:
        """The rule for a client; `name`: of its host, in lower case, empty where it is not known.

        Without any that fits: allow, with no variables."""
        if not self.rules:
            return ALLOW
        tables = self._tables
        family, number = _number(address)
        rule = tables.exact.get((family, number))
        if rule is None and name:
            rule = tables.names.get(name)
        if rule is not None:
            return rule
        for spare, rules in tables.networks.get(family, ()):
            rule = rules.get(number >> spare)
            if rule is not None:
                return rule
        if name and (rule := _by_suffix(tables.names, name)) is not None:
            return rule
        return self.rules.get("", ALLOW)

    @property
    def by_name(self) -> bool:
        """Whether any rule asks for the name of a client's host."""
        return bool(self._tables.names)

    @cached_property
    def _tables(self) -> _Tables:
        exact: dict[tuple[int, int], Rule] = {}
        networks: dict[int, dict[int, dict[int, Rule]]] = {4: {}, 6: {}}
        names: dict[str, Rule] = {}
        for pattern, rule in self.rules.items():
            if pattern.startswith("="):
                names[pattern[1:].lower()] = rule
            elif pattern:
                found = network(pattern)
                number, spare = int(found.network_address), found.max_prefixlen - found.prefixlen
                if spare:
                    networks[found.version].setdefault(spare, {})[number >> spare] = rule
                else:
                    exact[found.version, number] = rule
        ordered = {family: tuple(sorted(tables.items())) for family, tables in networks.items()}
        return _Tables(exact, ordered, names)


def network(pattern: str) -> Network:
    """The addresses that a pattern without a name stands for.  Raises ValueError."""
    if not pattern.startswith("["):
        return _network4(pattern)
    inner, closed, rest = pattern[1:].partition("]")
    if not closed or (rest and not rest.startswith("/")) or (rest and "/" in inner):
        raise ValueError("has a bracket that is not closed; write a rule like [::1]:allow")
    return _network6(inner + rest)


def _by_suffix(names: Mapping[str, Rule], name: str) -> Rule | None:
    """The rule for what the name ends with, or for whoever has one."""
    dot = name.find(".")
    while dot >= 0:
        rule = names.get(name[dot:])
        if rule is not None:
            return rule
        dot = name.find(".", dot + 1)
    return names.get("")


def _number(address: str) -> tuple[int, int]:
    """The family and the number; an IPv4 address that came in on an IPv6 socket counts as IPv4, and what
    is no address is of no family."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return 0, 0
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return parsed.version, int(parsed)


def _network4(text: str) -> Network:
    written, slash, bits = text.partition("/")
    parts = written.removesuffix(".").split(".")
    if not all(part.isascii() and part.isdigit() and len(part) <= 3 and int(part) <= 255 for part in parts):
        raise ValueError(
            f"'{shown(text)}' is neither an address nor the beginning of one; write 192.0.2.1, 192.0.2., "
            "192.0.2.0/24, 192.0.2.1-9, =host.example or =.example (IPv6 addresses stand in brackets)"
        )
    parts = [str(int(part)) for part in parts]
    if len(parts) < 4 and written.endswith(".") and not slash:
        slash, bits = "/", str(8 * len(parts))
        parts += ["0"] * (4 - len(parts))
    elif len(parts) != 4 or written.endswith("."):
        begun = ".".join(parts[:3])
        raise ValueError(f"'{shown(text)}' is not a whole address; for all that begin so write {begun}.")
    return _whole(text, ".".join(parts), bits if slash else "32")


def _network6(text: str) -> Network:
    written, slash, bits = text.partition("/")
    if not slash and written.endswith(":") and not written.endswith("::"):
        parts = written[:-1].split(":")
        if len(parts) > 7 or not all(0 < len(part) <= 4 for part in parts):
            raise ValueError(
                f"'[{shown(text)}]' is not the beginning of an IPv6 address; write one like [2001:db8:]"
            )
        slash, bits = "/", str(16 * len(parts))
        written = ":".join(parts + ["0"] * (8 - len(parts)))
    found = _whole(f"[{text}]", written, bits if slash else "128")
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= 96:
        mapped = found.network_address.ipv4_mapped
        if mapped is not None:
            raise ValueError(f"'[{shown(text)}]' is IPv4 within IPv6; write it as IPv4, like {mapped}")
    return found


def _whole(text: str, address: str, bits: str) -> Network:
    """The network of an address and a length; `text`: as it was written."""
    try:
        first = ipaddress.ip_address(address)
    except ValueError:
        raise ValueError(
            f"'{shown(text)}' is not an IPv6 address; write one like [::1], [2001:db8::]/32, or the "
            "beginning of one, [2001:db8:]"
        ) from None
    if "%" in address:
        raise ValueError(f"'{shown(text)}' names an interface, which has no say here; write it without")
    length = integer(0, first.max_prefixlen, "the bits of a network")(bits)
    found = ipaddress.ip_network((address, length), strict=False)
    if found.network_address != first:
        raise ValueError(f"'{shown(text)}' has bits behind the network's; write {found}")
    return found
