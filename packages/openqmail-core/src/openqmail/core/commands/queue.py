"""`openqmail queue`: look at the queue, and have it tried now.

The running service is asked; while none runs, list and show read the journal themselves.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from openqmail.core.commands import client
from openqmail.core.commands.command import DONE, NONE, Parser, example, needed
from openqmail.core.commands.status import in_units, totals
from openqmail.core.control.home import Home
from openqmail.core.control.owner import as_owner
from openqmail.core.control.text import shown

help = "list the queued messages, show one, or try all now"


def arguments(parser: argparse.ArgumentParser) -> None:
    below = parser.add_subparsers(dest="verb", metavar="list|show|flush", parser_class=Parser)
    listing = below.add_parser("list", help="print every message, oldest first (the same as no word at all)")
    listing.add_argument("--json", action="store_true", help="print a JSON object a line")
    example(listing, "openqmail --home mail queue list --json")
    show = below.add_parser("show", help="print messages as they are stored, by the numbers of the log")
    show.add_argument("numbers", metavar="N", nargs="+", type=_number, help="a message's number")
    example(show, "openqmail --home mail queue show 17")
    flush = below.add_parser("flush", help="have every message tried now that waits")
    example(flush, "openqmail --home mail queue flush")
    example(parser, "openqmail --home mail queue")


def run(home: Home | None, args: argparse.Namespace) -> int:
    from openqmail.core.commands import offline  # noqa: PLC0415  # before root becomes the owner

    here = needed(home)
    with as_owner(here):
        if args.verb == "flush":
            count = client.flush(here)
            print(f"{count} message{'s' * (count != 1)} that waited will be tried now")
            return DONE
        if args.verb == "show":
            return _show(here, args.numbers, offline.show)
        return _list(_messages(here, offline.messages), getattr(args, "json", False))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise argparse.ArgumentTypeError(
            f"'{shown(text)}' is not a message's number; 'queue list' shows them"
        )
    return int(text)


def _messages(home: Home, offline: Callable[[Home], Iterator[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    try:
        yield from client.messages(home)
    except client.Stopped:
        yield from offline(home)


def _show(home: Home, numbers: list[int], offline: Callable[[Home, int], Iterator[bytes] | None]) -> int:
    code = DONE
    for number in numbers:
        try:
            chunks: Iterable[bytes] | None = _begun(client.show(home, number))
        except client.Refused:
            chunks = None
        except client.Stopped:
            chunks = offline(home, number)
        if chunks is None:
            print(
                f"openqmail: there is no message {number} in the queue; 'queue list' shows them",
                file=sys.stderr,
            )
            code = NONE
            continue
        sys.stdout.flush()
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
    return code


def _begun(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same chunks, after the first one has been asked for: errors come here, not later."""
    first = next(chunks, b"")

    def all_of_them() -> Iterator[bytes]:
        yield first
        yield from chunks

    return all_of_them()


def _list(messages: Iterable[dict[str, Any]], as_json: bool) -> int:
    if as_json:
        for one in messages:
            print(json.dumps(one))
        return DONE
    sums = {"messages": 0, "recipients": 0, "deferred": 0, "held": 0, "bytes": 0}
    for one in messages:
        print(_for_people(one))
        sums["messages"] += 1
        sums["recipients"] += sum(rcpt["state"] == "todo" for rcpt in one["recipients"])
        sums["bytes"] += one["size"]
        if one["state"] in sums:
            sums[one["state"]] += 1
    print(f"queue: {totals(sums)}")
    return DONE


def _for_people(one: dict[str, Any]) -> str:
    size, sender = in_units(one["size"]), _clean(one["sender"])
    lines = [f"#{one['id']}  {one['state']}  {size}  {_when(one['born'])}  from <{sender}>"]
    for recipient in one["recipients"]:
        text = f"    {recipient['channel']:6}  {recipient['state']}  {_clean(recipient['address'])}"
        if recipient["state"] == "todo" and recipient["attempts"]:
            text += f"  ({recipient['attempts']} attempts, next {_when(recipient['next'])})"
        lines.append(text)
        if recipient["last"]:
            lines.append(f"            {_clean(recipient['last'].strip())}")
    return "\n".join(lines)


def _when(seconds: int | None) -> str:
    return time.strftime("%d %b %Y %H:%M:%S UTC", time.gmtime(seconds)) if seconds else "now"


def _clean(text: str) -> str:
    """On one line, and nothing that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "/" if letter == "\n" else "?" for letter in text)
