"""What can be seen in the header of a stored message (lines end with LF) without parsing it.

A header ends at the first empty line (RFC 5322 section 2.1).  Nothing here unfolds lines or
looks inside fields; a header that is cut off is scanned as far as it is there.
"""

from openqmail.core.values import Body


def beginning(body: Body, most: int) -> bytes:
    """The first octets of a message, with all of its header where that has no more than `most`.  Blocks
    where the message is not in memory; raises what reading it does."""
    if body.data is not None:
        return body.data
    head = b""
    for chunk in body.chunks():
        head += chunk
        if len(head) > most or header_end(head) < len(head):
            break
    return head


def header_end(message: bytes) -> int:
    """The offset of the empty line that ends the header; the length when there is none."""
    if message.startswith(b"\n"):
        return 0
    end = message.find(b"\n\n")
    return len(message) if end < 0 else end + 1


def hops(message: bytes) -> int:
    """How often the message was handed on: its Received and Delivered-To fields (RFC 5321 section 6.3)."""
    header = b"\n" + message[: header_end(message)].lower()
    return header.count(b"\nreceived:") + header.count(b"\ndelivered-to:")


def has_line(message: bytes, line: bytes) -> bool:
    """Whether the header has exactly this line; `line` ends with its newline.

    Not another case, not another blank: qmail-local's test for a loop.
    """
    if line not in message:  # what nearly every message answers, in one search
        return False
    header = b"\n" + message[: header_end(message)]
    return b"\n" + line in header
