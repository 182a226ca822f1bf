"""How a mechanism is written: as a generator that reads like the RFC's exchange.

A server's yields what it says or asks and is sent what comes back; a client's yields what it says
and is sent the challenges, or None when the server says that all is done.
"""

import re
from collections.abc import Callable, Generator
from typing import NoReturn

import msgspec

from openqmail.core.sasl.steps import (
    LATER,
    LOGIN_LENGTH,
    PASSWORD_LENGTH,
    WRONG,
    Answer,
    Ask,
    Challenge,
    Denied,
    Facts,
    Granted,
    Later,
    Query,
    SaslError,
    Yes,
)

Nonce = Callable[[], bytes]
"""Makes something that was never said before, in printable ASCII without commas or blanks."""

Serving = Generator[Challenge | Ask, bytes | Answer, Granted | Denied]
Calling = Generator[bytes | None, bytes | None, None]


class Setting(msgspec.Struct, frozen=True):
    """What a mechanism may know of where it is."""

    name: bytes
    facts: Facts
    nonce: Nonce


class Malformed(Exception):
    """What the client sent has not the form of the mechanism."""


# --- for servers ------------------------------------------------------------------------------


def heard(challenge: bytes) -> Generator[Challenge, bytes | Answer, bytes]:
    """What the client answers to this."""
    came = yield Challenge(challenge)
    assert isinstance(came, bytes)
    return came


def opened(initial: bytes | None) -> Generator[Challenge, bytes | Answer, bytes]:
    """What the client begins with, asked for where it came without."""
    return initial if initial is not None else (yield from heard(b""))


def told(query: Query) -> Generator[Ask, bytes | Answer, Answer]:
    came = yield Ask(query)
    assert not isinstance(came, bytes)
    return came


def judged(answer: Answer) -> Granted | Denied:
    if isinstance(answer, Yes):
        return Granted(answer.identity)
    return Denied(LATER if isinstance(answer, Later) else WRONG)


def checked_login(login: bytes) -> bytes:
    if not login or len(login) > LOGIN_LENGTH or b"\0" in login:
        raise Malformed
    return login


def checked_password(password: bytes) -> bytes:
    if not password or len(password) > PASSWORD_LENGTH or b"\0" in password:
        raise Malformed
    return password


def unescaped(name: bytes) -> bytes:
    """A name of GS2: =2C for a comma, =3D for an equals sign (RFC 5801 section 4), UTF-8."""
    if re.search(rb"=(?!2C|3D)|[,\0]", name):
        raise Malformed
    try:
        name.decode()
    except UnicodeDecodeError:
        raise Malformed from None
    return name.replace(b"=2C", b",").replace(b"=3D", b"=")


# --- for clients ------------------------------------------------------------------------------


def answered(said: bytes | None) -> Generator[bytes | None, bytes | None, bytes]:
    """The challenge that the server answers this with.  Raises SaslError where it says that all is done."""
    challenge = yield said
    if challenge is None:
        raise SaslError("the server says that the login is done before it is")
    return challenge


def refuse_more(challenge: bytes | None) -> None:
    """After the last word of a client."""
    if challenge is not None:
        raise SaslError("the server asks for more than the mechanism has to say")


def fail(why: str) -> NoReturn:
    raise SaslError(why)


def escaped(name: bytes) -> bytes:
    return name.replace(b"=", b"=3D").replace(b",", b"=2C")
