"""Writes the table of every figure into docs/metrics.md, from service/figures.py, between its two marks.

`python tests/docs/figures.py`; `stale` is for check.py.
"""

from collections.abc import Iterable
from pathlib import Path

from openqmail.core.send.tally import BOUNDS
from openqmail.core.service.figures import FIGURES, PREFIX, SUPERVISED, Figure

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
BEGIN = "<!-- begin: made by tests/docs/figures.py from openqmail/core/service/figures.py -->\n"
END = "<!-- end -->\n"


def table() -> str:
    lines = ["| name | kind | labels | what | from |", "| --- | --- | --- | --- | --- |"]
    for each in (*SUPERVISED, *FIGURES):
        lines.append(f"| `{PREFIX}{each.name}` | {each.kind} | {labels(each)} | {each.help} | {each.role} |")
    return "\n".join(lines) + "\n"


def labels(figure: Figure) -> str:
    if figure.kind == "histogram":
        return f"`le`: {listed(map(str, BOUNDS))}"
    found = []
    for at, label in enumerate(figure.labels):
        values = dict.fromkeys(row[at] for row in figure.rows if row)
        found.append(f"`{label}`: {listed(values)}" if values else f"`{label}`")
    return "; ".join(found) or "\N{EN DASH}"


def listed(values: Iterable[str]) -> str:
    return ", ".join(values)


def current(text: str) -> str:
    """The page as it should be."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{PAGE}: has lost the marks between which the table stands")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def stale() -> bool:
    text = PAGE.read_text()
    return text != current(text)


if __name__ == "__main__":
    PAGE.write_text(current(PAGE.read_text()))
