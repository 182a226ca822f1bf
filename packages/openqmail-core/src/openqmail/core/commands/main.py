"""`openqmail`: the one command for people.  An error is one sentence on stderr.

`run` as services are started is read here.  What else may be said needs argparse, which each process
of a service would have in its memory for good.
"""

import errno
import os
import sys
from collections.abc import Sequence

from openqmail.core.commands.codes import CANNOT, LATER
from openqmail.core.control.home import Home
from openqmail.core.values import OpenqmailError, TemporaryFailure

PASSING = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO),
    *(errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE),
)
"""Errors of the system's that may be over when it is tried again."""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        return _run(words)
    except TemporaryFailure as error:
        return _failed(error, LATER)
    except OpenqmailError as error:
        return _failed(error, CANNOT)
    except OSError as error:
        return _failed(error, LATER if error.errno in PASSING else CANNOT)
    except KeyboardInterrupt:
        return _failed("interrupted", LATER)


def _run(words: list[str]) -> int:
    home, rest = _home(words)
    if rest in (["run"], ["run", "--salvage"]):
        from openqmail.core.service.run import run as serve  # noqa: PLC0415  # what only a service needs

        return serve(Home.find(home, os.environ), salvage=len(rest) > 1)
    from openqmail.core.commands import line  # noqa: PLC0415

    return line.run(words)


def _home(words: list[str]) -> tuple[str | None, list[str]]:
    """The home, if the first words name one, and the other words."""
    match words:
        case ["--home", home, *rest] if not home.startswith("-"):
            return home, rest
        case [first, *rest] if first.startswith("--home="):
            return first.removeprefix("--home="), rest
    return None, words


def _failed(error: object, code: int) -> int:
    text = error
    if isinstance(error, OSError):
        place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        text = f"{place}: {error.strerror}" if place else error.strerror or error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text = f"{text}; make room there, and try again"
    line = "".join(letter if letter.isprintable() else "?" for letter in str(text))
    print(f"openqmail: {line}", file=sys.stderr)
    return code
