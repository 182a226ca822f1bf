"""SASL as a server (RFC 4422): one `Server` an attempt, pure, whatever the client sends.

The caller carries out each step: sends a Challenge and gives what comes to `respond`, finds out what an
Ask asks and gives that to `answer`, and has the result with Granted or Denied.  What a client sends
never raises: it is Denied(MALFORMED).  Base64 is the protocol's, so not done here; nor are delays,
counts and lock-outs, which are the gate's.
"""

import secrets
from collections.abc import Callable, Iterable

from openqmail.core.sasl import password, scram, token
from openqmail.core.sasl.machine import Malformed, Nonce, Serving, Setting
from openqmail.core.sasl.steps import (
    CRAM_MD5,
    LOGIN,
    LONGEST,
    MALFORMED,
    MECHANISMS,
    OAUTHBEARER,
    PLAIN,
    SCRAM,
    SCRAM_PLUS,
    XOAUTH2,
    Answer,
    Ask,
    Challenge,
    Denied,
    Facts,
    SaslError,
    Step,
)

_SERVING: dict[bytes, Callable[[Setting, bytes | None], Serving]] = {
    PLAIN: password.serve_plain,
    LOGIN: password.serve_login,
    CRAM_MD5: password.serve_cram,
    SCRAM: scram.serve,
    SCRAM_PLUS: scram.serve,
    OAUTHBEARER: token.serve_oauthbearer,
    XOAUTH2: token.serve_xoauth2,
}


def fresh_nonce() -> bytes:
    return secrets.token_urlsafe(18).encode()


def offered(servable: Iterable[bytes], facts: Facts, in_clear: bool) -> tuple[bytes, ...]:
    """Of the mechanisms that some back end can serve, those for this connection, in order.

    None without TLS unless `in_clear`: even what hides the password can be taken over or guessed from.
    -PLUS where TLS has something to bind to."""
    names = set(servable) if facts.tls or in_clear else set()
    if not facts.bindings:
        names.discard(SCRAM_PLUS)
    return tuple(name for name in MECHANISMS if name in names)


def server_mechanism(name: bytes, facts: Facts, nonce: Nonce = fresh_nonce) -> "Server":
    """`name` as it was offered, in capitals.  Raises SaslError for one that is not known."""
    if name not in _SERVING:
        raise SaslError("there is no such mechanism")
    return Server(Setting(name, facts, nonce))


class Server:
    """One attempt of one client."""

    def __init__(self, setting: Setting) -> None:
        self.name = setting.name
        self._setting = setting
        self._talk: Serving | None = None
        self._last: Step | None = None

    def start(self, initial: bytes | None) -> Step:
        """`initial`: what came with the command; None where nothing did, b"" for `=`."""
        if self._last is not None or len(initial or b"") > LONGEST:
            return self._end()
        self._talk = _SERVING[self.name](self._setting, initial)
        return self._advance(None)

    def respond(self, data: bytes) -> Step:
        """What the client answers to a challenge; at any other time it is malformed."""
        if not isinstance(self._last, Challenge) or len(data) > LONGEST:
            return self._end()
        return self._advance(data)

    def answer(self, answer: Answer) -> Step:
        """What was asked.  Raises SaslError when nothing was."""
        if not isinstance(self._last, Ask):
            raise SaslError("an answer came to what nobody asked")
        return self._advance(answer)

    def _advance(self, came: bytes | Answer | None) -> Step:
        assert self._talk is not None
        try:
            self._last = self._talk.send(came)  # type: ignore[arg-type]  # None begins it
        except StopIteration as ended:
            step: Step = ended.value
            self._last = step
        except Malformed:
            return self._end()
        return self._last

    def _end(self) -> Step:
        if self._talk is not None:
            self._talk.close()
        self._last = Denied(MALFORMED)
        return self._last
