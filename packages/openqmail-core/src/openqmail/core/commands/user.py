"""`openqmail user`: who may log in, kept in users/smtpauth.

A password is asked for on a terminal, twice, or is one line of standard input; it is never an argument,
which everybody on the host could read.  Written are an argon2id hash and a verifier of SCRAM-SHA-256,
and with --plain the password itself, without which CRAM-MD5 cannot be.  Who is locked out after failures is
known to the running service alone.
"""

import argparse
import getpass
import json
import secrets
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress

import msgspec

from openqmail.core.commands import client
from openqmail.core.commands.command import DONE, NONE, Parser, example, needed
from openqmail.core.control.enrolment import change
from openqmail.core.control.hashing import hash_password, load_late
from openqmail.core.control.home import Home
from openqmail.core.control.owner import as_owner
from openqmail.core.control.reader import content
from openqmail.core.control.smtpauth import (
    Entries,
    checked_login,
    parse_smtpauth,
    path_of,
    read_smtpauth,
    with_secrets,
    written,
)
from openqmail.core.control.submitting import SENDERS, senders, without_senders
from openqmail.core.control.text import ControlText, shown
from openqmail.core.sasl import MECHANISMS, SCRAM_PLUS, Plain, Secret, make_verifier, prepared
from openqmail.core.sasl.secret import SALT
from openqmail.core.sasl.steps import PASSWORD_LENGTH
from openqmail.core.values import ControlError, OpenqmailError

help = "add users who may log in, set their passwords, remove or list them; tell and end lock-outs"


def arguments(parser: argparse.ArgumentParser) -> None:
    below = parser.add_subparsers(
        dest="verb", required=True, metavar="add|passwd|del|list|locked|unlock", parser_class=Parser
    )
    for verb, text in (
        ("add", "let NAME log in; the password is asked for, or read from standard input"),
        ("passwd", "set another password; the one before ends at once"),
    ):
        one = below.add_parser(verb, help=text)
        one.add_argument("name", metavar="NAME", help="what is said at the login; often an address")
        one.add_argument(
            "--plain",
            action="store_true",
            help="keep the password itself too, for CRAM-MD5 where control/authmechanisms offers it; "
            "whoever reads the file has it then",
        )
        one.set_defaults(surplus="the password is asked for, or read from standard input, never an argument")
        example(one, f"openqmail --home mail user {verb} alice")
    deleting = below.add_parser("del", help="let these log in no longer")
    deleting.add_argument("names", nargs="+", metavar="NAME", help="a login")
    example(deleting, "openqmail --home mail user del alice")
    listing = below.add_parser("list", help="print who may log in, and by which mechanisms; no secrets")
    listing.add_argument("names", nargs="*", metavar="NAME", help="only these")
    listing.add_argument("--json", action="store_true", help="print a JSON object a line")
    example(listing, "openqmail --home mail user list")
    locked = below.add_parser("locked", help="print whom the running service lets try no more for a while")
    locked.add_argument("--json", action="store_true", help="print a JSON object a line")
    example(locked, "openqmail --home mail user locked")
    unlocking = below.add_parser("unlock", help="let these try again now; their failures are forgotten")
    unlocking.add_argument("names", nargs="+", metavar="NAME", help="a login, an address or a network")
    example(unlocking, "openqmail --home mail user unlock alice 192.0.2.0/24")
    example(parser, "openqmail --home mail user add alice")


def run(home: Home | None, args: argparse.Namespace) -> int:
    here = needed(home)
    if args.verb == "list":
        with as_owner(here):
            entries = _read(here)
        return _list(entries, args.names, args.json)
    if args.verb == "del":
        with as_owner(here):
            return _delete(here, args.names)
    if args.verb == "locked":
        return _locked(here, args.json)
    if args.verb == "unlock":
        return _unlock(here, args.names)
    return _set(here, _login(args.name), args.plain, new=args.verb == "add")


def _set(home: Home, login: bytes, plain: bool, new: bool) -> int:
    with as_owner(home):
        _expect(_read(home), login, new)  # before anybody has to think of a password
    load_late()
    password = _password()
    made = _secrets(password, plain)

    def edit(content: bytes) -> bytes:
        _expect(parse_smtpauth(content)[0], login, new)
        return with_secrets(content, login, written(made))

    with as_owner(home):
        change(home, edit)
        entry = parse_smtpauth(read_smtpauth(path_of(home)))[0][prepared(login)]
        doubts = list(_without_sender(home, entry.login)) if new else []
    names = ", ".join(_names(entry.mechanisms))
    print(f"{login.decode()} can log in by {names}, where these are offered (control/authmechanisms)")
    for doubt in doubts:
        print(f"openqmail: {doubt}", file=sys.stderr)
    return DONE


def _without_sender(home: Home, login: bytes) -> Iterable[ControlError]:
    """Whether control/senders lets it send as nobody; what is wrong in that file, others say."""
    with suppress(ControlError):
        text = ControlText(SENDERS, content(home, "senders") or b"")
        found = senders(text)
        return without_senders({"senders": found}, [login], {one.file for one in text.problems})
    return ()


