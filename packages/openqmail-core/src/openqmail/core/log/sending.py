"""The facts of sending that qmail-remote kept to itself: TLS with other hosts, and our logins there.

Lines are those of receiving.py in their manner, and begin with `remote: `.  `delivery` is the one for which
the connection was opened; those that follow on a kept connection have the same TLS and the same login.
"""

from typing import Literal

import msgspec

from openqmail.core.log.receiving import ADDRESS, TEXT, cut, host_and_port, word


class RemoteTls(msgspec.Struct, frozen=True, gc=False):
    """A connection to another host is ciphered.

    `host`: its address; `name`: as the MX or the route gave it; `policy`: what was asked for, a word of
    control/tlspolicy.  `tls`: the version; `peer`: the name that its certificate has proved, None where
    nobody asked for that."""

    delivery: int
    host: str
    port: int
    name: bytes
    policy: str
    tls: str
    cipher: str
    sni: str | None = None
    peer: str | None = None

    def line(self) -> bytes:
        facts = (self.policy, self.tls, self.cipher, self.sni, self.peer)
        words = tuple([word((text or "").encode("utf-8", "replace")) for text in facts])
        return (
            b"remote: tls: delivery %d host %b name %b"
            % (
                self.delivery,
                host_and_port(self.host, self.port),
                word(self.name),
            )
            + b" policy %b tls %b cipher %b sni %b peer %b" % words
        )


class RemoteTlsFailed(msgspec.Struct, frozen=True, gc=False):
    """A TLS handshake with another host came to nothing, or it is not who it has to be.

    `then`: `plain`, it is tried again without TLS; `wait`, the policy does not let it."""

    delivery: int
    host: str
    port: int
    name: bytes
    policy: str
    then: Literal["plain", "wait"]
    text: bytes

    def line(self) -> bytes:
        return b"remote: tls failed: delivery %d host %b name %b policy %b then %b text %b" % (
            self.delivery,
            host_and_port(self.host, self.port),
            word(self.name),
            word(self.policy.encode("utf-8", "replace")),
            self.then.encode(),
            cut(self.text, TEXT),
        )


class RemoteLogin(msgspec.Struct, frozen=True, gc=False):
    """Another host has taken our login.

    `login`: who we are there, empty where it may not be told; `mechanism`: of AUTH; `tls`: whether that was
    under TLS."""

    delivery: int
    host: str
    port: int
    name: bytes
    login: bytes
    mechanism: bytes
    tls: bool

    def line(self) -> bytes:
        return b"remote: login <%b>: delivery %d host %b name %b mechanism %b tls %b" % (
            cut(self.login, ADDRESS),
            self.delivery,
            host_and_port(self.host, self.port),
            word(self.name),
            word(self.mechanism),
            b"yes" if self.tls else b"no",
        )
