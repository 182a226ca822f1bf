"""Reads the control files of a home: all of them into `Settings`, or one, or to check them.

A file that does not parse is an error that names file, line and remedy; nothing is guessed.
A missing file means its default, and a missing `rcpthosts` that nobody may relay.
"""

import ipaddress
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import msgspec

from openqmail.core.control import credentials, extensions, mechanisms, smtpauth, submitting
from openqmail.core.control.assign import parse_assign
from openqmail.core.control.definition import Definition
from openqmail.core.control.definitions import DEFINITIONS, FOREIGN
from openqmail.core.control.exposure import everybody
from openqmail.core.control.home import Home
from openqmail.core.control.listening import beside
from openqmail.core.control.pem import IMPLICIT, PEM, no_certificate
from openqmail.core.control.rules import Rules
from openqmail.core.control.settings import METRICS_LIBRARY, Listener, Settings
from openqmail.core.control.tcprules import without_effect
from openqmail.core.control.text import SIZE, ControlText, nearest, shown
from openqmail.core.tls import inventory
from openqmail.core.values import ControlError, OpenqmailError, TemporaryFailure

NO_CDB = "any 'openqmail mailbox add NAME' compiles it anew"
"""What helps when users/cdb is missing."""


MORE, MORE_CDB = "morercpthosts", "morercpthosts.cdb"


class Findings(msgspec.Struct, frozen=True):
    """`errors` would stop a start; `warnings` would not."""

    errors: tuple[ControlError, ...]
    warnings: tuple[ControlError, ...]


def read_settings(home: Home) -> Settings:
    """Core's files and those of installed add-ons.  Raises ControlError of the first problem, which
    says how many more there are, OpenqmailError for an add-on that cannot be loaded."""
    settings, problems = read_as_far(home)
    if problems:
        raise first_of(problems)
    return settings


def first_of(problems: Sequence[ControlError]) -> ControlError:
    """What stops a start, and where the others are told."""
    first, more = problems[0], len(problems) - 1
    why = f"{first.why}; {more} more: 'openqmail control check' names all" if more else first.why
    return ControlError(first.file, first.line, why)


def read_as_far(home: Home) -> tuple[Settings, list[ControlError]]:
    """What the files say without the lines that are wrong, and what is wrong with these: for who only
    tells.  Raises ControlError where nothing can be said, OpenqmailError as above."""
    definitions = all_definitions()
    values, problems = _read_all(home, definitions)
    broken = {problem.file for problem in problems}
    for definition in definitions:
        name, file = definition.name, f"control/{definition.name}"
        if name in values and (values[name] is not None or file not in broken):
            continue
        if definition.default is None or definition.default == "me":
            raise problems[0]
        values[name] = definition.parse(ControlText(file, definition.default.encode(), given=False))
    compiled = values.pop(MORE_CDB)
    if _is_newest(home, MORE_CDB, MORE):
        values[MORE] = compiled
    own = {definition.name for definition in DEFINITIONS}
    added = {name: values.pop(name) for name in values.keys() - own}
    settings = Settings(**values, added=added)  # type: ignore[arg-type]  # each parser makes what its field wants
    return settings, problems


def defaults(me: bytes, **changes: object) -> Settings:
    """What holds in a home that has `control/me` and no other control file, but for these fields.

    Raises ControlError for a `me` that is no host's name."""
    values: dict[str, object] = {}
    for definition in DEFINITIONS:
        if definition.name != MORE_CDB:
            default = me if definition.default in (None, "me") else definition.default.encode()
            text = ControlText(f"control/{definition.name}", default, given=definition.name == "me")
            values[definition.name] = definition.parse(text)
            if text.problems:
                raise text.problems[0]
    return Settings(**values | changes)  # type: ignore[arg-type]  # as above


def all_definitions() -> tuple[Definition, ...]:
    """Core's and those of installed add-ons; raises OpenqmailError for a broken add-on."""
    found = list(DEFINITIONS)
    for name in extensions.registered("openqmail.control"):
        added = extensions.load("openqmail.control", name)
        for definition in added if isinstance(added, tuple | list) else (added,):
            if not isinstance(definition, Definition):
                raise OpenqmailError(f"the add-on '{name}' registers something that is no control file")
            found.append(definition)
    return tuple(found)


