"""What mail demands of one host before it goes there: how much TLS, whose certificate, which login.  Pure.

Decided by `control/tlspolicy` in this order: the line of the recipients' domain (its own, then its
.suffixes), that of the relay that control/smtproutes names, the line `*`, else `may`.  A pin in
control/tlshosts, and a login that is to be told, ask for at least `verify`; for the latter a line of the
relay's own name may ask for less.  What DANE (RFC 7672) and MTA-STS (RFC 8461) find out about an
exchanger will be decided here too, for each stop by itself.
"""

import ssl
from collections.abc import Mapping
from itertools import chain

import msgspec

from openqmail.core.control.securing import REST
from openqmail.core.remote.keys import Keys, Pin
from openqmail.core.smtp.client_events import Login, Terms
from openqmail.core.tls import Policy, TlsError, TlsFacts
from openqmail.core.tls.certificate import read_certificate
from openqmail.core.values.address import suffixes

SUBMISSIONS = 465
"""Where TLS begins with the connection (RFC 8314 section 3.3)."""


class Security(msgspec.Struct, frozen=True, cache_hash=True):
    """What has to be so at one host.

    `reason`: who says so, a clause for the administrator, "" where nobody does; `key`: of the line of
    control/tlspolicy that does.  `references`: names of which its certificate has to be for one, where it
    counts.  `context`: None where TLS is not begun."""

    policy: Policy = Policy.NONE
    reason: str = ""
    key: bytes | None = None
    references: tuple[str, ...] = ()
    pin: Pin | None = None
    login: Login | None = None
    context: ssl.SSLContext | None = None

    @property
    def terms(self) -> Terms:
        if self.context is None:
            return Terms("none", self.login)
        return Terms("must" if self.policy.encrypted else "may", self.login)

    def implicit(self, port: int) -> bool:
        """TLS begins with the connection."""
        return port == SUBMISSIONS and self.context is not None

    def without_tls(self) -> "Security":
        """For a host whose TLS does not work, where the policy lets it."""
        return msgspec.structs.replace(self, context=None)

    def judged(self, facts: TlsFacts, certificate: bytes) -> TlsFacts:
        """The facts, with the name that the host has proved.  Raises TlsError where it has not and had to."""
        if facts.peer or not (self.policy.verified or self.pin):
            return facts
        if self.pin is not None and certificate in self.pin.certificates:  # its own, whatever its names
            return msgspec.structs.replace(facts, peer=self.references[0])
        wanted = " or ".join(
            name if name[0] != "." else f"a name below {name[1:]}" for name in self.references
        )
        raise TlsError(f"its certificate is not for {wanted or 'any name'} but for {_names(certificate)}")


PLAIN = Security()
"""TLS is not begun, and nobody says who we are."""


class Demands:
    """Finds the security of a host.  Without `keys` there is no TLS, and no login."""

    def __init__(self, policies: Mapping[bytes, str], keys: Keys | None) -> None:
        self._policies = {key: Policy(word) for key, word in policies.items()}
        self._keys = keys
        self._opportunistic = PLAIN if keys is None else Security(Policy.MAY, context=keys.any)

    def of(
        self, domain: bytes, host: bytes, port: int, routed: bool = False, line: bytes | None = None
    ) -> Security:
        """Of `host` (a name or a literal, in lower case), where mail for `domain` may go, which is in its one
        spelling (`canonical_domain`).

        `routed`: because a route leads there, and not the DNS; `line`: the key of that in
        control/smtproutes, None for a hook's."""
        keys = self._keys
        if keys is None:
            return PLAIN
        key = self._key(domain, host if routed else None)
        policy = Policy.MAY if key is None else self._policies[key]
        reason = "" if key is None else f"control/tlspolicy says {policy.value} for {_shown(key)}"
        if key is None and host in keys.bare:
            policy, reason = Policy.NONE, f"there is a file control/notlshosts/{_shown(host)}"
        pin = keys.pins.get(host)
        if pin is not None and not policy.verified:
            policy, reason, key = Policy.VERIFY, f"there is a file {pin.file}", None
        login = self._login(line, host, port) if routed else None
        if login is not None and not policy.verified:
            if host == key:
                in_clear = policy is Policy.NONE
                login = msgspec.structs.replace(login, unverified=True, in_clear=in_clear)
            else:
                policy, key = Policy.VERIFY, None
                reason = (
                    f"a login is told to {_shown(host)}, and control/tlspolicy has no line of that name that "
                    "asks for less than verify"
                )
        if policy is Policy.MAY and not reason and login is None:
            return self._opportunistic
        return Security(
            policy,
            reason,
            key,
            self._references(policy, domain, host, routed) if policy.verified or pin else (),
            pin,
            login,
            self._context(policy, pin),
        )

    def _key(self, domain: bytes, relay: bytes | None) -> bytes | None:
        """Whose line of control/tlspolicy decides."""
        names = chain((domain,), suffixes(domain))
        if relay is not None:
            names = chain(names, (relay,), suffixes(relay))
        return next((name for name in chain(names, (REST,)) if name in self._policies), None)

    def _login(self, line: bytes | None, host: bytes, port: int) -> Login | None:
        assert self._keys is not None
        found = self._keys.login(line, host)
        return None if found is None else Login(found.name, found.password, host=host, port=port)

    def _context(self, policy: Policy, pin: Pin | None) -> ssl.SSLContext | None:
        assert self._keys is not None
        if policy is Policy.NONE:
            return None
        if pin is not None:
            return pin.context
        return self._keys.proved if policy.verified else self._keys.any

    def _references(self, policy: Policy, domain: bytes, host: bytes, routed: bool) -> tuple[str, ...]:
        # The name of a relay is the administrator's word, and not the DNS's.
        return (Policy.VERIFY if routed else policy).references(_shown(domain), _shown(host))


def _names(certificate: bytes) -> str:
    """Those that a certificate is for, as far as they are fit to be shown."""
    try:
        found = read_certificate(certificate).hosts
    except TlsError:
        return "none that can be read"
    names = [name[:64] for name in found[:3] if name.isprintable() and name.isascii()]
    more = f" and {len(found) - len(names)} more" if len(found) > len(names) else ""
    return (", ".join(names) or "no host") + more


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
