"""`openqmail tls`: the certificates of this host, what it believes of others, and one that it signs itself.

`show` names each file with its names and its time, and warns of what others may dislike; exit code 100 when
one of them is of no use.  `selfsign` makes `control/servercert.pem`, and never writes over one unasked.
"""

import argparse
import os
import time

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
from openqmail.core.tls.inventory import Entry, inventory
from openqmail.core.tls.selfsign import DAYS, address_of
from openqmail.core.values import HomeError

help = "show the certificates of this host and what it believes of others, or make one"

CERTIFICATE = 0o400
"""The mode of a file with a private key."""


class Shown(msgspec.Struct):
    """One of `inventory`.  Times in ISO 8601, UTC, empty where there is none."""

    file: str
    kind: str
    names: tuple[str, ...]
    issuer: str
    self_signed: bool
    not_before: str
    not_after: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


KINDS = {
    "client": "what other hosts are shown",
    "authority": "an authority of clients",
    "revocations": "what an authority of clients has revoked",
    "pin": "what is believed of this host",
}
"""What is no certificate for clients."""


def arguments(parser: argparse.ArgumentParser) -> None:
    below = parser.add_subparsers(dest="verb", required=True, metavar="show|selfsign", parser_class=Parser)
    showing = below.add_parser("show", help="say what each certificate is for, until when, and what is wrong")
    showing.add_argument("--json", action="store_true", help="print a JSON object a certificate")
    example(showing, "openqmail --home mail tls show")
    making = below.add_parser("selfsign", help="make control/servercert.pem, which nobody can verify")
    making.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="one more name of this host, or an address of it; may be repeated",
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
    found = inventory(home.control, settings.me.decode(), settings.tlsserverciphers, time.time())
    for one in found:
        print(msgspec.json.encode(_shown(one)).decode() if as_json else _for_people(one))
    if not as_json and not any(one.kind == "server" for one in found):
        print("no certificate: clients are not offered TLS; 'openqmail tls selfsign' makes one")
    return CANNOT if any(one.problems for one in found) else DONE


def _shown(one: Entry) -> Shown:
    facts = msgspec.structs.asdict(one)
    return Shown(**facts | {name: _date(facts[name]) for name in ("not_before", "not_after")})


def _for_people(one: Entry) -> str:
    lines = [one.file]
    if one.kind in KINDS:
        lines.append(f"  is      {KINDS[one.kind]}")
    if one.names:
        lines.append(f"  for     {', '.join(one.names)}")
    if one.issuer:
        lines.append(f"  by      {'itself (self-signed)' if one.self_signed else one.issuer}")
    if one.not_before:
        lines.append(f"  valid   {_date(one.not_before)} to {_date(one.not_after) or 'any time'}")
    lines += [f"  problem {why}" for why in one.problems]
    lines += [f"  warning {why}" for why in one.warnings]
    return "\n".join("".join(letter if letter.isprintable() else "?" for letter in line) for line in lines)


def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if seconds else ""


def _selfsign(home: Home, settings: Settings, args: argparse.Namespace) -> int:
    path = os.path.join(home.control, "servercert.pem")
    if os.path.lexists(path) and not args.replace:
        raise HomeError(f"{path}: is there already; add --replace to put another in its place")
    if not 1 <= args.days <= 36_500:
        raise HomeError(f"--days: {args.days} is out of range; write a number from 1 to 36500")
    try:
        names = tuple(str(address_of(name) or syntax.host(name).decode()) for name in args.name)
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
