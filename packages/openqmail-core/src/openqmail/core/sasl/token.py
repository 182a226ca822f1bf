"""OAUTHBEARER (RFC 7628) and XOAUTH2 (Google's, its forerunner): a bearer token, in clear.

Whether the token is good, and whose it is, is asked for.  A token that is not good is answered with a
challenge that says so in JSON, and the client has to say something before it is denied.
"""

import re

from openqmail.core.sasl.machine import (
    Calling,
    Malformed,
    Serving,
    Setting,
    checked_login,
    escaped,
    fail,
    heard,
    judged,
    opened,
    told,
    unescaped,
)
from openqmail.core.sasl.steps import WRONG, CheckToken, Denied, Granted

_REFUSAL = b'{"status":"invalid_token"}'
_BEARER = re.compile(rb"bearer +([\x21-\x7e]+)", re.IGNORECASE)

# --- servers ----------------------------------------------------------------------------------


def serve_oauthbearer(setting: Setting, initial: bytes | None) -> Serving:
    header, *fields = _fields((yield from opened(initial)))
    gs2 = re.fullmatch(rb"[ny],(?:a=([^,]+))?,", header)
    if gs2 is None:
        raise Malformed
    login = checked_login(unescaped(gs2[1])) if gs2[1] else b""
    return (yield from _decide(CheckToken(login, _token(fields))))


def serve_xoauth2(setting: Setting, initial: bytes | None) -> Serving:
    user, *fields = _fields((yield from opened(initial)))
    if not user.startswith(b"user="):
        raise Malformed
    login = checked_login(user.removeprefix(b"user="))
    return (yield from _decide(CheckToken(login, _token(fields))))


def _fields(message: bytes) -> list[bytes]:
    *fields, last, end = message.split(b"\1") if message.count(b"\1") > 1 else [b"", b"no", b"end"]
    if last or end or not all(fields):
        raise Malformed
    return fields


def _token(fields: list[bytes]) -> bytes:
    found = [value for key, _, value in (field.partition(b"=") for field in fields) if key == b"auth"]
    bearer = _BEARER.fullmatch(found[0]) if len(found) == 1 else None
    if bearer is None:
        raise Malformed
    return bearer[1]


def _decide(query: CheckToken) -> Serving:
    verdict = judged((yield from told(query)))
    if verdict == Denied(WRONG):
        yield from heard(_REFUSAL)
    if isinstance(verdict, Granted) and not verdict.identity:
        return Denied(WRONG)
    return verdict


# --- clients ----------------------------------------------------------------------------------


def call_oauthbearer(setting: Setting, login: bytes, token: bytes) -> Calling:
    facts = setting.facts
    where = [b"host=%b" % facts.host] if facts.host else []
    where += [b"port=%d" % facts.port] if facts.port else []
    fields = [b"n,a=%b," % escaped(login), *where, b"auth=Bearer %b" % token]
    return (yield from _present(fields, b"\1"))


def call_xoauth2(setting: Setting, login: bytes, token: bytes) -> Calling:
    return (yield from _present([b"user=%b" % login, b"auth=Bearer %b" % token], b""))


def _present(fields: list[bytes], last_word: bytes) -> Calling:
    refusal = yield b"\1".join([*fields, b"", b""])
    if refusal is None:
        return
    if (yield last_word) is None:
        fail("the server takes a token that it has refused")
    fail("the server refuses the token, and asks for more")
