"""SASL as a client (RFC 4422): the best mechanism of those offered, and its exchange, pure.

`initial` goes with the command (None: without), `respond` answers each challenge, and `accepted` is
called when the server says that all is done.  The last two raise SaslError when the server breaks the
rules or cannot prove that it knows the secret; then the connection must not be used.  What a server is
given at most: a SCRAM password costs as many iterations as it asks for, up to a million (half a second).
"""

from collections.abc import Callable, Sequence

from openqmail.core.sasl import password, scram, token
from openqmail.core.sasl.machine import Calling, Nonce, Setting
from openqmail.core.sasl.secret import Hidden
from openqmail.core.sasl.server import fresh_nonce
from openqmail.core.sasl.steps import (
    CRAM_MD5,
    IN_CLEAR,
    LOGIN,
    LONGEST,
    OAUTHBEARER,
    PLAIN,
    SCRAM,
    SCRAM_PLUS,
    XOAUTH2,
    Facts,
    SaslError,
)


class Token(Hidden, frozen=True):
    """A bearer token (RFC 6750), where it stands for a password."""

    text: bytes


_CALLING: dict[bytes, Callable[[Setting, bytes, bytes], Calling]] = {
    SCRAM_PLUS: scram.call,
    SCRAM: scram.call,
    CRAM_MD5: password.call_cram,
    PLAIN: password.call_plain,
    LOGIN: password.call_login,
    OAUTHBEARER: token.call_oauthbearer,
    XOAUTH2: token.call_xoauth2,
}
"""In order of preference."""

_TOKENS = (OAUTHBEARER, XOAUTH2)


def client_mechanism(
    offered: Sequence[bytes],
    login: bytes,
    secret: bytes | Token,
    facts: Facts,
    in_clear: bool | None = None,
    nonce: Nonce = fresh_nonce,
) -> "Client | None":
    """The best that the server offers and this secret can serve; None where there is none.

    `in_clear`: whether the secret itself may be said; when None, under TLS only.  Without it only SCRAM
    and CRAM-MD5 are left.  A Token is for OAUTHBEARER and XOAUTH2, a password for all others.
    """
    names = {name.upper() for name in offered}
    clear = facts.tls if in_clear is None else in_clear
    for name in _CALLING:
        if name not in names or (name in _TOKENS) != isinstance(secret, Token):
            continue
        if (name in IN_CLEAR and not clear) or (name == SCRAM_PLUS and not facts.bindings):
            continue
        text = secret.text if isinstance(secret, Token) else secret
        return Client(Setting(name, facts, nonce), login, text)
    return None


class Client:
    """One attempt at one server."""

    def __init__(self, setting: Setting, login: bytes, secret: bytes) -> None:
        self.name = setting.name
        self._talk = _CALLING[setting.name](setting, login, secret)
        self._initial = next(self._talk)
        self._over = False

    def initial(self) -> bytes | None:
        """What goes with the command; None where the server speaks first."""
        return self._initial

    def respond(self, challenge: bytes) -> bytes:
        """Raises SaslError."""
        if len(challenge) > LONGEST:
            self._over = True
            raise SaslError(f"the server's challenge is longer than {LONGEST} bytes")
        try:
            said = self._go_on(challenge)
        except StopIteration:
            raise SaslError("the server asks for more than the mechanism has to say") from None
        assert said is not None
        return said

    def accepted(self) -> None:
        """The server says that we are in.  Raises SaslError where it has not proved itself."""
        try:
            self._go_on(None)
        except StopIteration:
            return
        raise SaslError("the server says that the login is done before it is")

    def _go_on(self, heard: bytes | None) -> bytes | None:
        if self._over:
            raise SaslError("this attempt is over")
        try:
            return self._talk.send(heard)
        except (StopIteration, SaslError):
            self._over = True
            raise
