"""Passwords and their hashes: argon2id for new ones, crypt(5)'s for those that were there before.

argon2 by argon2-cffi; $1$, $5$ and $6$ by libpass; $2b$ and $y$ by the system's libcrypt, which is
there on Linux and the BSDs.  All are imported when they are needed first: who gives up rights before,
or becomes somebody who cannot read where they lie, calls `load_late`.
"""

import ctypes
import functools
import hmac
import importlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from openqmail.core.sasl import Hash
from openqmail.core.values import TemporaryFailure

ARGON2ID = "argon2id"

TIME, MEMORY, LANES = 2, 19_456, 1
"""argon2id's costs, memory in KiB: OWASP's least.  One lane, so that it starts no threads; a gate with
64 logins at once needs 1.2 GiB as it is."""

PACKAGES = ("argon2", "_argon2_cffi_bindings", "passlib")
"""What is imported late, and takes 0.9 MiB: a service in which nobody logs in never does."""

_BY_LIBPASS = {"md5-crypt": "md5_crypt", "sha256-crypt": "sha256_crypt", "sha512-crypt": "sha512_crypt"}

_LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2", "libcrypt.so", None)
"""Where crypt_r(3) may be; None: in libc itself."""

_CRYPT_DATA = 256 * 1024
"""Bytes, more than any struct crypt_data has."""


def load_late() -> None:
    """Import and open all that a hash may need."""
    import argon2  # noqa: F401, PLC0415

    for kind in _BY_LIBPASS:
        _libpass(kind)
    with suppress(TemporaryFailure):  # said when there is a hash that needs it
        _libcrypt()


def hash_password(password: bytes) -> Hash:
    """argon2id, with a new salt."""
    import argon2  # noqa: PLC0415

    hasher = argon2.PasswordHasher(time_cost=TIME, memory_cost=MEMORY, parallelism=LANES)
    return Hash(ARGON2ID, hasher.hash(password))


def matches(one: Hash, password: bytes) -> bool:
    """Whether this is the hash of that.  Raises TemporaryFailure where it cannot be told."""
    if one.kind == ARGON2ID:
        return _argon2_matches(one.text, password)
    if one.kind in _BY_LIBPASS:
        return bool(_libpass(one.kind).verify(password, one.text))
    return _crypt_matches(one, password)


def _argon2_matches(text: str, password: bytes) -> bool:
    import argon2.exceptions  # noqa: PLC0415

    try:
        return argon2.PasswordHasher().verify(text, password)
    except argon2.exceptions.VerifyMismatchError:
        return False
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHash) as error:
        # Too little memory, or costs that cannot be.
        raise TemporaryFailure(f"a hash of argon2id cannot be checked: {error}") from None


def _libpass(kind: str) -> Any:
    """libpass's handler; it comes by the name of passlib, and untyped."""
    return getattr(importlib.import_module("passlib.hash"), _BY_LIBPASS[kind])


def _crypt_matches(one: Hash, password: bytes) -> bool:
    data = ctypes.create_string_buffer(_CRYPT_DATA)
    made = _libcrypt()(password, one.text.encode(), data)
    if not made or made.startswith(b"*"):
        raise TemporaryFailure(
            f"a hash of {one.kind} cannot be checked: this host's libcrypt does not know it; set the "
            "password anew with 'openqmail user passwd'"
        )
    return hmac.compare_digest(made, one.text.encode())


@functools.cache
def _libcrypt() -> Callable[[bytes, bytes, Any], bytes | None]:
    """crypt_r(3), which several threads may call."""
    for name in _LIBRARIES:
        with suppress(OSError, AttributeError):
            function = ctypes.CDLL(name).crypt_r
            function.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p)
            function.restype = ctypes.c_char_p
            return function
    raise TemporaryFailure(
        "a hash of bcrypt or yescrypt cannot be checked: this host has no libcrypt; set the password anew "
        "with 'openqmail user passwd'"
    )
