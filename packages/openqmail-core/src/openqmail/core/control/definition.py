"""What is said of a control file in its declaration."""

from collections.abc import Callable

import msgspec

from openqmail.core.control.text import ControlText, integer, value


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """One control file.

    `default` is the text that holds when there is no such file; the word `me` alone means
    the content of `control/me`, and None that the file has to be there.  `parse` makes the
    value and records what is wrong in the text that it is given.
    """

    name: str
    kind: str
    default: str | None
    readers: tuple[str, ...]
    explanation: str
    example: str
    parse: Callable[[ControlText], object]
    binary: bool = False
    """It is no text: `parse` is given its bytes, in `ControlText.content`."""
    shown: Callable[[str], str] = str
    """A line of it as it may be listed: without what is secret."""


def number(
    name: str,
    default: int,
    low: int,
    high: int,
    what: str,
    *,
    readers: tuple[str, ...],
    explanation: str,
    example: int = 0,
) -> Definition:
    """A file of one number of `what`."""
    return Definition(
        name=name,
        kind="a number",
        default=str(default),
        readers=readers,
        explanation=explanation,
        example=str(example or default),
        parse=value(integer(low, high, what)),
    )
