"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, 7677), for both sides.

The server proves that it knows the verifier, and -PLUS that both sides see the same TLS: by tls-exporter
(RFC 9266) or tls-server-end-point (RFC 5929), whichever the client names.  A client that could bind but
was shown no -PLUS says `y`; where it was offered, somebody in between took it out, and the login is
denied.  SMTP's 235 carries no data, so the server's proof is a challenge with an empty answer.
"""

import base64
import hashlib
import hmac
import re

import msgspec

from openqmail.core.sasl.machine import (
    Calling,
    Malformed,
    Serving,
    Setting,
    answered,
    checked_login,
    escaped,
    fail,
    heard,
    opened,
    refuse_more,
    told,
    unescaped,
)
from openqmail.core.sasl.saslprep import prepared
from openqmail.core.sasl.secret import FEWEST, MOST, SALT_LENGTH
from openqmail.core.sasl.steps import (
    LATER,
    SCRAM_PLUS,
    WRONG,
    Denied,
    Facts,
    Granted,
    Later,
    Secrets,
    WantSecrets,
)

BINDINGS = ("tls-exporter", "tls-server-end-point")
"""In a client's order of preference."""

_NONCE = rb"[\x21-\x2b\x2d-\x7e]{1,512}"
_MORE = rb"(?:,[A-Za-z]=[^,]*)*"
_CLIENT_FIRST = re.compile(
    rb"((?:(n|y)|p=([A-Za-z0-9.-]{1,64})),(?:a=([^,]+))?,)(n=([^,]+),r=(%b)%b)" % (_NONCE, _MORE)
)
_CLIENT_FINAL = re.compile(rb"(c=([A-Za-z0-9+/=]+),r=(%b)%b),p=([A-Za-z0-9+/]{43}=)" % (_NONCE, _MORE))
_SERVER_FIRST = re.compile(rb"r=(%b),s=([A-Za-z0-9+/=]+),i=([1-9][0-9]{0,8})%b" % (_NONCE, _MORE))
_ERROR = re.compile(rb"e=([A-Za-z0-9 .-]{1,60})")


class _Opening(msgspec.Struct, frozen=True):
    """The client's first message.  `gs2` its header, `bare` the rest, as they were sent; `binding`: the
    name after p=."""

    gs2: bytes
    flag: bytes
    binding: str
    acting_as: bytes
    bare: bytes
    login: bytes
    nonce: bytes


def _opening(message: bytes) -> _Opening:
    found = _CLIENT_FIRST.fullmatch(message)
    if found is None:
        raise Malformed
    gs2, flag, binding, acting_as, bare, login, nonce = (part or b"" for part in found.groups())
    return _Opening(
        gs2,
        flag or b"p",
        binding.decode(),
        unescaped(acting_as),
        bare,
        checked_login(unescaped(login)),
        nonce,
    )


def serve(setting: Setting, initial: bytes | None) -> Serving:
    opening = _opening((yield from opened(initial)))
    if (opening.flag == b"p") != (setting.name == SCRAM_PLUS):
        raise Malformed
    if not _may_bind(opening, setting.facts) or opening.acting_as not in (b"", opening.login):
        return Denied(WRONG)
    answer = yield from told(WantSecrets(opening.login, setting.name))
    if not isinstance(answer, Secrets):
        return Denied(LATER if isinstance(answer, Later) else WRONG)
    verifier = answer.verifier

    nonce = opening.nonce + setting.nonce()
    first = b"r=%b,s=%b,i=%d" % (nonce, base64.b64encode(verifier.salt), verifier.iterations)
    found = _CLIENT_FINAL.fullmatch((yield from heard(first)))
    if found is None:
        raise Malformed
    unproved, bound, said_nonce, proof = found.groups()
    if not hmac.compare_digest(said_nonce, nonce):
        raise Malformed
    expected = opening.gs2 + (setting.facts.bindings[opening.binding] if opening.binding else b"")
    message = b",".join((opening.bare, first, unproved))
    good = hmac.compare_digest(_decoded(bound), expected)
    good &= _proves(_decoded(proof), verifier.stored_key, message)
    if not good:
        return Denied(WRONG)

    signature = hmac.digest(verifier.server_key, message, "sha256")
    if (yield from heard(b"v=%b" % base64.b64encode(signature))):
        raise Malformed
    return Granted(answer.identity)


def _may_bind(opening: _Opening, facts: Facts) -> bool:
    """Whether it binds to something that is there, or to nothing because we offered nothing."""
    if opening.flag == b"p":
        return opening.binding in BINDINGS and opening.binding in facts.bindings
    return opening.flag == b"n" or not facts.bindings


def _proves(proof: bytes, stored_key: bytes, message: bytes) -> bool:
    client_key = _xor(proof, hmac.digest(stored_key, message, "sha256"))
    return hmac.compare_digest(hashlib.sha256(client_key).digest(), stored_key)


def call(setting: Setting, login: bytes, password: bytes) -> Calling:
    gs2, binding = _binding(setting)
    nonce = setting.nonce()
    bare = b"n=%b,r=%b" % (escaped(prepared(login)), nonce)
    first = yield from answered(gs2 + bare)
    found = _SERVER_FIRST.fullmatch(first)
    if found is None:
        fail(_reason(first))
    whole, salt, iterations = found[1], _salt(found[2]), int(found[3])
    if not whole.startswith(nonce) or len(whole) == len(nonce):
        fail("the server answers somebody else: its nonce does not go on from ours")
    if not FEWEST <= iterations <= MOST:
        fail(f"the server wants {iterations} iterations; {FEWEST} to {MOST} are reasonable")

    salted = hashlib.pbkdf2_hmac("sha256", prepared(password), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    unproved = b"c=%b,r=%b" % (base64.b64encode(gs2 + binding), whole)
    message = b",".join((bare, first, unproved))
    proof = _xor(client_key, hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256"))
    last = yield from answered(b"%b,p=%b" % (unproved, base64.b64encode(proof)))
    signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
    if _ERROR.match(last):
        fail(_reason(last))
    if not hmac.compare_digest(last.partition(b",")[0], b"v=%b" % base64.b64encode(signature)):
        fail("the server cannot prove that it knows the secret; it may not be the one that is meant")
    refuse_more((yield b""))


def _binding(setting: Setting) -> tuple[bytes, bytes]:
    """The GS2 header, and the data that both sides must see."""
    bindings = setting.facts.bindings
    if setting.name == SCRAM_PLUS:
        for name in BINDINGS:
            if name in bindings:
                return b"p=%b,," % name.encode(), bindings[name]
        fail("there is nothing that this TLS connection could be bound to")
    return (b"y,," if bindings else b"n,,"), b""


def _salt(text: bytes) -> bytes:
    try:
        salt = _decoded(text)
    except Malformed:
        salt = b""
    if not 1 <= len(salt) <= SALT_LENGTH:
        fail("the server's salt is not base64, empty or too long")
    return salt


def _reason(message: bytes) -> str:
    found = _ERROR.match(message)
    if found is None:
        return "the server's message has not the form of SCRAM"
    return f"the server refuses: {found[1].decode()}"


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise Malformed from None


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(left ^ right for left, right in zip(one, other, strict=True))
