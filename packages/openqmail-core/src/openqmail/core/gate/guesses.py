"""Which failed logins are one guess: a client that says one wrong password by each mechanism in turn.

Python's smtplib does so, and would come to a lock-out three times as fast as its user has failed.  Another
secret is another guess, and so is the same by the same mechanism; so nobody guesses more often by it.  What
SCRAM proves cannot be compared.  No password is kept, but a digest under a key of this process.
"""

import hashlib
import hmac
import secrets

import msgspec

from openqmail.core.ports.sasl import SaslClient
from openqmail.core.sasl import CheckPassword, CheckResponse, CheckToken, Query, cram_response

MOST = 4096
"""Guesses that are remembered, one a connection and login; the oldest goes."""

Kept = bytes | CheckResponse
"""The digest of a secret, or what CRAM-MD5 has of one."""


class _Guess(msgspec.Struct, frozen=True):
    said: Kept
    mechanisms: frozenset[bytes]


class Guesses:
    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._last: dict[tuple[str, int, bytes], _Guess] = {}

    def again(self, client: SaslClient, login: bytes, mechanism: bytes, query: Query | None) -> bool:
        """Whether this failure is the guess that failed before it in this connection, by one mechanism more.

        `login` as it compares; `query`: what was asked of those who know."""
        name = (client.address, client.port, login)
        before = self._last.pop(name, None)
        said = self._kept(query)
        if said is None:
            return False
        known = before is not None and mechanism not in before.mechanisms and self._same(before.said, query)
        mechanisms = before.mechanisms if before is not None and known else frozenset()
        self._last[name] = _Guess(said, mechanisms | {mechanism})
        if len(self._last) > MOST:
            del self._last[next(iter(self._last))]
        return known

    def _kept(self, query: Query | None) -> Kept | None:
        """None for what cannot be compared."""
        match query:
            case CheckPassword(_, secret) | CheckToken(_, secret):
                return hashlib.blake2b(secret, key=self._key).digest()
            case CheckResponse():
                return query
        return None

    def _same(self, before: Kept, query: Query | None) -> bool:
        if isinstance(before, bytes):
            return before == self._kept(query)
        if not isinstance(query, CheckPassword):
            return False
        return hmac.compare_digest(cram_response(query.password, before.challenge), before.response)
