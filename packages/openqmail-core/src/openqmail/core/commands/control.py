"""`openqmail control`: what the control files say, what they mean, what is wrong in them.

`check` makes the hooks that control/hooks names as a start would, in processes that end with that.
"""

import argparse
import json
import os
import sys

from openqmail.core.commands.command import CANNOT, DONE, Parser, example, needed
from openqmail.core.control import extensions
from openqmail.core.control.accounts import find_accounts
from openqmail.core.control.definition import Definition
from openqmail.core.control.home import Home
from openqmail.core.control.modes import examine_secrets
from openqmail.core.control.owner import as_owner
from openqmail.core.control.pem import PEM, PemDefinition, described
from openqmail.core.control.reader import all_definitions, check, content, definition_of, read_settings
from openqmail.core.remote.keys import Keys
from openqmail.core.values import ControlError, OpenqmailError

help = "list, show, explain or check the control files"


def arguments(parser: argparse.ArgumentParser) -> None:
    below = parser.add_subparsers(
        dest="verb", required=True, metavar="list|show|explain|check", parser_class=Parser
    )
    listing = below.add_parser("list", help="print every control file with its value or default")
    listing.add_argument("--json", action="store_true", help="print a JSON object a line")
    example(listing, "openqmail --home mail control list")
    for verb, text in (
        ("show", "print one file, or what holds without it"),
        ("explain", "say what one file is for"),
    ):
        one = below.add_parser(verb, help=text)
        one.add_argument("name", metavar="NAME", help="the name of a control file")
        example(one, f"openqmail --home mail control {verb} rcpthosts")
    checking = below.add_parser("check", help="name every problem with its file, line and remedy")
    example(checking, "openqmail --home mail control check")
    example(parser, "openqmail --home mail control check")


def run(home: Home | None, args: argparse.Namespace) -> int:
    pem = described(args.name.removeprefix("control/")) if "name" in args else None
    if args.verb == "explain":
        print(explained_pem(pem) if pem else explained(definition_of(args.name)))
        return DONE
    if pem is not None:
        raise OpenqmailError(f"control/{pem.name} is not shown; {pem.shown}")
    here = needed(home)
    definitions = all_definitions() if args.verb == "list" else ()
    for group in extensions.GROUPS:  # looked up before root becomes the owner, who may not see them
        extensions.registered(group)
    wanted = definition_of(args.name) if args.verb == "show" else None
    with as_owner(here):
        if wanted is not None:
            sys.stdout.flush()
            sys.stdout.buffer.write(_without_secrets(wanted, _text(here, wanted)[0]))
            return DONE
        if args.verb == "list":
            return _list(here, definitions, args.json)
        errors, warnings = _found(here)
    if not errors:
        errors += _hooks(here)
    return _told(here, errors, warnings)


def explained(definition: Definition) -> str:
    """All that there is to know of a control file."""
    default = "none; it has to be there" if definition.default is None else definition.default or "empty"
    if definition.default == "me":
        default = "the content of control/me"
    lines = [
        f"control/{definition.name}: {definition.kind}",
        f"  read by: {', '.join(definition.readers)}",
        f"  without it: {default}",
        f"  {definition.explanation}",
        "  example:",
        *(f"    {line}" for line in definition.example.split("\n")),
    ]
    return "\n".join(lines)


def explained_pem(pem: PemDefinition) -> str:
    """The same of one that is no list of lines."""
    lines = [
        f"control/{pem.name}: {pem.kind}",
        f"  read by: {', '.join(pem.readers)}",
        f"  without it: {pem.without}",
        f"  {pem.explanation}",
    ]
    return "\n".join(lines)


def _text(home: Home, definition: Definition) -> tuple[bytes, bool]:
    """What holds, with a final line end, and whether the file says so."""
    found = content(home, definition.name)
    if found is not None:
        return found if found.endswith(b"\n") or not found else found + b"\n", True
    default = definition.default or ""
    if default == "me":
        default = (content(home, "me") or b"").decode("utf-8", "backslashreplace").split("\n")[0]
    return f"{default}\n".encode() if default else b"", False