_OF_USERS = {
    "smtpauth": "who may log in is told by 'openqmail user list'",
    "assign": "who gets mail is told by 'openqmail mailbox list'",
}
"""What may be looked for among the control files, and is none."""


def definition_of(name: str) -> Definition:
    """That of a control file.  Raises OpenqmailError, which tells the name that may be meant."""
    known = {definition.name: definition for definition in all_definitions()}
    plain = name.removeprefix("control/")
    if plain in known:
        return known[plain]
    if plain in _OF_USERS:
        raise OpenqmailError(f"'{plain}' is in the folder users; {_OF_USERS[plain]}")
    near = nearest(plain, [*known, *(one.folder for one in PEM)], 0.6)
    hint = f"did you mean {near}?" if near else "see 'openqmail control list'"
    raise OpenqmailError(f"there is no control file '{shown(name)}'; {hint}")


def content(home: Home, name: str) -> bytes | None:
    """A control file as it is, or None when there is none.  Raises ControlError."""
    file = f"control/{name}"
    try:
        with open(os.path.join(home.control, name), "rb") as opened:
            data = opened.read(SIZE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ControlError(file, 0, f"cannot be read: {error.strerror}; mend its kind or its mode") from None
    if len(data) > SIZE:
        raise ControlError(file, 0, f"is larger than {SIZE} bytes; it cannot be meant")
    return data


def check(home: Home) -> Findings:
    """Everything that is wrong or looks mistaken in the control files."""
    definitions: tuple[Definition, ...] = DEFINITIONS
    errors: list[ControlError] = []
    try:
        definitions = all_definitions()
    except OpenqmailError as error:
        errors.append(ControlError("control", 0, str(error)))
    values, problems = _read_all(home, definitions)
    errors += problems
    errors += not_installed(values, home)
    errors += beside(*(cast(tuple[Listener, ...], values.get(name) or ()) for name in ("metrics", "listen")))
    errors += _users(home)
    errors += _certificates(home, values)
    errors += credentials.faults(home.control)
    entries, problems_of_logins = _logins(home)
    logins = frozenset(entry.login for entry in entries.values())
    errors += problems_of_logins
    warnings = [*_mistaken_names(home, definitions), *_names_without_effect(home)]
    warnings += _contradictions(values)
    broken = {problem.file for problem in problems}
    warnings += submitting.doubtful(values, broken)
    if not problems_of_logins:
        warnings += submitting.of_nobody(values, logins)
        warnings += submitting.without_senders(values, logins, broken)
        warnings += mechanisms.doubtful(values, smtpauth.served_by(entries))
        warnings += smtpauth.with_many_iterations(entries)
        certificate = os.path.lexists(os.path.join(home.control, "servercert.pem"))
        warnings += submitting.without_users(values, logins, certificate)
    routes = values.get("smtproutes")
    if isinstance(routes, dict):
        relays = {host for route in routes.values() for host in route.hosts}
        warnings += credentials.led_nowhere(home.control, relays, hooks=bool(values.get("hooks")))
    warnings += _clients(home, values)
    if isinstance(rules := values.get("rules"), Rules):
        warnings += without_effect(rules)
    warnings += everybody(values)
    if os.path.exists(os.path.join(home.control, MORE_CDB)) and not _is_newest(home, MORE_CDB, MORE):
        warnings.append(
            ControlError(
                f"control/{MORE_CDB}", 0, f"is older than control/{MORE}, which is read itself; remove it"
            )
        )
    return Findings(tuple(errors), tuple(warnings))


def _read_all(home: Home, definitions: Iterable[Definition]) -> tuple[dict[str, object], list[ControlError]]:
    values: dict[str, object] = {}
    problems: dict[str, ControlError] = {}  # by their text: several files may fall back to a bad `me`
    for definition in definitions:
        try:
            text = _text(home, definition)
        except ControlError as error:
            problems[str(error)] = error
            continue
        values[definition.name] = definition.parse(text)
        problems.update((str(problem), problem) for problem in text.problems)
    return values, list(problems.values())


def _text(home: Home, definition: Definition) -> ControlText:
    """What holds for this file: its content, or its default's."""
    file = f"control/{definition.name}"
    found = content(home, definition.name)
    if found is not None:
        return ControlText(file, found, binary=definition.binary)
    if definition.default is None:
        raise _missing(home, definition)
    if definition.default != "me":
        return ControlText(file, definition.default.encode(), given=False)
    me = content(home, "me")
    if me is None:
        raise _missing(home, DEFINITIONS[0])
    return ControlText("control/me", me.partition(b"\n")[0])


def _is_newest(home: Home, compiled: str, source: str) -> bool:
    """Whether a compiled file is there, and its source is not newer."""
    times = []
    for name in (compiled, source):
        try:
            times.append(os.stat(os.path.join(home.control, name)).st_mtime_ns)
        except OSError:
            times.append(-1)
    return times[0] >= max(times[1], 0)


def _missing(home: Home, definition: Definition) -> ControlError:
    path = os.path.join(home.control, definition.name)
    return ControlError(
        f"control/{definition.name}",
        0,
        f"is missing; write {definition.kind} into it: echo {definition.example} > {path}",
    )


def not_installed(values: Mapping[str, object], home: Home) -> list[ControlError]:
    """Services, transports, hooks and libraries that a file wants and nothing provides; `values`: by file."""
    listen, routes, hooks = (values.get(name) or () for name in ("listen", "smtproutes", "hooks"))
    wanted = [("openqmail.services", listener.service) for listener in listen]  # type: ignore[attr-defined]
    wanted += [("openqmail.transports", route.transport) for route in getattr(routes, "values", tuple)()]
    wanted += [("openqmail.hooks", hook.name) for hook in hooks]  # type: ignore[attr-defined]
    errors = []
    for group, name in dict.fromkeys(wanted):
        try:
            extensions.find(group, name)
        except ControlError as error:
            errors.append(ControlError(error.file, _line_of(home, error.file, name), error.why))
    if values.get("metrics") and not extensions.installed(METRICS_LIBRARY):
        why = "needs prometheus-client, which is not installed: pip install 'openqmail-core[metrics]'"
        errors.append(ControlError("control/metrics", 0, why))
    return errors


def _certificates(home: Home, values: Mapping[str, object]) -> Iterable[ControlError]:
    """What is wrong with what clients and other hosts are shown, and with what is believed of them."""
    me, *ciphers = (values.get(name) for name in ("me", "tlsserverciphers", "tlsclientciphers"))
    if not isinstance(me, bytes):
        return
    found = inventory.faults(home.control, me.decode(), *(str(one or "") for one in ciphers))
    yield from found
    missing = not os.path.lexists(os.path.join(home.control, "servercert.pem"))
    if missing and "control/servercert.pem" not in [one.file for one in found]:
        for listener in cast(tuple[Listener, ...], values.get("listen") or ()):
            if listener.service in IMPLICIT:
                yield no_certificate(listener.service)


def _clients(home: Home, values: dict[str, object]) -> Iterable[ControlError]:
    """Clients are known by a certificate only where they are asked for one."""
    for name in ("servercert.pem", "clientca.pem") if values.get("tlsclients") else ():
        if not os.path.lexists(os.path.join(home.control, name)):
            why = f"lets nobody in without control/{name}; add that, or remove this"
            yield ControlError("control/tlsclients", 0, why)


def _line_of(home: Home, file: str, name: str) -> int:
    """The first line that begins with that word, or has it before a `!`; 0 when none does."""
    found = content(home, file.removeprefix("control/")) or b""
    for number, line in ControlText(file, found).entries():
        if line.split()[0] == name or f":{name}!" in line:
            return number
    return 0


def _users(home: Home) -> Iterable[ControlError]:
    """What is wrong in users/: mail is deferred as long as it is."""
    try:
        with open(os.path.join(home.users, "assign"), "rb") as opened:
            found, problems = parse_assign(opened.read())
    except OSError as error:
        yield ControlError("users/assign", 0, f"cannot be read: {error.strerror}; restore it")
        return
    yield from problems
    if not os.path.isfile(os.path.join(home.users, "cdb")):
        yield ControlError("users/cdb", 0, f"is missing; {NO_CDB}")
    for folder in dict.fromkeys(one.user.home for one in found):
        if not os.path.isdir(folder):
            where = folder.decode("utf-8", "backslashreplace")
            yield ControlError("users/assign", 0, f"names the folder {where}, which is not there; make it")


def _logins(home: Home) -> tuple[smtpauth.Entries, list[ControlError]]:
    """Those of users/smtpauth, and what is wrong there: who is in such a line cannot log in."""
    path = smtpauth.path_of(home)
    try:
        entries, problems = smtpauth.parse_smtpauth(smtpauth.read_smtpauth(path))
    except TemporaryFailure as error:
        return {}, [ControlError(smtpauth.FILE, 0, str(error).removeprefix(f"{path}: "))]
    return entries, problems


def _mistaken_names(home: Home, definitions: Iterable[Definition]) -> Iterable[ControlError]:
    known = {definition.name for definition in definitions} | {one.folder for one in PEM}
    family = {name: origin for origin, names in FOREIGN.items() for name in names}
    try:
        names = sorted(os.listdir(home.control))
    except OSError as error:
        yield ControlError("control", 0, f"cannot be listed: {error.strerror}")
        return
    for name in names:
        if name in known or name.startswith(".") or name.endswith("~"):
            continue
        told = name.encode("ascii", "backslashreplace").decode()
        if name in family:
            yield ControlError(f"control/{told}", 0, f"is {family[name]}'s; it has no effect here yet")
            continue
        near = nearest(name, known, 0.7)
        hint = f"did you mean {near}?" if near else "remove it, or see 'openqmail control list'"
        yield ControlError(f"control/{told}", 0, f"is not a control file and has no effect; {hint}")


def _names_without_effect(home: Home) -> Iterable[ControlError]:
    """In the folders of certificates, where each file is one host's."""
    for folder in (one.folder for one in PEM if one.name.endswith("/NAME.pem")):
        try:
            names = sorted(os.listdir(os.path.join(home.control, folder)))
        except OSError:
            continue  # it is not there, or others say what is the matter
        for name in names:
            if not name.endswith((".pem", "~")) and not name.startswith("."):
                told = name.encode("ascii", "backslashreplace").decode()
                why = "is not read, as its name does not end with .pem; rename it to the host's name and .pem"
                yield ControlError(f"control/{folder}/{told}", 0, why)


def _contradictions(values: dict[str, object]) -> Iterable[ControlError]:
    for listener in cast(tuple[Listener, ...], values.get("metrics") or ()):
        if not listener.host or not ipaddress.ip_address(listener.host).is_loopback:
            yield ControlError(
                "control/metrics",
                0,
                f"{listener.host or 'every address'} is not of loopback: whoever can connect to it reads the "
                "figures; write one like 127.0.0.1:9099, or let a firewall say who may",
            )
    for older in ("domainbindings", "domainips", "outgoingip"):
        if values.get("bindings") is not None and values.get(older):
            yield ControlError(
                f"control/{older}", 0, "has no effect beside control/bindings; move its lines there"
            )
    if values.get("listen") == ():
        yield ControlError(
            "control/listen",
            0,
            "names no listener, so no mail is received; write one like: smtp 127.0.0.1:2525",
        )
    locals_, virtual = values.get("locals"), values.get("virtualdomains")
    if isinstance(locals_, frozenset) and isinstance(virtual, dict):
        for domain in sorted(locals_ & virtual.keys()):
            name = domain.decode()
            yield ControlError(
                "control/virtualdomains",
                0,
                f"{name} is in control/locals too, which wins; remove one of them",
            )
