"""Who may not try to log in for a while, after too many failures of a network or of a login.

A login that has succeeded from a network is at home there: it is held by failures there in its name alone.
So a telephone with an old password locks out nobody else of its network, and strangers who guess at a login
lock out its user nowhere but in networks that are new, and in their own.  A login gets `LENIENT` times as
many failures as a network, as anybody can fail in its name.  A login that nobody has is counted like any
other.
"""

from openqmail.core.limits import Lockouts, network_of, pause

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


def _pair(login: bytes, network: bytes) -> bytes:
    return network + b" " + login