def _without_secrets(definition: Definition, text: bytes) -> bytes:
    """As it is, but for what its definition does not show of a line."""
    if definition.shown is str:
        return text
    lines = text.decode("utf-8", "surrogateescape").split("\n")
    return "\n".join(map(definition.shown, lines)).encode("utf-8", "surrogateescape")


def _list(home: Home, definitions: tuple[Definition, ...], as_json: bool) -> int:
    width = max(map(len, (*(one.name for one in definitions), *(one.name for one in PEM))))
    for definition in sorted(definitions, key=lambda one: one.name):
        text, is_set = _text(home, definition)
        lines = [line.rstrip() for line in text.decode("utf-8", "backslashreplace").splitlines()]
        lines = [definition.shown(line) for line in lines if line and not line.startswith("#")]
        if as_json:
            row = {"name": definition.name, "set": is_set, "value": lines, "kind": definition.kind}
            print(json.dumps(row | {"readers": definition.readers}))
            continue
        value = "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")
        clean = "".join(letter if letter.isprintable() else "?" for letter in value)
        if not is_set:
            clean = f"({clean or 'empty'}, by default)" if definition.default is not None else "(missing)"
        print(f"{definition.name:{width}}  {clean or '(empty)'}")
    for pem in sorted(PEM, key=lambda one: one.name):
        there = _there(home, pem)
        if as_json:
            row = {"name": pem.name, "set": bool(there), "value": [], "kind": pem.kind}
            print(json.dumps(row | {"readers": pem.readers}))
        else:
            print(f"{pem.name:{width}}  {f'({there}; {pem.shown})' if there else '(not there)'}")
    return DONE


def _there(home: Home, pem: PemDefinition) -> str:
    """Whether a file is there, or how many of a folder are; empty: none."""
    path = os.path.join(home.control, pem.folder)
    if "/" not in pem.name:
        return "there" if os.path.lexists(path) else ""
    try:
        names = [name for name in os.listdir(path) if name.endswith(pem.name.partition("NAME")[2])]
    except OSError:
        return ""
    return f"{len(names)} there" if names else ""


def _found(home: Home) -> tuple[list[OpenqmailError], list[ControlError]]:
    """What is wrong, and what looks mistaken; of owners and modes what keeps secrets."""
    found = check(home)
    errors: list[OpenqmailError] = [*found.errors]
    warnings = [*found.warnings]
    try:
        for one in examine_secrets(home, find_accounts(home)):
            file = os.path.relpath(one.place, home.path)
            warnings.append(ControlError(file, 0, f"{one.thing}; {one.remedy}"))
    except ControlError:
        pass  # among them
    except OpenqmailError as error:
        errors.append(error)
    if not errors:  # what remote reads is read by what the others say
        try:
            Keys.load(home.control, read_settings(home))
        except OpenqmailError as error:
            errors.append(error)
    return errors, warnings


def _hooks(home: Home) -> list[OpenqmailError]:
    """Why those of control/hooks cannot be made; root's whole rights are needed to become who makes them."""
    with as_owner(home):
        settings = read_settings(home)
    if not settings.hooks:
        return []
    # What only a service needs.
    from openqmail.core.log import MemoryLog  # noqa: PLC0415
    from openqmail.core.service.supervisor.making import try_hooks  # noqa: PLC0415
    from openqmail.core.world import SystemClock  # noqa: PLC0415

    try:
        try_hooks(home, settings, MemoryLog(), SystemClock(), apart=True)
    except OpenqmailError as error:
        return [error]
    return []


def _told(home: Home, errors: list[OpenqmailError], warnings: list[ControlError]) -> int:
    for problem in errors:
        print(f"error: {problem}")
    for warning in warnings:
        print(f"warning: {warning}")
    if errors:
        return CANNOT
    print(f"{home.control}: no errors" + (f", {len(warnings)} to look at" if warnings else ""))
    return DONE
