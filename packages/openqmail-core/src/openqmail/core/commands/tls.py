"""`openqmail tls`: which certificates this host shows its clients, and one that it signs itself.

`show` names each file with its names and its time, and warns of what others may dislike; exit code 100 when
one of them cannot be served.  `selfsign` makes `control/servercert.pem`, and never writes over one unasked.
"""

import argparse
import os
import time
from collections.abc import Iterator

import msgspec

from openqmail.core.commands.command import CANNOT, DONE, Parser, example, needed
from openqmail.core.commands.writing import all_or_nothing
from openqmail.core.control import syntax
from openqmail.core.control.home import Home
from openqmail.core.control.owner import as_owner
from openqmail.core.control.reader import read_settings
from openqmail.core.control.replacing import replace
from openqmail.core.control.settings import Settings
from openqmail.core.tls import self_signed
from openqmail.core.tls.files import certificates, check, content, server_files
from openqmail.core.tls.selfsign import DAYS
from openqmail.core.tls.server import ServerTls, dislikes
from openqmail.core.values import ControlError, HomeError

help = "show the certificates of this host, or make one that is self-signed"

CERTIFICATE = 0o400
"""The mode of a file with a private key."""


class Shown(msgspec.Struct):
    """Of one file.  Times in ISO 8601, UTC; `problems` keep it from being served, `warnings` do not."""

    file: str
    names: list[str] = []
    issuer: str = ""
    self_signed: bool = False
    not_before: str = ""
    not_after: str = ""
    problems: list[str] = []
    warnings: list[str] = []


def arguments(parser: argparse.ArgumentParser) -> None:
    below = parser.add_subparsers(dest="verb", required=True, metavar="show|selfsign", parser_class=Parser)
    showing = below.add_parser("show", help="say what each certificate is for, until when, and what is wrong")
    showing.add_argument("--json", action="store_true", help="print a JSON object a file")
    example(showing, "openqmail --home mail tls show")
    making = below.add_parser("selfsign", help="make control/servercert.pem, which nobody can verify")
    making.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="one more name of this host; may be repeated",
    )
    making.add_argument("--days", type=int, default=DAYS, metavar="N", help=f"how long it lasts; else {DAYS}")
    making.add_argument("--replace", action="store_true", help="in place of the one that is there")
    example(making, "openqmail --home mail tls selfsign")
    example(parser, "openqmail --home mail tls show", "openqmail --home mail tls selfsign")


def run(home: Home | None, args: argparse.Namespace) -> int:
    here = needed(home)
    if args.verb == "selfsign":
        self_signed("a.example", time.time())  # all is imported while we may read where it lies
    with as_owner(here):
        settings = read_settings(here)
        return (
            _selfsign(here, settings, args) if args.verb == "selfsign" else _show(here, settings, args.json)
        )


def _show(home: Home, settings: Settings, as_json: bool) -> int:
    found = list(shown(home, settings, time.time()))
    for one in found:
        print(msgspec.json.encode(one).decode() if as_json else _for_people(one))
    if not found and not as_json:
        print("no certificate: clients are not offered TLS; 'openqmail tls selfsign' makes one")
    return CANNOT if any(one.problems for one in found) else DONE


def shown(home: Home, settings: Settings, now: float) -> Iterator[Shown]:
    """Each certificate for clients; behind them what is wrong with what belongs to them all."""
    me = settings.me.decode()
    told = False
    for name, file in server_files(home.control).items():
        one = Shown(file.name)
        try:
            data = content(file)
            first = certificates(file, data)[0]
            one.names = [*first.hosts] or [first.common_name]
            one.issuer, one.self_signed = first.issuer, first.self_issued
            one.not_before, one.not_after = _date(first.not_before), _date(first.not_after)
            one.warnings = dislikes(first, name or me, now)
            check(file, data)
        except ControlError as error:
            one.problems = [error.why]
            told = True
        yield one
    if not told:
        try:
            ServerTls.load(home.control, settings.me, settings.tlsserverciphers)
        except ControlError as error:
            yield Shown(error.file, problems=[error.why])


def _for_people(one: Shown) -> str:
    lines = [one.file]
    if one.names:
        names = ", ".join(one.names)
        lines.append(f"  for     {names}")
        lines.append(f"  by      {'itself (self-signed)' if one.self_signed else one.issuer}")
        lines.append(f"  valid   {one.not_before} to {one.not_after}")
    lines += [f"  problem {why}" for why in one.problems]
    lines += [f"  warning {why}" for why in one.warnings]
    return "\n".join("".join(letter if letter.isprintable() else "?" for letter in line) for line in lines)


def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _selfsign(home: Home, settings: Settings, args: argparse.Namespace) -> int:
    path = os.path.join(home.control, "servercert.pem")
    if os.path.lexists(path) and not args.replace:
        raise HomeError(f"{path}: is there already; add --replace to put another in its place")
    if not 1 <= args.days <= 36_500:
        raise HomeError(f"--days: {args.days} is out of range; write a number from 1 to 36500")
    try:
        names = tuple(syntax.host(name).decode() for name in args.name)
    except ValueError as error:
        raise HomeError(f"--name: {error}") from None
    pem = self_signed(settings.me.decode(), time.time(), names, args.days)
    if args.replace:
        replace(path, pem, CERTIFICATE)
    else:
        with all_or_nothing() as made:
            made.file(path, pem, CERTIFICATE)
    print(f"made {path} for {', '.join(dict.fromkeys((settings.me.decode(), *names)))}, {args.days} days")
    print("  it is self-signed: it hides mail on its way, but nobody can verify whose it is")
    print("  a service that runs takes it within a minute")
    return DONE
