"""How mail for an address would be routed and delivered now, and by which lines: nothing is changed.

Every decision is made by the code that makes it for mail: the router, users/cdb, the `.qmail`
interpreter, the pathfinder; here they are asked one after the other and their words are put
together.  What belongs to a user is looked at as that user, and the DNS is asked as `remote`.
"""

import asyncio
import codecs
import os
from collections.abc import Callable
from contextlib import suppress

import msgspec

from openqmail.core.control.accounts import Account, Accounts, as_send
from openqmail.core.control.assign import FILE, Assignment, Users, line_of, local_part, owner_of
from openqmail.core.control.home import Home
from openqmail.core.control.owner import load_late
from openqmail.core.control.places import place_of
from openqmail.core.control.routing import Routed, route
from openqmail.core.control.settings import Settings
from openqmail.core.local.explaining import explain as explain_local
from openqmail.core.log.escaping import readable
from openqmail.core.ports import Explanation, Step, Trail
from openqmail.core.remote.explaining import explain as explain_remote
from openqmail.core.remote.keys import Keys
from openqmail.core.remote.remote import load_transport
from openqmail.core.remote.tcpto import Silence, silences
from openqmail.core.send.routing import sender_for
from openqmail.core.service.confine.asking import ask_as
from openqmail.core.smtpd.policy import NOT_OURS, listed_as
from openqmail.core.smtpd.recipients import reply_of
from openqmail.core.values import OpenqmailError, Outcome, Reply, Result, TemporaryFailure
from openqmail.core.values.address import canonical_domain
from openqmail.core.world import PosixDisk

codecs.lookup("ascii")  # which a user may not be able to load whom this process becomes


class Explained(msgspec.Struct, frozen=True):
    """`routed`: where it goes; `trail`: why, and what would happen there; `result`: what a delivery
    would be told, as in `Explanation`."""

    routed: Routed
    trail: Trail
    result: Result | None


def explain(home: Home, settings: Settings, accounts: Accounts, address: bytes, sender: bytes) -> Explained:
    """For mail of this sender.  To be called as root in a home of root's, else as its owner."""
    load_late()
    routed, trail = _route(home, settings, address)
    if routed.channel == "local":
        found = _local(home, settings, accounts, routed)
    else:
        found = _remote(home, settings, accounts, routed, sender_for(sender, routed.address))
    trail += found.trail
    for forward in found.forwards:
        there, _ = _route(home, settings, forward)
        way = "of this host, delivered as" if there.channel == "local" else "of another host:"
        trail.append(Step("forward", f"to {readable(forward)}, {way} {readable(there.address)}"))
    trail += _at_rcpt(home, settings, address, routed, found)
    return Explained(routed, tuple(trail), found.result)


def _route(home: Home, settings: Settings, address: bytes) -> tuple[Routed, list[Step]]:
    trail: list[Step] = []

    def tell(name: str, key: bytes, made: bytes) -> None:
        trail.append(Step(place_of(home, name, key), f"{_MEANS[name]} {readable(made)}"))

    routed = route(address, settings, tell)
    if routed.channel == "remote":
        what, domain = "control/locals, control/virtualdomains", readable(routed.domain) or "an empty name"
        text = f"no line makes {domain} a domain of this host: it belongs to another"
        trail.append(Step(what, text))
    return routed, trail


_MEANS = {
    "envnoathost": "stands behind an address without @:",
    "percenthack": "the address behind the % counts:",
    "locals": "a domain of this host:",
    "virtualdomains": "says how the address is delivered:",
}


# --- of this host -------------------------------------------------------------------------


def _local(home: Home, settings: Settings, accounts: Accounts, routed: Routed) -> Explanation:
    local, users = local_part(routed.address), Users(os.path.join(home.users, "cdb"))
    step = _assigned(home, users, local)
    user = owner_of(local, users, accounts.alias_in(home), own=home.uid != 0)
    if isinstance(user, Result):
        return Explanation((step,), user)
    account, where = Account(os.fsdecode(user.name), user.uid, user.gid), (user.home, user.dash, user.ext)
    found = _asked(account, lambda: explain_local(PosixDisk(), *where, settings.defaultdelivery))
    return msgspec.structs.replace(found, trail=(step, *found.trail))


