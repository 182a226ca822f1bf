"""All certificates of a home and the lists that revoke some: what each is for, until when, what is wrong.

For who looks at them; nothing is served by this, and whatever is the matter is told beside the one that it is
the matter with.  What others may dislike is a warning, what keeps one from being of use a problem.
"""

import os
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

import msgspec

from openqmail.core.tls import files
from openqmail.core.tls.certificate import Certificate, Revocations, TlsError, read_revocations
from openqmail.core.tls.files import PemFile
from openqmail.core.tls.names import verified_name
from openqmail.core.tls.server import SUITES, ServerTls
from openqmail.core.values import ControlError

SOON = 14 * 86_400
"""Seconds before its end that a certificate is warned of."""

Kind = Literal["server", "client", "authority", "revocations", "pin"]


class Entry(msgspec.Struct, frozen=True):
    """One certificate, of a chain the host's own alone, or one revocation list.

    `kind`: `server`, what clients are shown; `client`, what other hosts are; `authority`, one of clients;
    `revocations`, what the authority in `names` has revoked; `pin`, what is believed of one host.  Times are
    seconds of Unix, 0 where there is none."""

    file: str
    kind: Kind
    names: tuple[str, ...] = ()
    issuer: str = ""
    self_signed: bool = False
    not_before: int = 0
    not_after: int = 0
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def inventory(control_folder: str, me: str, ciphers: str, now: float) -> list[Entry]:
    """`me`: this host's name, `ciphers`: those for its clients, `now`: seconds of Unix.  Raises nothing."""
    found: list[Entry] = []
    wrong: list[ControlError] = []
    try:
        ours = files.server_files(control_folder, wrong)
    except ControlError as error:
        found.append(_problem(error, "server"))
    else:
        found += [
            _own(file, "server", partial(dislikes, name=name or me, now=now)) for name, file in ours.items()
        ]
        if ours and "" not in ours:
            wrong.append(files.without_default(me))
    found += [_problem(error, "server") for error in wrong]
    found += _of_clients(control_folder, now)
    if not any(one.problems for one in found):
        try:
            ServerTls.load(control_folder, me.encode(), ciphers)
        except ControlError as error:  # of what belongs to them all
            found.append(_problem(error, "server"))
    own = PemFile(os.path.join(control_folder, "clientcert.pem"), "control/clientcert.pem")
    if os.path.lexists(own.path):
        found.append(_own(own, "client", partial(ending, now=now)))
    return [*found, *_pins(control_folder, now)]


def faults(control_folder: str, me: str, server_ciphers: str, client_ciphers: str) -> list[ControlError]:
    """All that keeps certificates, lists and ciphers from being of use.  Raises nothing."""
    found = []
    ciphers = {"tlsserverciphers": server_ciphers, "tlsclientciphers": client_ciphers}
    for name, some in ciphers.items():
        try:
            files.set_ciphers(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), some or SUITES, f"control/{name}")
        except ControlError as error:
            found.append(error)
    entries = inventory(control_folder, me, "" if found else server_ciphers, 0.0)
    return found + [ControlError(one.file, 0, why) for one in entries for why in one.problems]


def dislikes(certificate: Certificate, name: str, now: float) -> list[str]:
    """What others may dislike about a certificate of the host `name`."""
    found = ending(certificate, now)
    wanted = name[1:] if name.startswith("_.") else name
    if not verified_name(certificate, [wanted]):
        names = ", ".join(certificate.hosts) or certificate.common_name or "nobody"
        found.append(f"is for {names}, not for {name}; get one with that name")
    if certificate.self_issued:
        found.append("is self-signed, so others cannot verify whose it is; get one from an authority")
    return found


def ending(certificate: Certificate, now: float) -> list[str]:
    """What there is to say of its time."""
    found = []
    if now >= certificate.not_after:
        found.append("has expired; get a new one")
    elif now >= certificate.not_after - SOON:
        found.append(f"expires in {int(certificate.not_after - now) // 86_400} days; get a new one")
    if now < certificate.not_before:
        found.append("is not valid yet; get one that is, or set the clock")
    return found


def _own(file: PemFile, kind: Kind, disliked: Callable[[Certificate], list[str]]) -> Entry:
    """One of this host, with its key."""
    entry = Entry(file.name, kind)
    try:
        data = files.content(file)
        first = files.certificates(file, data)[0]
        entry = _entry(file, kind, first, disliked(first))
        files.check(file, data)
    except ControlError as error:
        return msgspec.structs.replace(entry, problems=(error.why,))
    return entry


def _believed(file: PemFile, kind: Kind, now: float) -> tuple[list[Entry], tuple[Certificate, ...]]:
    """Those of others."""
    try:
        found = files.certificates(file, files.content(file))
        files.load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), file, "certificate")
    except ControlError as error:
        return [_problem(error, kind)], ()
    return [_entry(file, kind, one, ending(one, now)) for one in found], found


def _pins(control_folder: str, now: float) -> Iterator[Entry]:
    wrong: list[ControlError] = []
    try:
        for file in files.pin_files(control_folder, wrong).values():
            yield from _believed(file, "pin", now)[0]
    except ControlError as error:
        wrong.append(error)
    yield from (_problem(error, "pin") for error in wrong)


def _of_clients(control_folder: str, now: float) -> Iterator[Entry]:
    ours, lists = (
        PemFile(os.path.join(control_folder, name), f"control/{name}") for name in files.CLIENT_FILES
    )
    authorities: tuple[Certificate, ...] = ()
    if os.path.lexists(ours.path):
        entries, authorities = _believed(ours, "authority", now)
        yield from entries
    if not os.path.lexists(lists.path):
        return
    try:
        if not os.path.lexists(ours.path):
            raise ControlError(lists.name, 0, files.NO_AUTHORITIES)
        found = read_revocations(files.content(lists))
        files.load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), lists, "revocation list")
    except TlsError as error:
        yield Entry(lists.name, "revocations", problems=(str(error),))
    except ControlError as error:
        yield _problem(error, "revocations")
    else:
        yield from (_list(lists, one, now) for one in found)
        yield from _without_a_list(lists, authorities, found)


def _list(file: PemFile, one: Revocations, now: float) -> Entry:
    why = ""
    if one.not_after and now >= one.not_after:
        why = "is out of date"
    elif now < one.not_before:
        why = "is not in force yet"
    warnings = (f"{why}, so no certificate of {one.issuer} passes; fetch the one that is in force",)
    return Entry(
        file.name,
        "revocations",
        names=(one.issuer,),
        not_before=one.not_before,
        not_after=one.not_after,
        warnings=warnings if why else (),
    )


def _without_a_list(
    file: PemFile, authorities: tuple[Certificate, ...], lists: tuple[Revocations, ...]
) -> Iterator[Entry]:
    """Authorities that sign for clients; those that only sign for others of the file need none."""
    listed = {one.issuer_name for one in lists}
    above = {one.issuer_name for one in authorities if not one.self_issued}
    for one in authorities:
        if one.subject_name not in listed | above:
            name = one.common_name or one.issuer
            why = f"is missing for {name}, so no certificate of {name} passes; add its list"
            yield Entry(file.name, "revocations", names=(name,), warnings=(why,))


def _entry(file: PemFile, kind: Kind, one: Certificate, warnings: list[str]) -> Entry:
    return Entry(
        file.name,
        kind,
        one.hosts or one.mailboxes or (one.common_name,),
        one.issuer,
        one.self_issued,
        one.not_before,
        one.not_after,
        warnings=tuple(warnings),
    )


def _problem(error: ControlError, kind: Kind) -> Entry:
    return Entry(error.file, kind, problems=(error.why,))
