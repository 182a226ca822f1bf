"""Reads control/rules: tcprules' language (ucspi-tcp, tcprules(1)), with IPv6 and networks.

A line is `PATTERN:allow` or `PATTERN:deny`, then `,NAME="value"` as often as needed; any character may
stand for the quotes.  A number of an IPv4 pattern may be a range, `10.0.3-5.` or `192.0.2.7-19`.  Two
rules for one pattern are a mistake, where tcprules takes the first of them without a word.  Patterns
with a user (`joe@10.`) are, too: nobody is asked who the user is (RFC 1413), so none could ever hold.
"""

import difflib
import re
from collections.abc import Iterator

import msgspec

from openqmail.core.control.rules import Rule, Rules, network
from openqmail.core.control.text import ControlText, integer, shown
from openqmail.core.values import ControlError

KNOWN = ("RELAYCLIENT", "DATABYTES", "RBLSMTPD", "GREETDELAY")
"""Variables that core itself heeds."""

MOST = 65_536
"""Patterns that the ranges of a line may stand for."""

_LINE = re.compile(r"(?P<pattern>.*?):(?P<verb>allow|deny)(?P<rest>,.*)?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RANGE = re.compile(r"([0-9]{1,3})-([0-9]{1,3})")
_HOST = re.compile(r"\.?(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*|")


class _Parsed(msgspec.Struct, frozen=True):
    patterns: tuple[str, ...]
    rule: Rule


def parse_rules(text: ControlText) -> Rules:
    """The whole file; what is wrong with a line is recorded in `text`."""
    found: dict[str, Rule] = {}
    lines: dict[str, int] = {}
    for number, line in text.entries():
        parsed = text.parse(number, line, _parsed)
        if parsed is None:
            continue
        for pattern in parsed.patterns:
            if pattern in found:
                name = pattern or "the default"
                text.problem(
                    number, f"{name} has a rule in line {lines[pattern]}; keep the one that is meant"
                )
                break
            found[pattern], lines[pattern] = parsed.rule, number
    return Rules(found)


def without_effect(rules: Rules) -> Iterator[ControlError]:
    """A warning for each variable that nothing of core reads."""
    names = {name for rule in rules.rules.values() for name in rule.variables}
    for name in sorted(names.difference(KNOWN)):
        yield ControlError(
            "control/rules", 0, f"sets {name}, which only a hook could read; see control/hooks"
        )


def _parsed(line: str) -> _Parsed:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(_why_not(line))
    pattern, verb, rest = found.group("pattern", "verb", "rest")
    if "@" in pattern:
        raise ValueError(
            f"'{shown(pattern)}' has a user, but nobody is asked who a client's user is, so it could never "
            "hold; write the address or =name alone"
        )
    rule = Rule(allow=verb == "allow", variables=_variables(rest or ""))
    return _Parsed(tuple(_patterns(pattern)), rule)


def _why_not(line: str) -> str:
    """What is wrong with a line that is no rule."""
    if line.startswith("["):
        _, closed, rest = line.partition("]")
        if not closed or not rest.startswith((":", "/")):
            return "has a bracket that is not closed; write a rule like [::1]:allow"
    if ":" not in line:
        return "has no colon; write a rule like 127.:allow or 192.0.2.1:deny"
    instruction = shown(line.rpartition("]")[2].partition(":")[2])
    return (
        f"'{instruction}' is neither allow nor deny; write a rule like 127.:allow "
        "(IPv6 addresses stand in brackets)"
    )


def _patterns(text: str) -> Iterator[str]:
    """Each pattern that a line stands for, in the one spelling that it has.  Raises ValueError."""
    if text.startswith("="):
        name = text[1:].lower()
        if not _HOST.fullmatch(name):
            raise ValueError(f"'{shown(text)}' is not the name of a host; write =host.example or =.example")
        yield "=" + name
    elif not text:
        yield ""
    elif "-" in text and not text.startswith("["):
        for one in _ranges(text):
            yield _spelt(one)
    else:
        yield _spelt(text)


def _spelt(pattern: str) -> str:
    found = network(pattern)
    whole = found.prefixlen == found.max_prefixlen
    if found.version == 4:
        return str(found.network_address) if whole else str(found)
    return f"[{found.network_address}]" + ("" if whole else f"/{found.prefixlen}")


def _ranges(text: str) -> list[str]:
    """Every address, or beginning of one, that numbers like `7-19` make."""
    made = [""]
    for index, part in enumerate(text.split(".")):
        numbers = [part]
        if "-" in part:
            found = _RANGE.fullmatch(part)
            if found is None or not int(found[1]) <= int(found[2]) <= 255:
                raise ValueError(
                    f"'{shown(part)}' is not a range of numbers up to 255; write one like 192.0.2.7-19"
                )
            numbers = [str(number) for number in range(int(found[1]), int(found[2]) + 1)]
        if len(made) * len(numbers) > MOST:
            raise ValueError(f"'{shown(text)}' stands for more than {MOST} patterns; write networks instead")
        dot = "." if index else ""
        made = [begun + dot + number for begun in made for number in numbers]
    return made


def _variables(text: str) -> dict[str, str]:
    """`,NAME="value",NAME=/value/`."""
    found: dict[str, str] = {}
    while text:
        name, equals, rest = text[1:].partition("=")
        if text[0] != "," or not equals:
            raise ValueError(f"'{shown(text)}' is not understood; a variable is written ,NAME=\"value\"")
        value, closed, text = rest[1:].partition(rest[:1] or '"')
        if not rest or not closed:
            raise ValueError(f'{shown(name)} has a quote that is not closed; write {shown(name)}="value"')
        _check(name, value)
        if name in found:
            raise ValueError(f"{name} is set twice; set it once")
        found[name] = value
    return found


def _check(name: str, value: str) -> None:
    """Raises ValueError for a variable that cannot be meant so."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"'{shown(name)}' is not the name of a variable; write one like RELAYCLIENT")
    if name.startswith("TCP"):
        raise ValueError(f"{name} is what the connection says, not a rule; remove it")
    if name in ("DATABYTES", "GREETDELAY"):
        what, most = ("a number of bytes", 2**62) if name == "DATABYTES" else ("seconds", 300)
        integer(0, most, what)(value)
    elif name == "RELAYCLIENT":
        if not (value.isascii() and value.isprintable() and " " not in value):
            raise ValueError("RELAYCLIENT's value would not fit an address; write plain ASCII without blanks")
    elif name == "RBLSMTPD":
        if not (value.isascii() and value.isprintable() and len(value) <= 400):
            raise ValueError("RBLSMTPD's value cannot be said to a client; write up to 400 letters of ASCII")
    elif near := difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.8):
        raise ValueError(f"'{name}' is not a variable here; did you mean {near[0]}?")
