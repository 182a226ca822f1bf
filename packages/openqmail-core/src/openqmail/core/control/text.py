"""The text of a control file, and how lines become values (qmail-control(5)).

A file of one value has it in its first line; in a list, empty lines and lines that begin
with `#` are passed over.  Trailing blanks never count.  A parser of one line raises
ValueError with a sentence; it is recorded here with file and line, and reading goes on, so
that all problems of a file are found in one pass.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from openqmail.core.values import ControlError

T = TypeVar("T")

SIZE = 64 * 1024 * 1024
"""Bytes that a control file may have."""

Line = Callable[[str], T]
"""A parser of one line."""


class ControlText:
    """One control file's content, and the problems that were found in it."""

    def __init__(self, file: str, content: bytes, *, binary: bool = False, given: bool = True) -> None:
        """`binary`: it has no lines, `content` is all that there is.  `given`: the file is there; else
        `content` is what holds without it."""
        self.file = file
        self.content = content
        self.given = given
        self.problems: list[ControlError] = []
        if binary:
            self._lines = []
            return
        try:
            self._lines = content.decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            self._lines = []
            self.problem(content.count(b"\n", 0, error.start) + 1, "is not UTF-8; write it in UTF-8 or ASCII")

    def problem(self, line: int, why: str) -> None:
        self.problems.append(ControlError(self.file, line, why))

    def first(self) -> str:
        return self._lines[0].rstrip() if self._lines else ""

    def all(self) -> list[str]:
        """Every line, without the blanks at its end; nothing for the end of the last one."""
        lines = [line.rstrip() for line in self._lines]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def entries(self) -> Iterator[tuple[int, str]]:
        """The lines of a list, with their numbers."""
        for number, line in enumerate(self._lines, 1):
            text = line.rstrip()
            if text and text[0] != "#":
                yield number, text

    def parse(self, number: int, text: str, parse: Line[T]) -> T | None:
        """The value of a line, or None after recording why there is none."""
        try:
            if text[:1].isspace():
                raise ValueError("begins with a blank, which would count; remove it")
            if not text.isprintable() and "\t" not in text:
                raise ValueError("has a character that cannot be printed; remove it")
            return parse(text)
        except ValueError as error:
            self.problem(number, str(error))
            return None


def value(parse: Line[T]) -> Callable[[ControlText], T | None]:
    """A file of one value."""

    def read(text: ControlText) -> T | None:
        first = text.first()
        if not first:
            text.problem(1, "is empty; write the value into its first line, or remove the file")
            return None
        return text.parse(1, first, parse)

    return read


def members(parse: Line[tuple[T, ...]]) -> Callable[[ControlText], frozenset[T]]:
    """A list whose order means nothing; a line may stand for several spellings."""

    def read(text: ControlText) -> frozenset[T]:
        found: set[T] = set()
        for number, line in text.entries():
            found.update(text.parse(number, line, parse) or ())
        return frozenset(found)

    return read


def sequence(
    parse: Line[T],
    same: Callable[[T], object] = lambda item: item,
    numbered: Callable[[T, int], T] = lambda item, number: item,
) -> Callable[[ControlText], tuple[T, ...]]:
    """A list in its order; the same line twice is a problem.  `same`: what of it must not come twice;
    `numbered`: it with the number of its line, where that is to be kept."""

    def read(text: ControlText) -> tuple[T, ...]:
        found: dict[object, int] = {}
        items: list[T] = []
        for number, line in text.entries():
            item = text.parse(number, line, parse)
            if item is None:
                continue
            key = same(item)
            if key in found:
                text.problem(number, f"says the same as line {found[key]}; remove one of them")
                continue
            found[key] = number
            items.append(numbered(item, number))
        return tuple(items)

    return read


def mapping(parse: Line[tuple[tuple[bytes, ...], T]]) -> Callable[[ControlText], dict[bytes, T]]:
    """A list of keys and values; two values for one key are a problem.

    qmail takes the last of them without a word.
    """

    def read(text: ControlText) -> dict[bytes, T]:
        found: dict[bytes, tuple[T, int]] = {}
        for number, line in text.entries():
            entry = text.parse(number, line, parse)
            if entry is None:
                continue
            keys, meant = entry
            for key in keys:
                if key in found and found[key][0] != meant:
                    name = key.decode() or "the empty key"
                    text.problem(
                        number,
                        f"{name} has another value in line {found[key][1]}; keep the one that is meant",
                    )
                found.setdefault(key, (meant, number))
        return {key: meant for key, (meant, _) in found.items()}

    return read


def integer(low: int, high: int, what: str) -> Callable[[str], int]:
    """A number of `what`, within limits."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise ValueError(f"'{shown(text)}' is not a number; write {what} in digits alone")
        if not low <= (number := int(text)) <= high:
            raise ValueError(f"{number} is out of range; write {what} from {low} to {high}")
        return number

    return parse


def shown(text: str) -> str:
    """A piece of a line as an error may quote it: short and printable."""
    cut = text if len(text) <= 60 else text[:57] + "..."
    return "".join(letter if letter.isprintable() else "?" for letter in cut)


def nearest(word: str, known: Iterable[str], cutoff: float) -> str | None:
    """What may have been meant; `cutoff` (0 to 1): how alike it has to be."""
    import difflib  # noqa: PLC0415  # only a mistake needs it, and every process would have it in memory

    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)), None)