def _delete(home: Home, names: Sequence[str]) -> int:
    logins = [_login(name) for name in names]
    missing: list[bytes] = []

    def edit(content: bytes) -> bytes:
        for login in logins:
            shorter = with_secrets(content, login, None)
            if shorter == content:
                missing.append(login)
            content = shorter
        return content

    change(home, edit)
    for login in logins:
        if login in missing:
            _say_missing(login.decode())
        else:
            print(f"{login.decode()} can no longer log in")
    return NONE if len(missing) == len(logins) else DONE


def _list(entries: Entries, names: Sequence[str], as_json: bool) -> int:
    wanted = {prepared(_login(name)): name for name in names}
    found = [entry for key, entry in entries.items() if not names or key in wanted]
    width = max((len(entry.login.decode()) for entry in found), default=0)
    for entry in found:
        kinds = [one.kind for one in entry.secrets]
        mechanisms = _names(entry.mechanisms)
        if as_json:
            row = {"login": entry.login.decode(), "secrets": kinds, "mechanisms": mechanisms}
            print(json.dumps(row))
        else:
            print(f"{entry.login.decode():{width}}  {', '.join(kinds)}: {', '.join(mechanisms)}")
    for key, name in wanted.items():
        if key not in entries:
            _say_missing(name)
    return DONE if found or not names else NONE


def _locked(home: Home, as_json: bool) -> int:
    with as_owner(home):
        found = client.locked(home)
    for one in found.locked:
        if as_json:
            print(msgspec.json.encode(one).decode())
            continue
        who = f"login {shown(one.login)}" if one.login else ""
        where = f"network {shown(one.network)}" if one.network else "where it never was before"
        minutes = -(-one.seconds // 60)
        print(f"{', '.join(filter(None, (who, where)))}: {one.failures} failures, {minutes} min left")
    if found.more and not as_json:
        print(f"and {found.more} more")
    if not found.locked and not as_json:
        print("nobody is locked out")
    return DONE


def _unlock(home: Home, names: Sequence[str]) -> int:
    with as_owner(home):
        lifted = client.unlock(home, names)
    for name, count in zip(names, lifted, strict=True):
        if count:
            print(f"{shown(name)} may try again")
        else:
            why = f"'{shown(name)}' is not locked out; see 'openqmail user locked'"
            print(f"openqmail: {why}", file=sys.stderr)
    return DONE if any(lifted) else NONE


def _say_missing(name: str) -> None:
    print(f"openqmail: there is no user '{shown(name)}'; see 'openqmail user list'", file=sys.stderr)


def _read(home: Home) -> Entries:
    """With what is wrong in the file said on the way."""
    entries, problems = parse_smtpauth(read_smtpauth(path_of(home)))
    for problem in problems:
        print(f"openqmail: {problem}", file=sys.stderr)
    return entries


def _expect(entries: Entries, login: bytes, new: bool) -> None:
    there = prepared(login) in entries
    name = shown(login.decode())
    if new and there:
        raise OpenqmailError(f"there is a user '{name}' already; 'openqmail user passwd' sets a new password")
    if not new and not there:
        raise OpenqmailError(f"there is no user '{name}'; 'openqmail user add' makes one")


def _login(name: str) -> bytes:
    try:
        return checked_login(name)
    except ValueError:
        raise OpenqmailError(
            f"'{shown(name)}' cannot be a login; write up to 255 bytes without colons and blanks, like alice"
        ) from None


def _password() -> bytes:
    """From the terminal, twice, or a line of standard input.  Raises OpenqmailError; never shows it."""
    if sys.stdin.isatty():
        try:
            said = getpass.getpass("password: ")
            again = getpass.getpass("once more: ")
        except EOFError:
            raise OpenqmailError("no password was given; nothing was changed") from None
        if again != said:
            raise OpenqmailError("the two passwords differ; nothing was changed")
        password = said.encode("utf-8", "surrogateescape")
    else:
        password = sys.stdin.buffer.readline(4 * PASSWORD_LENGTH).rstrip(b"\r\n")
    try:
        good = bool(password) and len(password) <= PASSWORD_LENGTH and password.decode().isprintable()
    except UnicodeDecodeError:
        good = False
    if not good:
        raise OpenqmailError(
            f"this cannot be a password; give 1 to {PASSWORD_LENGTH} bytes of UTF-8 that can be printed"
        )
    return password


def _secrets(password: bytes, plain: bool) -> list[Secret]:
    ready = prepared(password)
    made: list[Secret] = [hash_password(ready), make_verifier(ready, secrets.token_bytes(SALT))]
    return [*made, Plain(password)] if plain else made


def _names(mechanisms: frozenset[bytes]) -> list[str]:
    """-PLUS goes without saying."""
    return [name.decode() for name in MECHANISMS if name in mechanisms and name != SCRAM_PLUS]
