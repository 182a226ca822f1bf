"""What qmailanalog's matchup makes of a log, by its manual and its rules, in words of our own.

It looks at the word behind the time.  `m` and `d` lines are its results; warnings and alerts are
passed on, and what it does not know is passed on with `? ` in front, which its successors (zoverall, zsuids,
...) pass over.
"""

import re
from typing import Any

PASSED_OVER = {b"status:", b"number", b"local", b"remote"}
FORGETS = {b"running", b"exiting"}
KNOWN = {b"new", b"info", b"starting", b"delivery", b"end", b"extra"} | PASSED_OVER | FORGETS
"""First words that are not free for lines of other kinds; but for `warning:` and `alert:`."""

_RESULTS = ((b"succ", b"k"), (b"fail", b"d"), (b"defer", b"z"), (b"report", b"z"))


class Matchup:
    """Feed it lines with a time in front; `out` is what it prints."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.messages: dict[int, dict[str, Any]] = {}
        self.deliveries: dict[int, tuple[int, bytes, bytes]] = {}

    def feed(self, line: bytes) -> None:
        field = re.split(rb"[ \t]+", line)
        field += [b""] * (20 - len(field))
        word = field[1]
        if word in (b"warning:", b"alert:"):
            self.out.append(line)
        elif word == b"new":
            self.messages.pop(_number(field[3]), None)
        elif word == b"info":
            self.messages[_number(field[3])] = {
                "birth": field[0],
                "bytes": _number(field[5]),
                "sender": field[7].lower(),
                "qp": _number(field[9]),
                "uid": _number(field[11]),
                "counts": dict.fromkeys((b"k", b"d", b"z"), 0),
            }
        elif word == b"starting":
            where = field[7] + b"." + field[8].lower()
            self.deliveries[_number(field[3])] = _number(field[5]), where, field[0]
        elif word == b"delivery":
            self._delivered(field)
        elif word == b"end":
            self._ended(field)
        elif word in FORGETS:
            self.deliveries.clear()
        elif word not in KNOWN:
            self.out.append(b"? " + line)

    def results(self) -> list[bytes]:
        """Its lines about messages and deliveries."""
        return [line for line in self.out if line[:2] in (b"m ", b"d ")]

    def _delivered(self, field: list[bytes]) -> None:
        found = self.deliveries.pop(_number(field[2]), None)
        if found is None:
            return
        number, where, start = found
        letter = next((letter for begin, letter in _RESULTS if field[3].startswith(begin)), b"?")
        message = self.messages.get(number)
        if message is None:
            facts = (b"d", letter, start, start, field[0], b"0 ?", where, b"? ?", field[4])
        else:
            message["counts"][letter] += 1
            origin = b"%d %d" % (message["qp"], message["uid"])
            size = b"%d %b" % (message["bytes"], message["sender"])
            facts = (b"d", letter, message["birth"], start, field[0], size, where, origin, field[4])
        self.out.append(b" ".join(facts))

    def _ended(self, field: list[bytes]) -> None:
        message = self.messages.pop(_number(field[3]), None)
        if message is not None:
            counts = b"%d %d %d" % tuple(message["counts"][letter] for letter in (b"k", b"d", b"z"))
            origin = b"%d %d" % (message["qp"], message["uid"])
            size = b"%d %b %b" % (message["bytes"], counts, message["sender"])
            self.out.append(b" ".join((b"m", message["birth"], field[0], size, origin)))


def matchup(log: list[bytes]) -> Matchup:
    """Of lines without a time: each gets the number of its place for one."""
    reader = Matchup()
    for at, line in enumerate(log):
        reader.feed(b"%d %b" % (at, line))
    return reader


def _number(text: bytes) -> int:
    found = re.match(rb"[0-9]*", text)
    return int(found[0] or 0) if found else 0
