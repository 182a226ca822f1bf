"""Who may not try to log in for a while, after too many failures of a network or of a login.

A login that has succeeded from a network is at home there: it is held by failures there in its name alone.
So a telephone with an old password locks out nobody else of its network, and strangers who guess at a login
lock out its user nowhere but in networks that are new, and in their own.  A login gets `LENIENT` times as
many failures as a network, as anybody can fail in its name.  A login that nobody has is counted like any
other.
"""

from collections.abc import Iterator

from openqmail.core.limits import Lockouts, network_of, pause
from openqmail.core.log.escaping import readable
from openqmail.core.ports import LockedOut
from openqmail.core.sasl import prepared

LENIENT = 10

AT_HOME = 65_536
"""Pairs of login and network that are remembered; the one that was not used for longest goes."""


class Guard:
    """`failures`: of a network in ten minutes; 0 locks nobody.  `address` is the client's, `login` as
    it compares; empty where it is not known."""

    def __init__(self, failures: int) -> None:
        self._networks = Lockouts(failures)
        self._logins = Lockouts(failures * LENIENT)
        self._pairs = Lockouts(failures)
        self._at_home: dict[bytes, None] = {}

    def reconfigure(self, failures: int) -> None:
        self._networks.reconfigure(failures)
        self._logins.reconfigure(failures * LENIENT)
        self._pairs.reconfigure(failures)

    def locked(self, address: str, login: bytes, now: float) -> bool:
        network = network_of(address)
        pair = _pair(login, network)
        if pair in self._at_home:
            return self._pairs.locked(pair, now)
        return self._networks.locked(network, now) or (bool(login) and self._logins.locked(login, now))

    def failed(self, address: str, login: bytes, now: float, again: bool = False) -> float:
        """How many seconds to keep the answer back.  `again`: it is counted already."""
        count = Lockouts.failures if again else Lockouts.failed
        network = network_of(address)
        pair = _pair(login, network)
        if pair in self._at_home:
            return pause(count(self._pairs, pair, now))
        by_login = count(self._logins, login, now) if login else 0
        return pause(max(count(self._networks, network, now), by_login // LENIENT))

    def succeeded(self, address: str, login: bytes) -> None:
        pair = _pair(login, network_of(address))
        self._pairs.forgive(pair)
        self._at_home.pop(pair, None)
        self._at_home[pair] = None
        if len(self._at_home) > AT_HOME:
            del self._at_home[next(iter(self._at_home))]

    def counts(self, now: float) -> tuple[int, int, int]:
        """How many networks are locked, logins where they never were, and logins where they were before."""
        networks, logins, pairs = (
            sum(1 for _ in table.all_locked(now)) for table in (self._networks, self._logins, self._pairs)
        )
        return networks, logins, pairs

    def all_locked(self, now: float) -> Iterator[LockedOut]:
        """Of each of these three, in the order in which they failed last."""
        for network, failures, seconds in self._networks.all_locked(now):
            yield _locked_out(_pair(b"", network), failures, seconds)
        for login, failures, seconds in self._logins.all_locked(now):
            yield _locked_out(_pair(login, b""), failures, seconds)
        for pair, failures, seconds in self._pairs.all_locked(now):
            yield _locked_out(pair, failures, seconds)

    def unlock(self, name: str, now: float) -> int:
        """Forget the failures of a login, wherever it is, or of an address's network and all that were at
        home there; how many lock-outs that lifts."""
        login, network = compared(name.encode("utf-8", "surrogateescape")), network_of(name)
        found = [(self._networks, network), (self._logins, login)]
        for pair, *_ in self._pairs.all_locked(now):
            place, _, who = pair.partition(b" ")
            if place == network or who == login:
                found.append((self._pairs, pair))
        lifted = sum(table.locked(key, now) for table, key in found)
        for table, key in found:
            table.forgive(key)
        return lifted


def compared(login: bytes) -> bytes:
    """A login as it compares."""
    return prepared(login).lower()


def _pair(login: bytes, network: bytes) -> bytes:
    return network + b" " + login


def _locked_out(key: bytes, failures: int, seconds: float) -> LockedOut:
    network, _, login = map(readable, key.partition(b" "))
    return LockedOut(network, login, failures, max(1, round(seconds)))
