"""Reads a server's replies (RFC 5321 section 4.2), strictly and within bounds.

A line ends with CRLF and nothing else, and has at most 2048 octets (512 would do, section
4.5.3.1.5); all lines of a reply have one code; a reply has at most 100 lines and 64 KiB.
What breaks these rules raises `MalformedReply`, after which the stream cannot be trusted.
"""

import re

from openqmail.core.values import Reply, TemporaryFailure

MAX_LINE = 2048
MAX_LINES = 100
MAX_REPLY = 64 * 1024
MAX_AHEAD = 4 * 1024 * 1024

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])([^\r\n]*))?\r\n")
_ENHANCED = re.compile(rb"([245]\.[0-9]{1,3}\.[0-9]{1,3}) ")

# What nearly all replies look like, each in one match: a reply of one line, with or without an
# enhanced code of its class; and the replies to a pipelined transaction that goes on.
_SINGLE = re.compile(
    rb"(?:(?:([245])[0-9][0-9]) (?:(\1\.[0-9]{1,3}\.[0-9]{1,3}) )?|3[0-9][0-9] )([^\r\n]*)\r\n"
)
_GO_AHEAD = re.compile(rb"(?:2[0-9][0-9] [^\r\n]{0,2000}\r\n)+354 [^\r\n]{0,2000}\r\n")


class MalformedReply(TemporaryFailure):
    """The peer does not speak SMTP as it should."""


class ReplyReader:
    """Bytes in, one reply at a time out; `buffer` is empty when all that was received is read."""

    __slots__ = ("_code", "_lines", "_position", "_size", "buffer")

    def __init__(self) -> None:
        self.buffer = b""
        self._position = 0
        self._code = b""
        self._lines: list[bytes] = []
        self._size = 0

    @property
    def empty(self) -> bool:
        """Nothing was received that is not yet read."""
        return not self.buffer and not self._lines

    def feed(self, data: bytes) -> bool:
        """Bytes from the peer; False when too many wait to be read."""
        if self.buffer:
            data = self.buffer[self._position :] + data
            self._position = 0
        self.buffer = data
        return len(data) <= MAX_AHEAD

    def clear(self) -> None:
        """Forget what was received."""
        self.buffer, self._position, self._lines = b"", 0, []

    def go_ahead(self, count: int) -> bool:
        """Take `count` replies at once, if just these are there and say yes to MAIL, each RCPT and DATA."""
        buffer = self.buffer
        if self._position or self._lines or buffer.count(b"\n") != count or not _GO_AHEAD.fullmatch(buffer):
            return False
        self.buffer = b""
        return True

    def next(self) -> Reply | None:
        """The next complete reply; None when more bytes are needed."""
        buffer, start = self.buffer, self._position
        found = None if self._lines else _SINGLE.match(buffer, start, start + MAX_LINE)
        if found is None:
            return self._next_lines()
        end = found.end()
        if end == len(buffer):
            self.buffer, self._position = b"", 0
        else:
            self._position = end
        _, enhanced, text = found.groups()
        return Reply(int(buffer[start : start + 3]), enhanced or b"", (text,))

    def _next_lines(self) -> Reply | None:
        """The same by the full grammar, line by line."""
        while buffer := self.buffer:
            start = self._position
            end = buffer.find(b"\n", start, start + MAX_LINE) + 1
            if not end:
                if len(buffer) - start >= MAX_LINE:
                    raise MalformedReply("the peer sent a reply with a line over 2048 octets")
                return None
            if end == len(buffer):
                self.buffer, self._position = b"", 0
            else:
                self._position = end
            if self._take(buffer[start:end]):
                lines, self._lines = self._lines, []
                return _reply(int(self._code), lines)
        return None

    def _take(self, line: bytes) -> bool:
        """Keep a line; True when it is the last of its reply."""
        found = _LINE.fullmatch(line)
        if not found:
            raise MalformedReply("the peer sent a line that is no SMTP reply")
        code, mark, text = found.groups()
        if not self._lines:
            self._code, self._size = code, 0
        elif code != self._code:
            raise MalformedReply("the peer sent a reply whose lines have different codes")
        self._lines.append(text or b"")
        self._size += len(line)
        if len(self._lines) > MAX_LINES or self._size > MAX_REPLY:
            raise MalformedReply("the peer sent a reply without end")
        return mark != b"-"


def _reply(code: int, lines: list[bytes]) -> Reply:
    """The enhanced code is told apart where every line has the same one of the reply's class
    (RFC 2034 section 4), so that `encode` gives back what came."""
    found = _ENHANCED.match(lines[0])
    if found is None:
        return Reply(code, b"", tuple(lines))
    enhanced = found.group(1)
    if enhanced[0] != 48 + code // 100 or any(not _has(line, enhanced) for line in lines):
        return Reply(code, b"", tuple(lines))
    return Reply(code, enhanced, tuple(line[len(enhanced) + 1 :] for line in lines))


def _has(line: bytes, enhanced: bytes) -> bool:
    return line.startswith(enhanced + b" ")
