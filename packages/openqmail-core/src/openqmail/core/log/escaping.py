"""How bytes that may be a stranger's are written.

In lines of the log as qmail-send does it: a newline becomes `/`; a blank, `%`, and whatever is not
printable ASCII becomes `_`.  So a text stays one word of one line, whatever a stranger put into it.
"""

SAFE = bytes(
    ord("/") if code == 0x0A else code if 0x20 < code < 0x7F and code != ord("%") else ord("_")
    for code in range(256)
)
"""A table for `bytes.translate`."""


def escape(text: bytes) -> bytes:
    """`text`, as it is written."""
    return text.translate(SAFE)


def readable(raw: bytes) -> str:
    r"""Bytes as text: UTF-8, and what is none as \xNN.  Control characters stay what they are."""
    return raw.decode("utf-8", "backslashreplace")
