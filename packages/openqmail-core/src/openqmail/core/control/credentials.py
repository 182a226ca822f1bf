"""Who this host is to others: `control/credentials`, and the fourth field of a line of `control/smtproutes`.

Only the process that sends reads them, before it becomes its user; they are no part of `Settings`, which
every process has.  No error quotes anything of a login or a password.
"""

import os
from collections.abc import Collection, Iterator, Mapping

from openqmail.core.control import syntax
from openqmail.core.control.text import SIZE, ControlText, nearest
from openqmail.core.sasl import Hidden
from openqmail.core.values import ControlError

FILE = "control/credentials"
ROUTES = "control/smtproutes"


class Credential(Hidden, frozen=True):
    """A login of ours; shows nothing of it."""

    name: bytes
    password: bytes


class Credentials(Hidden, frozen=True):
    """`by_route`: key of control/smtproutes -> the login in its line; `by_host`: a host that a route leads
    to -> the one in control/credentials."""

    by_route: Mapping[bytes, Credential] = {}
    by_host: Mapping[bytes, Credential] = {}

    def __bool__(self) -> bool:
        return bool(self.by_route or self.by_host)


def read_credentials(control_folder: str) -> Credentials:
    """Raises ControlError of the first problem."""
    hosts, problems = parse_credentials(ControlText(FILE, _content(control_folder, FILE)))
    if problems:
        raise problems[0]
    return Credentials(parse_route_logins(ControlText(ROUTES, _content(control_folder, ROUTES))), hosts)


def parse_credentials(text: ControlText) -> tuple[dict[bytes, Credential], list[ControlError]]:
    """Lines `HOST USER PASSWORD`; a password is the rest of its line."""
    found: dict[bytes, Credential] = {}
    lines: dict[bytes, int] = {}
    for number, line in text.entries():
        entry = text.parse(number, line, _line)
        if entry is None:
            continue
        host, credential = entry
        if host in lines:
            text.problem(number, f"{host.decode()} has another line, {lines[host]}; keep one of them")
        lines.setdefault(host, number)
        found.setdefault(host, credential)
    return found, text.problems


def faults(control_folder: str) -> list[ControlError]:
    """All that is wrong in control/credentials."""
    try:
        return parse_credentials(ControlText(FILE, _content(control_folder, FILE)))[1]
    except ControlError as error:
        return [error]


def led_nowhere(control_folder: str, relays: Collection[bytes], hooks: bool) -> Iterator[ControlError]:
    """Lines for hosts that are none of `relays`, to which the routes lead; `hooks`: whether there are any,
    as one may know other routes.  Nothing for what cannot be read."""
    known = {host.decode(): host for host in relays}
    try:
        text = ControlText(FILE, _content(control_folder, FILE))
    except ControlError:
        return
    for number, line in text.entries():
        entry = text.parse(number, line, _line)
        if entry is None or entry[0] in relays:
            continue
        near = nearest(entry[0].decode(), known, 0.7)
        meant = f"did you mean {near}?" if near else "write the host as it stands there"
        but = " unless a hook's route leads to it," if hooks else ""
        yield ControlError(
            FILE, number, f"no line of {ROUTES} leads to its host, so{but} nobody is told this login; {meant}"
        )


def parse_route_logins(text: ControlText) -> dict[bytes, Credential]:
    """The logins in control/smtproutes, by the keys of their lines; what else is wrong there, others say."""
    found: dict[bytes, Credential] = {}
    for _, line in text.entries():
        try:
            keys, _, login = syntax.route_and_login(line)
        except ValueError:
            continue
        if login:
            found = {**dict.fromkeys(keys, _credential(login)), **found}
    return found


def _line(text: str) -> tuple[bytes, Credential]:
    host, _, login = text.partition(" ")
    login = login.strip()
    try:
        name = syntax.relay_host(host)
    except ValueError:
        raise ValueError("does not begin with a host; write HOST USER PASSWORD") from None
    syntax.check_login(login)
    return name, _credential(login)


def _credential(login: str) -> Credential:
    name, _, password = login.partition(" ")
    return Credential(name.encode(), password.strip().encode())


def _content(control_folder: str, file: str) -> bytes:
    try:
        with open(os.path.join(control_folder, os.path.basename(file)), "rb") as opened:
            found = opened.read(SIZE + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        why = f"cannot be read: {error.strerror}; 'openqmail check' tells its owner and mode"
        raise ControlError(file, 0, why) from None
    if len(found) > SIZE:
        raise ControlError(file, 0, f"is larger than {SIZE} bytes; it cannot be meant")
    return found
