"""Answers what SASL's machines ask, from users/smtpauth: the back end of openqmail's own.

The file is read again when it has changed.  A login that nobody has takes the way of one that somebody
has: a hash of the same cost is checked, a verifier is made up.  Checking a password takes some 30 ms of a
processor and 19 MiB, so `answer` is for a thread; several may call it at once.
"""

import hashlib
import hmac
import os
import secrets
from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from openqmail.core.control.hashing import ARGON2ID, hash_password, matches
from openqmail.core.control.mechanisms import Served
from openqmail.core.control.smtpauth import (
    Entries,
    Entry,
    Rehash,
    parse_smtpauth,
    read_smtpauth,
    salt_key,
    served_by,
    written,
)
from openqmail.core.sasl import (
    Answer,
    CheckPassword,
    CheckResponse,
    CheckToken,
    Hash,
    Later,
    No,
    Plain,
    Query,
    ScramVerifier,
    Secret,
    Secrets,
    Yes,
    cram_response,
    false_verifier,
    make_verifier,
    prepared,
)
from openqmail.core.sasl.secret import SALT, Looks
from openqmail.core.values import TemporaryFailure

S = TypeVar("S", Hash, ScramVerifier, Plain)

DUMMY = Hash(
    ARGON2ID,
    "$argon2id$v=19$m=19456,t=2,p=1$KNgrD+egJxEyjvgN6aB/Jw$8rzEc48MHiwXQaG/K9HZO8kPY/Oc5AJxcQORVVdGyYA",
)
"""Checked for a login that has no such hash, where the file has none either; nobody's."""


class Judgement(msgspec.Struct, frozen=True):
    """`rehash`: to be applied (enrolment.apply), where the login's hash is of an older kind.  `trouble`: a
    sentence, where a hash cannot be checked."""

    answer: Answer
    rehash: Rehash | None = None
    trouble: str = ""


class _State(msgspec.Struct, frozen=True):
    """The file as it was read."""

    version: tuple[int, int, int] | None
    entries: Entries
    dummy: Hash
    key: bytes | None
    looks: Looks
    served: Served


_NOTHING = _State(None, {}, DUMMY, None, {}, Served())


class Logins:
    """`key`: of the verifiers that are made up, random, where the file has none."""

    def __init__(self, path: str, key: bytes | None = None) -> None:
        self._path = path
        self._key = secrets.token_bytes(32) if key is None else key
        self._state = _NOTHING

    def changed(self) -> bool:
        """Whether the file is another than the one that was read last; costs next to nothing."""
        try:
            return _version(self._path) != self._state.version
        except TemporaryFailure:
            return True

    def served(self) -> Served:
        """The mechanisms that some logins can use, and those that all can; none where there is no file.
        Raises TemporaryFailure."""
        return self._now().served

    def answer(self, query: Query) -> Judgement:
        """Raises TemporaryFailure where it cannot be told, which is Later for the client."""
        state = self._now()
        if isinstance(query, CheckToken):
            return Judgement(No())
        name = prepared(query.login)
        entry = state.entries.get(name)
        if isinstance(query, CheckPassword):
            return _check_password(entry, query.password, state.dummy)
        if isinstance(query, CheckResponse):
            return Judgement(_check_response(entry, query))
        made_up = false_verifier(state.key or self._key, name, state.looks)  # always, as it takes its time
        verifier = _first(entry, ScramVerifier) or made_up
        return Judgement(Secrets(entry.login if entry else query.login, verifier))

    def _now(self) -> _State:
        """The file as it is.  Threads that meet here read it twice, which does no harm."""
        version = _version(self._path)
        if version is None:
            self._state = _NOTHING
        elif version != self._state.version:
            content = read_smtpauth(self._path)
            entries, _ = parse_smtpauth(content)  # what is wrong is told by `control check`
            every = [one for entry in entries.values() for one in entry.secrets]
            dummy = next((one for one in every if _is_argon2(one)), DUMMY)
            assert isinstance(dummy, Hash)
            looks = Counter(
                (one.iterations, len(one.salt)) for one in every if isinstance(one, ScramVerifier)
            )
            key = salt_key(content)
            self._state = _State(version, entries, dummy, key, looks, served_by(entries))
        return self._state


def _version(path: str) -> tuple[int, int, int] | None:
    """None where there is no file.  Raises TemporaryFailure."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TemporaryFailure(f"{path}: cannot be read: {error.strerror}") from None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _check_password(entry: Entry | None, password: bytes, dummy: Hash) -> Judgement:
    """Against every hash; only where there is none, against the other forms of the password."""
    said = tuple(dict.fromkeys((prepared(password), password)))
    hashes = [one for one in entry.secrets if isinstance(one, Hash)] if entry else []
    matching = {one: _matches(one, said) for one in hashes}
    found = next((one for one in hashes if matching[one] is True), None)
    trouble = next((why for why in matching.values() if isinstance(why, str)), "")
    if not any(map(_is_argon2, hashes)):
        for form in said:
            matches(dummy, form)
    if entry is None:
        return Judgement(No())
    if found is not None:
        return Judgement(Yes(entry.login), _rehash(entry, found, said[0], len(hashes)))
    if trouble:
        return Judgement(Later(refused=False in matching.values()), trouble=trouble)
    if hashes:
        return Judgement(No())
    verifier, plain = _first(entry, ScramVerifier), _first(entry, Plain)
    if verifier is not None:
        good = any(_verifies(verifier, form) for form in said)
    else:
        good = plain is not None and _same(plain.password, said)
    return Judgement(Yes(entry.login) if good else No())


def _matches(one: Hash, said: Iterable[bytes]) -> bool | str:
    """Whether it is the hash of one of these; why that cannot be told."""
    try:
        return any(matches(one, form) for form in said)
    except TemporaryFailure as error:
        return str(error)


def _rehash(entry: Entry, found: Hash, password: bytes, hashes: int) -> Rehash | None:
    """argon2id in place of an older hash, and with it a verifier, where this is the login's one password."""
    if _is_argon2(found):
        return None
    new: list[Secret] = [hash_password(password) if one is found else one for one in entry.secrets]
    if hashes == 1 and _first(entry, ScramVerifier) is None:
        new.append(make_verifier(password, secrets.token_bytes(SALT)))
    return Rehash(entry.login, written(entry.secrets), written(new))


def _check_response(entry: Entry | None, query: CheckResponse) -> Answer:
    plain = _first(entry, Plain)
    password = plain.password if plain else b"nobody's"
    good = [
        hmac.compare_digest(cram_response(form, query.challenge), query.response)
        for form in dict.fromkeys((prepared(password), password))
    ]
    return Yes(entry.login) if entry and plain and any(good) else No()


def _verifies(verifier: ScramVerifier, password: bytes) -> bool:
    made = make_verifier(password, verifier.salt, verifier.iterations)
    return hmac.compare_digest(made.stored_key, verifier.stored_key)


def _same(password: bytes, said: Iterable[bytes]) -> bool:
    """Compared by digests, so that not even the length shows."""
    mine = hashlib.sha256(prepared(password)).digest()
    return any(hmac.compare_digest(mine, hashlib.sha256(form).digest()) for form in said)


def _is_argon2(one: Secret) -> bool:
    return isinstance(one, Hash) and one.kind == ARGON2ID


def _first(entry: Entry | None, kind: type[S]) -> S | None:
    return next((one for one in entry.secrets if isinstance(one, kind)), None) if entry else None
