"""The command line of `openqmail`: finds the home and the subcommand, and runs it.

Core's subcommands are in `COMMANDS`; those of installed add-ons are looked for only when the
word is none of core's, or when all are listed.
"""

import argparse
import importlib
import os
import sys

from openqmail.core.__about__ import __version__
from openqmail.core.commands.command import CANNOT, DONE, Command, Parser, example
from openqmail.core.control import extensions
from openqmail.core.control.home import Home
from openqmail.core.values import HomeError, OpenqmailError

COMMANDS = ("init", "run", "upgrade", "status", "queue", "why", "mailbox", "user", "control", "tls", "check")
"""Core's, each a module of this folder."""

GROUP = "openqmail.commands"


def run(words: list[str]) -> int:
    """The exit code.  Raises OpenqmailError and OSError."""
    chosen = _chosen(words)
    # One is imported alone: a service has nothing of the others in its memory.
    commands = core_commands(chosen) if chosen in COMMANDS else core_commands() | _added(chosen)
    parser = build_parser(commands)
    if not words:
        parser.print_help(sys.stderr)
        return CANNOT
    if chosen in COMMANDS and _names_home(words[words.index(chosen) + 1 :]):
        parser.error(f"--home goes before the command: openqmail --home DIR {chosen}")
    args, surplus = parser.parse_known_args(words)
    if surplus:  # which may be secret, where the command has a sentence of its own
        parser.error(getattr(args, "surplus", f"unrecognized arguments: {' '.join(surplus)}"))
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


def core_commands(*names: str) -> dict[str, Command]:
    """These, or all, by name."""
    modules = {name: f"openqmail.core.commands.{name}" for name in names or COMMANDS}
    return {name: importlib.import_module(module) for name, module in modules.items()}


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
    """The subcommand's name: the first word, but for --home and its value; None where another option
    comes first, which asks for something of all of them."""
    rest = iter(words)
    for word in rest:
        if word == "--home":
            next(rest, None)
        elif not word.startswith("--home="):
            return None if word.startswith("-") else word
    return None


def _names_home(words: list[str]) -> bool:
    """Whether --home is there as an option."""
    options = words[: words.index("--")] if "--" in words else words
    return any(word == "--home" or word.startswith("--home=") for word in options)


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
