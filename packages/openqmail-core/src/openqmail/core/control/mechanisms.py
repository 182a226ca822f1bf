"""Which mechanisms of SASL are offered: what every login can use, or what control/authmechanisms names.

A client takes the best of what it is shown, and most never try another: one that a login cannot use keeps
it out whatever its password, and each try counts as a failure.  So SCRAM and CRAM-MD5 are not offered for the
sake of some.  PLAIN and LOGIN serve all, as clients take them last; a token is for who has one.
"""

from collections.abc import Iterable, Mapping

import msgspec

from openqmail.core.control.text import shown
from openqmail.core.sasl import CRAM_MD5, LOGIN, MECHANISMS, OAUTHBEARER, PLAIN, SCRAM, SCRAM_PLUS, XOAUTH2
from openqmail.core.values import ControlError

OF_PROGRAMS: Mapping[str, frozenset[bytes]] = {
    "checkpassword": frozenset({PLAIN, LOGIN}),
    "checkcram": frozenset({CRAM_MD5}),
    "checktoken": frozenset({OAUTHBEARER, XOAUTH2}),
}
"""A control file -> the mechanisms that its program serves."""

_BEFORE_PLAIN = frozenset({SCRAM_PLUS, SCRAM, CRAM_MD5})
"""What a client that has a password takes sooner than PLAIN."""


class Served(msgspec.Struct, frozen=True):
    """What the logins of users/smtpauth can use: `some` of them, and `all`."""

    some: frozenset[bytes] = frozenset()
    all: frozenset[bytes] = frozenset()


def served(logins: Iterable[frozenset[bytes]]) -> Served:
    """`logins`: what each can use."""
    every = list(logins)
    return Served(frozenset().union(*every), every[0].intersection(*every)) if every else Served()


def servable(file: Served, programs: Iterable[str]) -> frozenset[bytes]:
    """What somebody can use.  `programs`: the control files that name one."""
    return file.some.union(*(OF_PROGRAMS[one] for one in programs))


def chosen(file: Served, programs: Iterable[str], named: frozenset[bytes]) -> frozenset[bytes]:
    """What is offered; `named` in control/authmechanisms.

    What checkcram is, it is for all whom checkpassword knows."""
    programs = set(programs)
    some = servable(file, programs)
    if named:
        return some & named
    who = [file.all] if file.some else []
    if others := programs - {"checktoken"}:
        who.append(frozenset().union(*(OF_PROGRAMS[one] for one in others)))
    return some - {one for one in _BEFORE_PLAIN if not all(one in can for can in who)}


def mechanism(line: str) -> tuple[bytes, ...]:
    """A line of control/authmechanisms.  Raises ValueError."""
    name = line.upper().encode()
    if name not in MECHANISMS:
        known = " ".join(one.decode() for one in MECHANISMS)
        raise ValueError(f"'{shown(line)}' is no mechanism that is known; write one a line of: {known}")
    return (name,)


def doubtful(values: Mapping[str, object], file: Served) -> Iterable[ControlError]:
    """Names in control/authmechanisms that nobody can use, and passwords that are kept plain for nothing;
    `values`: of the control files."""
    programs = [one for one in OF_PROGRAMS if values.get(one)]
    named = values.get("authmechanisms")
    if not isinstance(named, frozenset):
        return
    can = servable(file, programs)
    for name in MECHANISMS:
        if name in named and name not in can:
            why = (
                f"has {name.decode()}, which is not offered, as nobody can use it: no login of "
                "users/smtpauth, and no program; remove the line, or see what serves it in "
                "'openqmail user list'"
            )
            yield ControlError("control/authmechanisms", 0, why)
    if CRAM_MD5 in file.some and CRAM_MD5 not in chosen(file, programs, named):
        why = (
            "has passwords kept plain, but CRAM-MD5, which wants them, is not offered; name it in "
            "control/authmechanisms with what else is to be offered, or take them out: openqmail user passwd "
            "NAME"
        )
        yield ControlError("users/smtpauth", 0, why)
