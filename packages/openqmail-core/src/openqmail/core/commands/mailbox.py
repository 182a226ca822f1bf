"""`openqmail mailbox`: add and list the mailboxes of a home."""

import argparse
import sys

from openqmail.core.commands import boxes, system
from openqmail.core.commands.command import DONE, NONE, Parser, example, needed
from openqmail.core.commands.writing import all_or_nothing
from openqmail.core.control.accounts import find_accounts
from openqmail.core.control.home import Home
from openqmail.core.control.owner import as_owner
from openqmail.core.control.text import shown

help = "add mailboxes, or list them"


def arguments(parser: argparse.ArgumentParser) -> None:
    below = parser.add_subparsers(dest="verb", required=True, metavar="add|list", parser_class=Parser)
    add = below.add_parser("add", help="make mailboxes; a running service knows them at once")
    add.add_argument("names", nargs="+", metavar="NAME", help="the part of the address before the @")
    example(add, "openqmail --home mail mailbox add carol dave")
    listing = below.add_parser("list", help="print the mailboxes and where they are")
    listing.add_argument("names", nargs="*", metavar="NAME", help="only these")
    example(listing, "openqmail --home mail mailbox list")
    example(parser, "openqmail --home mail mailbox add carol")


def run(home: Home | None, args: argparse.Namespace) -> int:
    here = needed(home)
    with as_owner(here):
        return _add(here, args.names) if args.verb == "add" else _list(here, args.names)


def _add(home: Home, names: list[str]) -> int:
    if home.uid == 0:
        return _add_users(home, names)
    with all_or_nothing() as made:
        boxes.add(home, names, made)
    for name in names:
        print(f"made mailbox {name} at {home.mail}/{name}/Maildir/")
    return DONE


def _add_users(home: Home, names: list[str]) -> int:
    """In a home of root's mail goes to users of this host."""
    processes = [one.name for one in find_accounts(home).by_role().values()]
    users = [system.mail_user(name, processes) for name in names]
    for user in users:
        system.give_maildir(user)
    with all_or_nothing() as made:
        boxes.add(home, names, made, [line for user in users for line in system.lines_of(user)])
    for user in users:
        print(f"{user.pw_name} gets mail at {user.pw_dir}/Maildir/")
    return DONE


def _list(home: Home, names: list[str]) -> int:
    found = [(name, folder) for name, folder in boxes.listed(home) if not names or name in names]
    width = max((len(name) for name, _ in found), default=0)
    for name, folder in found:
        print(f"{name:{width}}  {folder}")
    for name in names:
        if name not in dict(found):
            print(f"openqmail: there is no mailbox '{shown(name)}'", file=sys.stderr)
    return DONE if found or not names else NONE
