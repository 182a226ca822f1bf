"""What a subcommand of `openqmail` is, and the parser that all of them share.

Core's own commands are modules with these three names; an add-on registers an object with
them as an entry point of the group `openqmail.commands`.  A command prints its results,
returns an exit code (0 done, 1 none matched, 100 cannot, 111 later) and raises OpenqmailError
with a sentence where it cannot go on.
"""

import argparse
from typing import Any, NoReturn, Protocol

from openqmail.core.commands.codes import CANNOT, DONE, LATER, NONE
from openqmail.core.control.home import Home
from openqmail.core.values import HomeError

__all__ = ["CANNOT", "DONE", "LATER", "NONE", "Command", "Parser", "example", "needed"]


class Command(Protocol):
    """`help` is one line; `arguments` adds to the command's own parser."""

    @property
    def help(self) -> str: ...

    def arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, home: Home | None, args: argparse.Namespace) -> int: ...


class Parser(argparse.ArgumentParser):
    """argparse with qmail's exit code for misuse, and abbreviations refused."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(CANNOT, f"openqmail: {message}; see '{self.prog} --help'\n")


def needed(home: Home | None) -> Home:
    """The home of a command that cannot do without one."""
    if home is None:
        raise HomeError("no home is named; give --home DIR or set OPENQMAIL_HOME")
    return home


def example(parser: argparse.ArgumentParser, *lines: str) -> None:
    """Put examples below the help of a (sub)command."""
    parser.epilog = "example:\n" + "\n".join(f"  {line}" for line in lines)
