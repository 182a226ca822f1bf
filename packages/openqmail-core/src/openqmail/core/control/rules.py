"""control/rules: who may do what by its address, in tcprules' language (first form).

A line is `PATTERN:allow` or `PATTERN:deny`, then `,NAME="value"` as often as needed; any
character may stand for the quotes.  PATTERN is an address, the beginning of one that ends in
a dot (`10.1.`), an IPv6 address or the beginning of one in brackets (`[::1]`, `[2001:db8:]`),
or nothing, for everybody else.  Ranges, host names and users are not there yet.
"""

import ipaddress
from collections.abc import Mapping

import msgspec

from openqmail.core.control.text import ControlText, integer, shown

VARIABLES = ("RELAYCLIENT", "DATABYTES")


class Rule(msgspec.Struct, frozen=True):
    """`variables` as given: RELAYCLIENT (present: may relay, its value is appended to every
    recipient), DATABYTES (overrides the control file)."""

    allow: bool
    variables: Mapping[str, str]


ALLOW = Rule(allow=True, variables={})
"""What holds for an address that no rule speaks of."""


class Rules(msgspec.Struct, frozen=True):
    """Rules by their pattern (`127.0.0.1`, `10.1.`, `[::1]`, `` for the default), the IPv6
    ones in their shortest spelling."""

    rules: Mapping[str, Rule]

    def match(self, address: str) -> Rule:
        """The rule of the longest pattern that fits: the exact address, then prefixes, then
        the empty default; without any, allow with no variables."""
        rules = self.rules
        if not rules:
            return ALLOW
        if ":" in address:
            mapped = _mapped(address)
            if not mapped:
                return self._match6(address)
            address = mapped
        rule = rules.get(address)
        while rule is None and address:
            # 10.1.2.3 -> 10.1.2. -> 10.1. -> 10. -> the default
            address = address[: address.rfind(".", 0, -1) + 1]
            rule = rules.get(address)
        return rule or ALLOW

    def _match6(self, address: str) -> Rule:
        rule = self.rules.get(f"[{address}]")  # as the kernel writes it, in most cases
        if rule is not None:
            return rule
        try:
            parsed = ipaddress.IPv6Address(address.partition("%")[0])
        except ValueError:
            return self.rules.get("", ALLOW)
        rule = self.rules.get(f"[{parsed}]")
        if rule is not None:
            return rule
        groups = _groups(parsed)
        for count in range(7, 0, -1):
            rule = self.rules.get("[" + ":".join(groups[:count]) + ":]")
            if rule is not None:
                return rule
        return self.rules.get("", ALLOW)


def _mapped(address: str) -> str:
    """The IPv4 address that came in on an IPv6 socket, or nothing."""
    if address[:7].lower() == "::ffff:" and "." in address:
        return address[7:]
    return ""


def _groups(address: ipaddress.IPv6Address) -> list[str]:
    """Eight groups, each without leading zeros."""
    return [f"{int(group, 16):x}" for group in address.exploded.split(":")]


def parse_rules(text: ControlText) -> Rules:
    found: dict[str, Rule] = {}
    lines: dict[str, int] = {}
    for number, line in text.entries():
        parsed = text.parse(number, line, _rule)
        if parsed is None:
            continue
        pattern, rule = parsed
        if pattern in found:
            text.problem(
                number,
                f"{pattern or 'the default'} has a rule in line {lines[pattern]}; keep the one that is meant",
            )
        found.setdefault(pattern, rule)
        lines.setdefault(pattern, number)
    return Rules(found)


def _rule(line: str) -> tuple[str, Rule]:
    if line.startswith("["):
        inner, closed, rest = line[1:].partition("]")
        if not closed or not rest.startswith(":"):
            raise ValueError("has a bracket that is not closed; write a rule like [::1]:allow")
        pattern, instruction = _pattern6(inner), rest[1:]
    else:
        written, colon, instruction = line.partition(":")
        if not colon:
            raise ValueError("has no colon; write a rule like 127.:allow or 192.0.2.1:deny")
        pattern = _pattern4(written)
    for word in ("allow", "deny"):
        if instruction == word or instruction.startswith(word + ","):
            return pattern, Rule(allow=word == "allow", variables=_variables(instruction[len(word) :]))
    raise ValueError(
        f"'{shown(instruction)}' is neither allow nor deny; write a rule like 127.:allow "
        "(IPv6 addresses stand in brackets)"
    )


def _pattern4(text: str) -> str:
    if not text:
        return ""
    parts = text.removesuffix(".").split(".")
    numbers = all(part.isascii() and part.isdigit() and len(part) <= 3 and int(part) <= 255 for part in parts)
    if not numbers:
        raise ValueError(
            f"'{shown(text)}' is neither an address nor the beginning of one; ranges, host names "
            "and users are not understood; write 192.0.2.1 or 192.0.2."
        )
    if text.endswith(".") and len(parts) < 4:
        return ".".join(str(int(part)) for part in parts) + "."
    if len(parts) != 4 or text.endswith("."):
        begun = ".".join(parts[:3])
        raise ValueError(f"'{shown(text)}' is not a whole address; for all that begin so write {begun}.")
    return ".".join(str(int(part)) for part in parts)


def _pattern6(text: str) -> str:
    if text.endswith(":") and not text.endswith("::"):
        parts = text[:-1].split(":")
        if len(parts) > 7 or not all(0 < len(part) <= 4 for part in parts):
            raise ValueError(
                f"'[{shown(text)}]' is not the beginning of an IPv6 address; write one like [2001:db8:]"
            )
        try:
            return "[" + ":".join(f"{int(part, 16):x}" for part in parts) + ":]"
        except ValueError:
            raise ValueError(f"'[{shown(text)}]' is not the beginning of an IPv6 address") from None
    try:
        return f"[{ipaddress.IPv6Address(text)}]"
    except ValueError:
        raise ValueError(
            f"'[{shown(text)}]' is not an IPv6 address; write one like [::1] or its beginning, [2001:db8:]"
        ) from None


def _variables(text: str) -> dict[str, str]:
    """`,NAME="value",NAME=/value/`."""
    found: dict[str, str] = {}
    while text:
        name, equals, rest = text[1:].partition("=")
        if text[0] != "," or not equals:
            raise ValueError(f"'{shown(text)}' is not understood; a variable is written ,NAME=\"value\"")
        if name not in VARIABLES:
            raise ValueError(f"'{shown(name)}' is not a variable here; known are {' and '.join(VARIABLES)}")
        value, closed, text = rest[1:].partition(rest[:1] or '"')
        if not rest or not closed:
            raise ValueError(f'{name} has a quote that is not closed; write {name}="value"')
        if name == "DATABYTES":
            integer(0, 2**62, "a number of bytes")(value)
        elif not (value.isascii() and value.isprintable() and " " not in value):
            raise ValueError("RELAYCLIENT's value would not fit an address; write plain ASCII without blanks")
        if name in found:
            raise ValueError(f"{name} is set twice; set it once")
        found[name] = value
    return found
