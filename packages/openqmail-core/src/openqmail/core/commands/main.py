"""`openqmail`: the one command for people.  Finds the home and the subcommand, and runs it.

Core's subcommands are in `COMMANDS`; those of installed add-ons are looked for only when the
word is none of core's, or when all are listed.  An error is one sentence on stderr.
"""

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from openqmail.core.__about__ import __version__
from openqmail.core.commands import check, control, init, mailbox, queue, run, status, upgrade
from openqmail.core.commands.command import CANNOT, DONE, LATER, Command, Parser, example
from openqmail.core.control import extensions
from openqmail.core.control.home import Home
from openqmail.core.values import HomeError, OpenqmailError, TemporaryFailure

COMMANDS: dict[str, Command] = {
    "init": init,
    "run": run,
    "upgrade": upgrade,
    "status": status,
    "queue": queue,
    "mailbox": mailbox,
    "control": control,
    "check": check,
}

GROUP = "openqmail.commands"

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
    chosen = _chosen(words)
    commands = dict(COMMANDS)
    if chosen not in COMMANDS:
        commands |= _added(None if chosen is None else chosen)
    parser = build_parser(commands)
    if not words:
        parser.print_help(sys.stderr)
        return CANNOT
    args = parser.parse_args(words)
    if args.command is None:
        parser.error("no command is named")
    try:
        code = commands[args.command].run(_home(args), args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever reads has had enough: `openqmail queue list | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def build_parser(commands: dict[str, Command]) -> Parser:
    """The whole command line; the manual page is made from it too."""
    parser = Parser(prog="openqmail", description="A mail transfer agent in the tradition of qmail.")
    parser.add_argument("--home", metavar="DIR", help="the home to work on (else OPENQMAIL_HOME)")
    parser.add_argument("--version", action="version", version=f"openqmail {__version__}")
    example(parser, "openqmail init mail --me a.example --user alice", "openqmail --home mail run")
    below = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, command in commands.items():
        text = command.help
        one = below.add_parser(name, help=text, description=text[:1].upper() + text[1:] + ".")
        command.arguments(one)
    return parser


def _chosen(words: list[str]) -> str | None:
    """The subcommand's name: the first word that is neither an option nor --home's value."""
    rest = iter(words)
    for word in rest:
        if word == "--home":
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return None


def _added(name: str | None) -> dict[str, Command]:
    """The command of this name that an add-on brings, or all of them.

    One that cannot be loaded stops only those who name it.
    """
    if name is not None:
        return {name: extensions.load(GROUP, name)} if name in extensions.registered(GROUP) else {}
    found: dict[str, Command] = {}
    for one in extensions.registered(GROUP):
        if one in COMMANDS:
            continue
        try:
            found[one] = extensions.load(GROUP, one)
        except OpenqmailError as error:
            print(f"openqmail: {error}", file=sys.stderr)
    return found


def _home(args: argparse.Namespace) -> Home | None:
    if args.home is None and not os.environ.get("OPENQMAIL_HOME"):
        return None
    try:
        return Home.find(args.home, os.environ)
    except HomeError:
        if args.command == "init":  # which may be about to make just this one
            return None
        raise


def _failed(error: object, code: int) -> int:
    text = error
    if isinstance(error, OSError):
        place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        text = f"{place}: {error.strerror}" if place else error.strerror or error
    line = "".join(letter if letter.isprintable() else "?" for letter in str(text))
    print(f"openqmail: {line}", file=sys.stderr)
    return code
