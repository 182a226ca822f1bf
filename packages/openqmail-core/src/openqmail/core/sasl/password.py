"""PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login) and CRAM-MD5 (RFC 2195).

CRAM-MD5 hides the password from who listens, and nothing else: the server must know it in plain,
and what was heard can be guessed from at leisure.  It is here for old clients.
"""

import hmac
import re

from openqmail.core.sasl.machine import (
    Calling,
    Malformed,
    Serving,
    Setting,
    answered,
    checked_login,
    checked_password,
    heard,
    judged,
    opened,
    refuse_more,
    told,
)
from openqmail.core.sasl.steps import WRONG, CheckPassword, CheckResponse, Denied


def cram_response(password: bytes, challenge: bytes) -> bytes:
    """What answers a challenge of CRAM-MD5."""
    return hmac.new(password, challenge, "md5").hexdigest().encode()


# --- servers ----------------------------------------------------------------------------------


def serve_plain(setting: Setting, initial: bytes | None) -> Serving:
    message = yield from opened(initial)
    if message.count(b"\0") != 2:
        raise Malformed
    acting_as, login, password = message.split(b"\0")
    query = CheckPassword(checked_login(login), checked_password(password))
    if acting_as not in (b"", login):  # nobody may act as another
        return Denied(WRONG)
    return judged((yield from told(query)))


def serve_login(setting: Setting, initial: bytes | None) -> Serving:
    login = checked_login(initial if initial is not None else (yield from heard(b"Username:")))
    password = checked_password((yield from heard(b"Password:")))
    return judged((yield from told(CheckPassword(login, password))))


def serve_cram(setting: Setting, initial: bytes | None) -> Serving:
    if initial is not None:
        raise Malformed
    challenge = b"<%b@%b>" % (setting.nonce(), setting.facts.host)
    login, _, response = (yield from heard(challenge)).rpartition(b" ")
    if not re.fullmatch(rb"[0-9A-Fa-f]{32}", response):
        raise Malformed
    query = CheckResponse(checked_login(login), challenge, response.lower())
    return judged((yield from told(query)))


# --- clients ----------------------------------------------------------------------------------


def call_plain(setting: Setting, login: bytes, password: bytes) -> Calling:
    refuse_more((yield b"\0%b\0%b" % (login, password)))


def call_login(setting: Setting, login: bytes, password: bytes) -> Calling:
    yield from answered(None)
    yield from answered(login)
    refuse_more((yield password))


def call_cram(setting: Setting, login: bytes, password: bytes) -> Calling:
    challenge = yield from answered(None)
    refuse_more((yield b"%b %b" % (login, cram_response(password, challenge))))
