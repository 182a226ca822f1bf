"""A line of control/dnsbl: a list of clients that is asked by DNS (RFC 5782), and what its word weighs.

Pure."""

import re

import msgspec

from openqmail.core.control.text import integer, shown

_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})+")
_OCTET = re.compile(r"([0-9]{1,3})(?:-([0-9]{1,3}))?")
_WEIGHT = re.compile(r"-?[0-9]{1,4}")

Octets = tuple[tuple[int, int], ...]
"""Of each of four numbers the lowest and the highest."""

ANY: Octets = ((127, 127), (0, 255), (0, 255), (0, 255))


class Blocklist(msgspec.Struct, frozen=True):
    """`codes`: the answers that count; `weight`: what they add to a client's score, less than nothing for
    a list of good ones; `text`: what a client is told, empty for what the list itself says."""

    zone: bytes
    codes: Octets = ANY
    weight: int = 1
    text: bytes = b""

    def counts(self, answer: str) -> bool:
        """Whether an address that the list answered says that the client is on it.

        127.255.255.0/24 says that the list does not serve us, in Spamhaus's manner, and never counts."""
        numbers = [int(number) for number in answer.split(".")]
        if numbers[:3] == [127, 255, 255]:
            return False
        return all(low <= number <= high for number, (low, high) in zip(numbers, self.codes, strict=True))


def blocklist(line: str) -> Blocklist:
    """`ZONE[=CODES][:WEIGHT] [TEXT]`.  Raises ValueError."""
    first, _, text = line.partition(" ")
    named, colon, weight = first.partition(":")
    zone, equals, codes = named.partition("=")
    zone = zone.lower().removesuffix(".")
    if len(zone) > 180 or not _NAME.fullmatch(zone):
        raise ValueError(f"'{shown(zone)}' is not the zone of a list; write one like zen.spamhaus.org")
    if colon and (not _WEIGHT.fullmatch(weight) or not int(weight)):
        raise ValueError(
            f"'{shown(weight)}' is no weight; write a number like 2, or -1 for a list of good ones"
        )
    text = text.strip()
    if not (text.isascii() and text.isprintable() and len(text) <= 200):
        raise ValueError("has a text that SMTP cannot carry here; write up to 200 letters of ASCII")
    return Blocklist(
        zone=zone.encode(),
        codes=_codes(codes) if equals else ANY,
        weight=int(weight) if colon else 1,
        text=text.encode(),
    )


def _codes(text: str) -> Octets:
    parts = [_OCTET.fullmatch(part) for part in text.split(".")]
    ranges = tuple((int(part[1]), int(part[2] or part[1])) for part in parts if part is not None)
    if len(parts) != 4 or len(ranges) != 4 or not all(low <= high <= 255 for low, high in ranges):
        raise ValueError(f"'{shown(text)}' is no answer of a list; write one like 127.0.0.2 or 127.0.0.2-11")
    return ranges


def score(text: str) -> int:
    """How much is too much."""
    return integer(1, 9999, "a score")(text)
