"""Writes the table of tests/support/forbidden.py into docs/security.md, between its two marks.

`python tests/docs/security.py`; `stale` is for check.py.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import forbidden  # noqa: E402  # found by the path above

PAGE = ROOT / "docs" / "security.md"
BEGIN = "<!-- begin: made by tests/docs/security.py from tests/support/forbidden.py -->\n"
END = "<!-- end -->\n"


def current(text: str) -> str:
    """The page as it should be."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{PAGE}: has lost the marks between which the table stands")
    return f"{before}{BEGIN}\n{forbidden.page()}\n{END}{after}"


def stale() -> bool:
    text = PAGE.read_text()
    return text != current(text)


if __name__ == "__main__":
    PAGE.write_text(current(PAGE.read_text()))
