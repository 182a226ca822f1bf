"""How much a report quotes of what other hosts and programs said.

A stranger's host may answer each of a thousand recipients with five thousand octets, and who gets the
report may be somebody else.  So all texts together have an allowance: what goes beyond it is cut to
its beginning, in which the reply code and the host stand.  Every recipient is named all the same.
"""

TOGETHER = 64 * 1024
"""Octets of all texts in one part of a report."""
BRIEF = 100
"""Octets of a text for which there is no room any more."""
_CUT = b" [...]\n"


def brief(text: bytes, most: int = BRIEF) -> bytes:
    """Its first `most` octets, and a mark where that is not all of it."""
    return text if len(text) <= most else text[:most].rstrip() + _CUT


class Allowance:
    """So many octets for all texts, and at most `each` for one; counts down."""

    def __init__(self, octets: int = TOGETHER, each: int | None = None) -> None:
        self._left = octets
        self._each = octets if each is None else each

    def take(self, text: bytes) -> bytes:
        """The text, as long as there is room; else its beginning."""
        text = brief(text, self._each)
        if len(text) > self._left:
            text = brief(text)
        self._left -= len(text)
        return text
