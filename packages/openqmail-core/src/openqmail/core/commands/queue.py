"""`openqmail queue`: look at the queue, and act on messages.

The running service is asked.  While none runs, list and show read the queue themselves, and
verbs open it as a service would; the service's next start goes on from there.  What destroys
mail asks first.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from openqmail.core.commands import client
from openqmail.core.commands.command import CANNOT, DONE, LATER, NONE, Parser, example, needed
from openqmail.core.commands.status import in_units, totals
from openqmail.core.control.home import Home
from openqmail.core.control.owner import as_owner
from openqmail.core.control.text import shown
from openqmail.core.ports import ABSENT, Acted, Missed
from openqmail.core.values import HomeError, OpenqmailError, TemporaryFailure

help = "list, show, hold, release, retry, delete or bounce queued messages; try all now; settle the queue"

_DECODER = msgspec.json.Decoder(dict[str, Any])

DAY = 86_400

GIVEN_BACK = "The administrator gave this message back. (#5.0.0)"


class Verb(NamedTuple):
    """`done`, `offline`: what has become of messages, while a service runs and while none does;
    `asks`: what is asked before."""

    help: str
    example: str
    done: str
    offline: str
    asks: str = ""


VERBS = {
    "hold": Verb(
        "keep messages back until they are released", 'hold 17 --reason "looks odd"', "held", "held"
    ),
    "release": Verb("go on with messages that are held", "release 17", "released", "released"),
    "retry": Verb(
        "try messages now", "retry 17 18", "will be tried now", "will be tried when the service starts"
    ),
    "delete": Verb(
        "remove messages for good; nobody is told",
        "delete 17 18 --yes",
        "deleted",
        "deleted",
        "Delete {which} from {senders}, telling nobody?",
    ),
    "bounce": Verb(
        "give messages back to their senders as undeliverable",
        "bounce 17 --yes",
        "given back",
        "will be given back when the service starts",
        "Give {which} back to {senders}?",
    ),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, as with it behind the word")
    words = ["list", "show", *VERBS, "flush", "settle"]
    below = parser.add_subparsers(dest="verb", metavar="|".join(words), parser_class=Parser)
    listing = below.add_parser("list", help="print every message, oldest first (the same as no word at all)")
    _json(listing, "print a JSON object a line")
    example(listing, "openqmail --home mail queue list --json")
    show = below.add_parser("show", help="print messages as they are stored, by the numbers of the log")
    _numbers(show)
    example(show, "openqmail --home mail queue show 17")
    for name, verb in VERBS.items():
        one = below.add_parser(name, help=verb.help)
        _numbers(one)
        if name == "hold":
            one.add_argument("--reason", metavar="TEXT", default="", help="why, for those who list the queue")
        if name == "bounce":
            one.add_argument("--text", metavar="TEXT", default=GIVEN_BACK, help="what the sender is told")
        if verb.asks:
            one.add_argument("--yes", action="store_true", help="do not ask")
        _json(one, "print what was done as one JSON object")
        example(one, f"openqmail --home mail queue {verb.example}")
    flush = below.add_parser("flush", help="have every message tried now that waits")
    _json(flush, "print one JSON object")
    example(flush, "openqmail --home mail queue flush")
    settle = below.add_parser(
        "settle",
        help="while no service runs, move all mail into qmail's own files; exit 0: a qmail can have it",
    )
    _json(settle, "print one JSON object")
    example(settle, "openqmail --home mail queue settle")
    example(parser, "openqmail --home mail queue", "openqmail --home mail queue delete 17 18")


def _json(parser: argparse.ArgumentParser, text: str) -> None:
    """What was said before the word stays said."""
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=text)


def _numbers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("numbers", metavar="N", nargs="+", type=number, help="a message's number")


def number(text: str) -> int:
    """A message, as the log and the list name it."""
    digits = text.removeprefix("#")  # as the list has it
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19 and int(digits) < 2**63):
        raise argparse.ArgumentTypeError(
            f"'{shown(text)}' is not a message's number; 'queue list' shows them"
        )
    return int(digits)


class Queue(Protocol):
    """What does it: `client`, by the running service, or `offline`, by itself."""

    def messages(self, home: Home, numbers: Sequence[int]) -> Iterator[bytes]:
        """JSON lines, one or several at a time."""
        ...

    def show(self, home: Home, number: int) -> Iterator[bytes]: ...

    def act(
        self, home: Home, verb: str, numbers: Sequence[int], keys: Sequence[str] = (), **more: str
    ) -> Acted: ...

    def flush(self, home: Home) -> int: ...

    def settle(self, home: Home) -> tuple[int, int, int]: ...


def run(home: Home | None, args: argparse.Namespace) -> int:
    try:
        code = _run(needed(home), args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _failure(error) from error


def _run(home: Home, args: argparse.Namespace) -> int:
    try:
        with as_owner(home):
            return _do(home, args, client, running=True)
    except client.Stopped:
        from openqmail.core.commands import offline  # noqa: PLC0415  # which a running service spares

        with as_owner(home):
            return _do(home, args, offline, running=False)


def _failure(error: OSError) -> OpenqmailError:
    """What went wrong with the queue, or with the output: that alone has no name and can be full."""
    from openqmail.core.queue.journal import FULL  # noqa: PLC0415  # as above
    from openqmail.core.queue.unreadable import unreadable  # noqa: PLC0415

    if error.filename is not None:
        return HomeError(unreadable(os.fsencode(error.filename), error))
    why = (error.strerror or str(error)).lower()
    if error.errno not in FULL:
        return TemporaryFailure(f"the queue cannot be read: {why}; try again")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be printed
    return TemporaryFailure(f"what was to be printed cannot be written: {why}; ask again")


def _do(home: Home, args: argparse.Namespace, queue: Queue, *, running: bool) -> int:
    if args.verb == "show":
        if args.json:
            raise HomeError("show prints messages as they are stored; leave --json out")
        return _show(home, args.numbers, queue)
    if args.verb == "flush":
        count = queue.flush(home)
        what = f"that waited {'is' if count == 1 else 'are'} due now"
        if not running:
            what = "that waited will be tried when the service starts"
        print(f'{{"messages":{count}}}' if args.json else f"{_many(count)} {what}")
        return DONE
    if args.verb == "settle":
        return _settle(home, args.json, queue)
    if args.verb in VERBS:
        return _act(home, args, queue, running=running)
    return _list(queue.messages(home, ()), args.json, running=running)


# --- the verbs --------------------------------------------------------------------------


def _act(home: Home, args: argparse.Namespace, queue: Queue, *, running: bool) -> int:
    verb = VERBS[args.verb]
    more = {word: getattr(args, word) for word in ("reason", "text") if hasattr(args, word)}
    if verb.asks and not args.yes:
        there = _asked_about(home, args, queue)
        if there and not _agreed(args.verb, there):
            return NONE
        acted = _act_on(home, args, queue, there, more)
    else:
        acted = queue.act(home, args.verb, args.numbers, **more)
    if args.json:
        print(msgspec.json.encode(acted).decode())
    elif acted.done:
        print(f"{_many(len(acted.done))} {verb.done if running else verb.offline}")
    return _told(acted)


def _told(acted: Acted) -> int:
    """What could not be done, on stderr, and the exit code of it all."""
    for missed in acted.missed:
        print(f"openqmail: message {missed.number} {clean(missed.why)}", file=sys.stderr)
    for number in acted.later:
        why = "is being delivered just now; it will be done when that has ended"
        print(f"openqmail: message {number} {why}", file=sys.stderr)
    if acted.later or any(missed.passes for missed in acted.missed):
        return LATER
    return DONE if acted.done else NONE


def _asked_about(home: Home, args: argparse.Namespace, queue: Queue) -> dict[int, dict[str, Any]]:
    """The messages of these numbers that are there, to ask a person about."""
    if not sys.stdin.isatty():
        raise OpenqmailError(
            f"'queue {args.verb}' asks first, and there is no terminal to ask at; add --yes to do it unasked"
        )
    return {one["id"]: one for some in queue.messages(home, args.numbers) for one in _decoded(some)}


def _act_on(
    home: Home, args: argparse.Namespace, queue: Queue, there: dict[int, dict[str, Any]], more: dict[str, str]
) -> Acted:
    """Act on what was asked about, and on nothing that came later under one of these numbers."""
    keys = [one["key"] for one in there.values()]
    acted = queue.act(home, args.verb, list(there), keys, **more) if there else Acted()
    absent = [Missed(number, ABSENT) for number in dict.fromkeys(args.numbers) if number not in there]
    return msgspec.structs.replace(acted, missed=(*acted.missed, *absent))


def _agreed(verb: str, there: dict[int, dict[str, Any]]) -> bool:
    """Whether a person says yes."""
    senders = list(dict.fromkeys(f"<{clean(one['sender'])}>" for one in there.values()))
    names = ", ".join(senders[:5]) + (f" and {len(senders) - 5} others" if len(senders) > 5 else "")
    which = _many(len(there)) if len(there) > 1 else f"message {next(iter(there))}"
    question = VERBS[verb].asks.format(which=which, senders=names)
    print(question, "[y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    print("nothing was done", file=sys.stderr)
    return False


def _settle(home: Home, as_json: bool, queue: Queue) -> int:
    """DONE only when another qmail can have the queue."""
    total, held, left = queue.settle(home)
    if as_json:
        print(f'{{"messages":{total},"held":{held},"left":{left}}}')
    else:
        print(f"{_many(total - held - left)} in qmail's own files")
    if held:
        are, them = ("is", "it") if held == 1 else ("are", "them")
        why = f"{_many(held)} {are} held, which no other qmail sees"
        how = f"release {them} before you give the queue to one ('queue list' shows {them})"
        print(f"openqmail: {why}; {how}", file=sys.stderr)
    if left:
        print(f"openqmail: {_many(left)} could not be moved and stay in the journal", file=sys.stderr)
    return LATER if left else CANNOT if held else DONE


def _many(count: int) -> str:
    return _count(count, "message")


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


# --- looking ----------------------------------------------------------------------------


def _show(home: Home, numbers: Sequence[int], queue: Queue) -> int:
    printed = later = False
    for number in numbers:
        try:
            chunks = _begun(queue.show(home, number))
        except client.Refused:
            why = f"there is no message {number} in the queue; 'queue list' shows them"
            print(f"openqmail: {why}", file=sys.stderr)
            continue
        except TemporaryFailure as error:
            print(f"openqmail: {clean(str(error))}", file=sys.stderr)
            later = True
            continue
        sys.stdout.flush()
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        printed = True
    return LATER if later else DONE if printed else NONE


def _begun(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same chunks, after the first one has been asked for: errors come here, not later."""
    first = next(chunks, b"")

    def all_of_them() -> Iterator[bytes]:
        yield first
        yield from chunks

    return all_of_them()


