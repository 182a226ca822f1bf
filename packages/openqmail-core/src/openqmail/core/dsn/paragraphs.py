"""What `bounce/N` says, taken apart: qmail's paragraphs, whoever of the family wrote them.

A paragraph is `<address>:`, the lines of its report, and an empty line; none is inside of it, as
whoever writes one makes it `/`.  What has no such first line belongs to the paragraph before.
Pure; nothing is refused.
"""

import msgspec


class Paragraph(msgspec.Struct, frozen=True, gc=False):
    """`address` as it was written, a line end in it as `_`; `text` ends with a newline, or is empty."""

    address: bytes
    text: bytes


def paragraphs(failures: bytes) -> list[Paragraph]:
    """In their order; empty where nothing is one."""
    found: list[Paragraph] = []
    for block in failures.split(b"\n\n"):
        first, _, text = block.strip(b"\n").partition(b"\n")
        if first.startswith(b"<") and first.endswith(b">:"):
            found.append(Paragraph(first[1:-2], text + b"\n" if text else b""))
        elif found and first:
            before = found.pop()
            rest = b"\n".join((first, text)) if text else first
            found.append(Paragraph(before.address, b"%s%s\n" % (before.text, rest)))
    return found
