"""`openqmail toy`: a module with the names that every subcommand has."""

import argparse

from openqmail.core.control.home import Home

help = "say hello"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", default="everybody", help="whom to greet")


def run(home: Home | None, args: argparse.Namespace) -> int:
    print(f"the toy greets {args.to}")
    return 0