def _assigned(home: Home, users: Users, local: bytes) -> Step:
    """What users/cdb has of a local part."""
    try:
        entry = users.entry(local)
    except TemporaryFailure as error:
        return Step("users/cdb", str(error))
    if entry is None:
        return Step(FILE, f"no entry for {readable(local)}: it is an alias, looked for in {home.alias}")
    user = entry.user
    return Step(_place(home, entry), f"{readable(user.name)}, uid {user.uid}, home {readable(user.home)}")


def _place(home: Home, entry: Assignment) -> str:
    """The line of users/assign, if it has not been changed since users/cdb was made of it."""
    kind, name = ("wildcard +", entry.local) if entry.wildcard else ("exact =", entry.local)
    try:
        with open(os.path.join(home.users, "assign"), "rb") as opened:
            number = line_of(opened.read(), entry)
    except OSError:
        number = 0
    where = f"{FILE} line {number}" if number else f"users/cdb, {FILE} has no such line any more"
    return f"{where} ({kind}{readable(name)})"


# --- of others ----------------------------------------------------------------------------


def _remote(home: Home, settings: Settings, accounts: Accounts, routed: Routed, sender: bytes) -> Explanation:
    for name in {"smtp", *(each.transport for each in settings.smtproutes.values())}:
        with suppress(OpenqmailError, KeyError):  # told by who asks
            load_transport(name)

    def place(name: str, key: bytes) -> str:
        return place_of(home, name, key)

    keys = Keys.load(home.control, settings)

    silent: dict[str, Silence] = {}
    with suppress(OSError), as_send(home):
        silent = silences(home.queue)

    def look() -> Explanation:
        explaining = explain_remote(routed.domain, sender, settings, place, silent, keys=keys)
        return asyncio.run(explaining)

    return _asked(accounts.remote, look)


# --- at RCPT ------------------------------------------------------------------------------


def _at_rcpt(
    home: Home, settings: Settings, address: bytes, routed: Routed, found: Explanation
) -> list[Step]:
    """What an SMTP client would be told."""
    _, at, domain = address.rpartition(b"@")
    key = listed_as(canonical_domain(domain), settings.rcpthosts) if at else None
    if not at:
        trail = [Step("control/rcpthosts", "an address without @ is for this host: anybody may send to it")]
    elif key is not None:
        trail = [Step(place_of(home, "rcpthosts", key), "anybody may send to this domain")]
    else:
        told = f"only who may relay, by control/rules, a login or a certificate; others: {_reply(NOT_OURS)}"
        trail = [Step("control/rcpthosts", f"has no line for {readable(domain)}: {told}")]
    if routed.channel != "local":
        return trail
    if not settings.checkrcpt:
        return [*trail, Step("control/checkrcpt", "is off: RCPT does not ask whether there is a mailbox")]
    reply = reply_of(None if found.late else found.result)
    text = "RCPT is accepted" if reply is None else f"RCPT is answered: {_reply(reply)}"
    return [*trail, Step(place_of(home, "checkrcpt"), text)]


def _reply(reply: Reply) -> str:
    words = [b"%d" % reply.code, reply.enhanced, *reply.lines]
    return readable(b" ".join(filter(None, words)))


# --- as somebody else ---------------------------------------------------------------------


class _Told(msgspec.Struct, frozen=True):
    """An explanation in a pipe."""

    trail: Trail
    outcome: bytes
    text: bytes
    forwards: tuple[bytes, ...]
    late: bool


def _asked(account: Account, look: Callable[[], Explanation]) -> Explanation:
    """What that user sees; nothing, when he cannot be asked."""

    def work() -> bytes:
        found = look()
        outcome, text = (found.result.outcome.value, found.result.text) if found.result else (b"", b"")
        return msgspec.msgpack.encode(_Told(found.trail, outcome, text, found.forwards, found.late))

    try:
        told = msgspec.msgpack.decode(ask_as(account, work), type=_Told)
        result = Result(Outcome(told.outcome), told.text) if told.outcome else None
    except (OpenqmailError, msgspec.DecodeError, ValueError) as error:
        return Explanation((Step(f"as {account.name}", f"cannot be told: {error}"),), None)
    return Explanation(told.trail, result, told.forwards, told.late)