def _list(messages: Iterable[bytes], as_json: bool, *, running: bool) -> int:
    if as_json:
        for lines in messages:
            sys.stdout.buffer.write(lines)
        return DONE
    sums = {"messages": 0, "recipients": 0, "deferred": 0, "held": 0, "bytes": 0}
    try:
        for one in (one for lines in messages for one in _decoded(lines)):
            print(for_people(one, running=running))
            sums["messages"] += 1
            sums["recipients"] += sum(rcpt["state"] == "todo" for rcpt in one["recipients"])
            sums["bytes"] += one["size"]
            if one["state"] in sums:
                sums[one["state"]] += 1
    except client.Incomplete:
        print(f"queue: {totals(sums)}, and some that cannot be read")
        raise
    print(f"queue: {totals(sums)}")
    return DONE


def _decoded(lines: bytes) -> list[dict[str, Any]]:
    try:
        return _DECODER.decode_lines(lines)
    except msgspec.DecodeError:
        raise TemporaryFailure("the list is not understood; the service may be of another version") from None


def for_people(one: dict[str, Any], *, running: bool) -> str:
    """A message as a person reads it; `running`: whether a service works on it."""
    size, sender = in_units(one["size"]), clean(one["sender"])
    lines = [f"#{one['id']}  {one['state']}  {size}  {when(one['born'])}  from <{sender}>"]
    if one.get("held"):
        lines.append(f"    held: {clean(one['held'])}")
    for recipient in one["recipients"]:
        text = f"    {recipient['channel']:6}  {recipient['state']}  {clean(recipient['address'])}"
        if recipient["state"] == "todo" and (recipient["attempts"] or recipient["next"] is not None):
            tried = f"{_count(recipient['attempts'], 'attempt')}, " if recipient["attempts"] else ""
            text += f"  ({tried}next {_next(recipient, running=running)})"
        lines.append(text)
        if recipient["last"]:
            lines.append(f"            {sentence(recipient['last'])}")
        if rest := recipient.get("destination"):
            lines.append(f"            {_resting(rest)}")
    return "\n".join(lines)


def _next(recipient: dict[str, Any], *, running: bool) -> str:
    """What was tried, and is due as it was, has its next turn when the message is put aside."""
    due = recipient["next"]
    if due is not None and due > time.time():
        return when(due)
    if not running:
        return "when the service starts"
    return "when the deliveries under way have ended" if recipient["attempts"] else "now"


def _resting(state: dict[str, Any]) -> str:
    text = f"{clean(state['name'])} is left alone until {when(state['resting_until'])}"
    said = sentence(state["last"] or "")
    return f"{text}, since it failed {_count(state['failures'], 'time')}: {said}" if said else text


def when(seconds: int | None) -> str:
    if seconds is None or seconds < DAY:  # a time before there was any mail: at once
        return "now"
    return time.strftime("%d %b %Y %H:%M:%S UTC", time.gmtime(seconds))


def sentence(text: str) -> str:
    """What a delivery reported: its lines one behind the other."""
    return clean(text.strip().replace("\n", " "))


def clean(text: str) -> str:
    """On one line, and nothing that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "/" if letter == "\n" else "?" for letter in text)
