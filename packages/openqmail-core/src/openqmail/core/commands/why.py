"""`openqmail why`: how mail for an address would go now, and why; or what happened to a message.

Nothing is changed and nothing is sent; name servers are asked, as they would be for mail.  Exit code
of an address: 0 when mail would be delivered, or tried at another host; 100 when it would be
refused for good; 111 when it would have to wait, or nobody can tell.  Of a message: 0 when
something is known of it, 1 when nothing is.
"""

import argparse
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from openqmail.core.commands import client, happened
from openqmail.core.commands.command import CANNOT, DONE, LATER, example, needed
from openqmail.core.commands.queue import clean, number, sentence, when
from openqmail.core.control.accounts import find_accounts
from openqmail.core.control.definitions import DEFINITIONS
from openqmail.core.control.home import Home
from openqmail.core.control.owner import as_owner
from openqmail.core.control.reader import read_as_far
from openqmail.core.log.escaping import readable
from openqmail.core.ports import DestinationState, Step
from openqmail.core.send.routing import Routes
from openqmail.core.values import ControlError, OpenqmailError, Outcome, Result, TemporaryFailure

help = "say how mail for an address would go now, and by which lines; or what happened to a message"

LONGEST = 1000
"""Bytes of an address; qmail's programs take no longer one."""

_NAMES = frozenset(one.name for one in DEFINITIONS)
_ROUTING = frozenset(
    (
        *("me", "envnoathost", "percenthack", "locals", "virtualdomains"),
        *("rcpthosts", "morercpthosts", "morercpthosts.cdb", "checkrcpt"),
    )
)
_LOCAL = frozenset(("defaultdelivery",))
_REMOTE = frozenset(one.name for one in DEFINITIONS if "remote" in one.readers) | {"listen"}
"""The control files that have a say about mail of each kind."""

_CODES = {Outcome.SUCCESS: DONE, Outcome.FAILURE: CANNOT, Outcome.DEFERRAL: LATER}
_WORDS = {Outcome.SUCCESS: "success", Outcome.FAILURE: "failure", Outcome.DEFERRAL: "deferral"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", metavar="ADDRESS", nargs="?", help="a recipient")
    parser.add_argument(
        "--sender", metavar="ADDRESS", help="whose mail it would be, for control/bindings; else a bounce"
    )
    parser.add_argument("--message", metavar="N", type=number, help="a message, by the number of the log")
    parser.add_argument(
        "--all", action="store_true", help="with --message: every message on record that had the number"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    example(
        parser,
        "openqmail --home mail why bob@b.example --sender alice@a.example",
        "openqmail --home mail why --message 1474873",
    )


def run(home: Home | None, args: argparse.Namespace) -> int:
    here = needed(home)
    if (args.address is None) == (args.message is None):
        raise OpenqmailError("name an address, or a message with --message N, and not both")
    if args.message is not None:
        if args.sender is not None:
            raise OpenqmailError("--sender: a message has its own; leave it out")
        return happened.tell(here, args.message, all_lives=args.all, as_json=args.json)
    if args.all:
        raise OpenqmailError("--all: goes with --message; leave it out")
    sender = _address(args.sender or "<>", empty=True)
    return _explain(here, _address(args.address), sender, args.json, named=args.sender is not None)


def _address(text: str, *, empty: bool = False) -> bytes:
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1]
    raw = os.fsencode(text)
    if len(raw) > LONGEST or any(code < 0x20 or code == 0x7F for code in raw) or not (raw or empty):
        raise OpenqmailError(f"'{clean(text[:60])}' is no address; write one like bob@example.org")
    return raw


def _explain(home: Home, address: bytes, sender: bytes, as_json: bool, *, named: bool) -> int:
    """`named`: the sender was asked for."""
    from openqmail.core.service.explaining import explain  # noqa: PLC0415  # only this one needs so much

    with as_owner(home):
        settings, problems = read_as_far(home)
        accounts = find_accounts(home)
        found = explain(home, settings, accounts, address, sender)
        beside = [*_no_matter(problems, found.routed.channel), *_not_taken(home)]
        state, step = (
            _destination(home, found.routed.domain + Routes(settings).mark(sender))
            if found.routed.channel == "remote"
            else (None, None)
        )
    result = found.result
    steps = (*found.trail, *([] if step is None else [step]), *beside)
    if result is not None and result.outcome is Outcome.SUCCESS and state and state.resting_until:
        result = Result(Outcome.DEFERRAL, b"Sorry, this destination is left alone for a while. (#4.4.1)\n")
    if as_json:
        told: dict[str, Any] = {
            "v": 1,
            "address": readable(address),
            "sender": readable(sender),
            "channel": found.routed.channel,
            "routed": readable(found.routed.address),
            "domain": readable(found.routed.domain),
            "steps": steps,
            "destination": state,
            "outcome": None if result is None else _WORDS[result.outcome],
            "text": "" if result is None else readable(result.text),
        }
        print(msgspec.json.encode(told).decode())
    else:
        whose = "" if named else " (a bounce's; --sender asks for another)"
        print(f"<{clean(readable(address))}> from <{clean(readable(sender))}>{whose}")
        for one in steps:
            print(f"  {clean(one.what)}: {sentence(one.text)}")
        print(_verdict(found.routed.channel, result))
    return LATER if result is None else _CODES[result.outcome]


def _no_matter(problems: Sequence[ControlError], channel: str) -> list[Step]:
    """What is wrong in files that have no say here.  Raises the first that has one."""
    needed = _LOCAL if channel == "local" else _REMOTE
    for problem in problems:
        if problem.file.removeprefix("control/") in _ROUTING | needed:
            raise problem
    return [Step("besides", f"{problem}; it has no say here") for problem in problems]


def _not_taken(home: Home) -> list[Step]:
    """Control files that are not what a running service goes by."""
    try:
        read = client.status(home).get("settings")
    except (client.Stopped, client.Refused, TemporaryFailure):
        return []
    if not read:
        return []
    newer = []
    for name in sorted(os.listdir(home.control)):
        with suppress(OSError):
            if os.stat(os.path.join(home.control, name)).st_ctime > read + 1 and name in _NAMES:
                newer.append(Step(f"control/{name}", "is not yet taken by the service: send it a HUP"))
    return newer


def _destination(home: Home, domain: bytes) -> tuple[DestinationState | None, Step]:
    """What the running service knows of it."""
    what = "destination"
    try:
        state = client.destination(home, domain)
    except client.Stopped:
        return None, Step(what, "not known: no service runs")
    except (client.Refused, TemporaryFailure) as error:
        return None, Step(what, f"not known: {error}")
    if state is None:
        return None, Step(what, "nothing is under way and nothing waits for it, nor has it failed lately")
    text = f"{state.running} under way of at most {state.limit}, {state.waiting} waiting"
    if state.failures:
        text += f"; failures in a row: {state.failures}, the last: {sentence(state.last or '')}"
    if state.resting_until is not None:
        text += f"; it is left alone until {when(state.resting_until)}"
    return state, Step(what, text)


def _verdict(channel: str, result: Result | None) -> str:
    if result is None:
        return "what would become of mail cannot be told"
    text = sentence(readable(result.text))
    if result.outcome is Outcome.SUCCESS:
        return "mail would be delivered" if channel == "local" else "mail would be tried there now"
    return f"mail would {'be refused for good' if result.outcome is Outcome.FAILURE else 'wait'}: {text}"
