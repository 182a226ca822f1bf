"""`openqmail check`: whether owners and modes of a home, and of the programs that it has run for logins, keep
everybody to what is theirs, whether all is there, and whether the addresses that mail is to go out from are
this host's.

Exit code 0 when nothing is found, 100 with a line for each finding: place, fault, remedy.  What
the control files say is the matter of `openqmail control check`.  Notes are for people alone: what the
kernel lacks, and to root, who can become them, whom of those who run it the program is closed to.
"""

import argparse
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import suppress

import msgspec

import openqmail.core
from openqmail.core.commands.command import CANNOT, DONE, example, needed
from openqmail.core.control.accounts import Account, Accounts, find_accounts
from openqmail.core.control.credentials import read_credentials
from openqmail.core.control.home import Home
from openqmail.core.control.modes import Finding, examine
from openqmail.core.control.owner import acting_as, as_owner, user_name
from openqmail.core.control.reader import read_settings
from openqmail.core.control.strangers import changeable_programs, folders_to
from openqmail.core.queue.layout import paths, whole
from openqmail.core.tls.inventory import inventory
from openqmail.core.values import OpenqmailError
from openqmail.core.world import PosixDisk

help = "look for owners and modes that let anybody reach what he should not, and for addresses of others"

PROGRAM = tuple(one.__file__ or "" for one in (openqmail.core, msgspec, os))
"""A file of the program, one of what it needs and one of Python's."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object a finding: thing, place, remedy"
    )
    example(parser, "openqmail --home /var/qmail check")


def run(home: Home | None, args: argparse.Namespace) -> int:
    # Only this command's, and before the owner is taken on, who may not be able to read them.
    from openqmail.core.remote import dialing  # noqa: F401, PLC0415
    from openqmail.core.service.confine import landlock, seccomp  # noqa: PLC0415

    here = needed(home)
    accounts = find_accounts(here)
    closed = _closed_program(accounts)
    with as_owner(here):
        found = examine(here, accounts)
        if here.queue not in [one.place for one in found]:
            found += _queue(here, accounts.send)
        found += _addresses_of_others(here)
        found += _passwords(here)
        found += _programs(here)
        notes = list(_certificates(here, found))
    for one in found:
        print(msgspec.json.encode(one).decode() if args.json else _on_a_line(str(one)))
    if not args.json:
        for lacking in (*closed, landlock.lacking(), seccomp.lacking(), *notes):
            if lacking:
                print(f"note: {_on_a_line(lacking)}")
        if not found:
            print(f"{here.path}: owners and modes are as they should be")
    return CANNOT if found else DONE


def _queue(home: Home, send: Account) -> Iterator[Finding]:
    """What is missing of its layout, or lies in it, if it can be read: what keeps us out is told already."""
    disk, folder, names = PosixDisk(), os.fsencode(home.queue), list[bytes]()
    with suppress(OSError):
        if fault := whole.fault(disk, folder, send.uid, send.gid):
            yield Finding(fault[0], home.queue, fault[1])
            return
        for inner in whole.inside(disk, folder):
            yield Finding(whole.INNER, os.fsdecode(inner), whole.remedy(inner))
        names = paths.missing(disk, folder)
    if names:
        first = os.path.join(home.queue, os.fsdecode(names[0]))
        more = f", and {len(names) - 1} more" if names[1:] else ""
        remedy = paths.remaking(folder, names, send.uid, send.gid)
        yield Finding(f"is missing{more}", first, f"restore what was there, or: {remedy}")


def _closed_program(accounts: Accounts) -> list[str]:
    """Where the program, what it needs or Python itself is closed to who is to run it."""
    users = {one.uid: one for one in accounts.by_role().values()} if os.geteuid() == 0 else {}
    stopped: dict[str, dict[str, None]] = {}
    for one in users.values():
        with acting_as(one.uid, one.gid):
            for file in PROGRAM:
                if place := _closed(file):
                    stopped.setdefault(place, {})[one.name] = None
    return [
        f"{place}: {', '.join(names)} cannot come by the program in there, so what is loaded late and an "
        "upgrade may fail; install it, and its Python, where all can read them"
        for place, names in stopped.items()
    ]


def _closed(file: str) -> str:
    """What keeps us from a file: itself or the first folder above it; empty for nothing."""
    *above, last = folders_to(file)
    wanted = [*((one, os.X_OK) for one in above), (last, os.R_OK | os.X_OK), (file, os.R_OK)]
    return next((one for one, how in wanted if not os.access(one, how, effective_ids=True)), "")


def _addresses_of_others(home: Home) -> Iterator[Finding]:
    """What control/bindings names and nobody can bind here.  Control files that cannot be read are the
    other check's."""
    from openqmail.core.remote.dialing import NotBound, bound  # noqa: PLC0415  # only this command's

    try:
        bindings = read_settings(home).sources()
    except OpenqmailError:
        return
    for address, place in bindings.addresses().items():
        try:
            bound(address, ":" in address).close()
        except (NotBound, OSError) as failure:
            reason = failure.reason if isinstance(failure, NotBound) else failure.strerror
            yield Finding(
                f"this host does not have {address} ({reason}), so mail that goes out from there would wait",
                place,
                "give it to an interface of this host, or mend the line",
            )


def _passwords(home: Home) -> Iterator[Finding]:
    """A login in control/smtproutes, which more than one process has to read."""
    with suppress(OpenqmailError):
        if read_credentials(home.control).by_route:
            thing = "has a password, and every process of the service reads it"
            remedy = "move user and password to control/credentials: HOST USER PASSWORD"
            yield Finding(thing, os.path.join(home.control, "smtproutes"), remedy)


def _programs(home: Home) -> Iterator[Finding]:
    """Those that are run for logins, as root in a home of root's.  Control files that cannot be read are
    the other check's."""
    with suppress(OpenqmailError, OSError):
        who = user_name(home.uid)
        for name, place, owner in changeable_programs(read_settings(home), (0, home.uid)):
            quoted = shlex.quote(place)
            whose, remedy = "others may write to it", f"chmod go-w {quoted}"
            if owner:
                whose, remedy = f"belongs to {owner}", f"chown -h {who} {quoted}"
            thing = f"{whose}, and {who} runs what is put there, as control/{name} says"
            yield Finding(thing, place, f"name another program, or: {remedy}")


def _certificates(home: Home, found: list[Finding]) -> Iterator[str]:
    """What others may dislike about those of this host, and what of others has had its time, is found; that
    one is self-signed is only noted.  What is of no use at all is the other check's."""
    try:
        settings = read_settings(home)
    except OpenqmailError:
        return
    for one in inventory(home.control, settings.me.decode(), settings.tlsserverciphers, time.time()):
        for why in one.warnings:
            thing, _, remedy = why.partition("; ")
            if thing.startswith("is self-signed"):
                yield f"{one.file}: {why}"
                continue
            if one.kind in ("authority", "pin"):  # of which one file may have several
                thing = f"its certificate of {', '.join(one.names)} {thing}"
            found.append(Finding(thing, one.file, remedy))


def _on_a_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
