"""`openqmail run`: the service itself, in the foreground."""

import argparse

from openqmail.core.commands.command import example, needed
from openqmail.core.control.home import Home

help = "serve this home until a TERM; the log goes to stderr"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--salvage",
        action="store_true",
        help="set damaged parts of the queue aside and go on with what can be read",
    )
    example(
        parser,
        "openqmail --home mail run",
        "signals: TERM drains and ends, again: at once; HUP reloads; ALRM tries all now; USR2 upgrades",
    )


def run(home: Home | None, args: argparse.Namespace) -> int:
    from openqmail.core.service.run import run as serve  # noqa: PLC0415  # what only this command needs

    return serve(needed(home), salvage=args.salvage)
