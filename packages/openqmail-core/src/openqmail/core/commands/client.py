"""Asks a running service, by the socket `run/admin` of its home: a JSON line a request.

Answers are bounded in size and time.  `Stopped` means that nothing serves the home; an
answer that cannot be had or understood is a TemporaryFailure.
"""

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, BinaryIO, NoReturn, TypeVar

import msgspec

from openqmail.core.control.home import Home, check_socket_paths
from openqmail.core.log.escaping import readable
from openqmail.core.ports import Acted, DestinationState, LockedNow
from openqmail.core.values import OpenqmailError, TemporaryFailure

LINE = 64 * 1024 * 1024
"""Bytes that a line of an answer may have: a message with very many recipients."""

NUMBERS = 1000
"""Messages that one request names; more are several requests."""

PATIENCE = 30.0
CHUNK = 64 * 1024

T = TypeVar("T")

_END = b'{"ok":'
"""How the line begins that ends a list."""

_ABSENT = "no message "
"""How a service begins to say that a message is not in the queue."""


class Stopped(OpenqmailError):
    """No service runs on this home."""


class Incomplete(TemporaryFailure):
    """All was told but for some messages, which the text names."""


class Refused(OpenqmailError):
    """The service answered that it cannot."""


def status(home: Home) -> dict[str, Any]:
    with _asked(home, {"ask": "status"}) as answer:
        return _object(_line(answer, home), home)


def messages(home: Home, numbers: Sequence[int] = ()) -> Iterator[bytes]:
    """The queue as JSON lines, oldest first; or those of these numbers that are there."""
    for some in _batches(numbers) or [numbers]:
        with _asked(home, {"ask": "list", "numbers": some}) as answer:
            while not (line := _line(answer, home)).startswith(_END):
                if not line:
                    raise _broke_off(home)
                yield line
            missed = _accepted(line, home).get("missed") or []
        if missed:
            raise Incomplete("; ".join(f"message {one['number']} {one['why']}" for one in missed))


def show(home: Home, number: int) -> Iterator[bytes]:
    """A message as it is stored.  Raises Refused when there is none of that number, TemporaryFailure."""
    with _asked(home, {"ask": "show", "number": number}) as answer:
        try:
            left = _accepted(_line(answer, home), home).get("size")
        except Refused as error:
            if str(error).startswith(_ABSENT):
                raise
            raise TemporaryFailure(str(error)) from None  # it is there, and cannot be read
        if not isinstance(left, int):
            raise _not_understood(home)
        while chunk := _read(answer, home):
            left -= len(chunk)
            yield chunk
        if left:
            raise TemporaryFailure(f"{home.path}: the message was cut off on its way; ask again")


def destination(home: Home, domain: bytes) -> DestinationState | None:
    """What the service knows of a remote destination (its domain and `Routes.mark`); None: nothing."""
    with _asked(home, {"ask": "destination", "domain": readable(domain)}) as answer:
        found = _accepted(_line(answer, home), home).get("destination")
    try:
        return msgspec.convert(found, DestinationState | None)
    except msgspec.ValidationError:
        raise _not_understood(home) from None


def act(home: Home, verb: str, numbers: Sequence[int], keys: Sequence[str] = (), **more: str) -> Acted:
    """Have a verb (hold, release, retry, delete, bounce) done on messages; `keys`: see `QueueAdmin`."""
    total = Acted()
    for some, theirs in zip_longest(_batches(numbers), _batches(keys), fillvalue=()):
        with _asked(home, {"ask": verb, "numbers": some, "keys": theirs, **more}) as answer:
            line = _line(answer, home)
        _accepted(line, home)
        try:
            one = msgspec.json.decode(line, type=Acted)
        except msgspec.ValidationError:
            raise _not_understood(home) from None
        total = Acted(total.done + one.done, total.missed + one.missed, total.later + one.later)
    return total


def locked(home: Home) -> LockedNow:
    """Who may not log in after too many failures."""
    with _asked(home, {"ask": "locked"}) as answer:
        line = _line(answer, home)
    _accepted(line, home)
    try:
        return msgspec.json.decode(line, type=LockedNow)
    except msgspec.ValidationError:
        raise _not_understood(home) from None


def unlock(home: Home, names: Sequence[str]) -> tuple[int, ...]:
    """Forget the failures of logins and networks; how many lock-outs of each are lifted."""
    lifted: tuple[int, ...] = ()
    for some in _batches(names):
        with _asked(home, {"ask": "unlock", "names": some}) as answer:
            found = _accepted(_line(answer, home), home)
        try:
            lifted += msgspec.convert(found.get("lifted"), tuple[int, ...])
        except msgspec.ValidationError:
            raise _not_understood(home) from None
    return lifted


def settle(home: Home) -> NoReturn:
    """Always raises: Refused while a service runs, Stopped when none does."""
    with _asked(home, {"ask": "settle"}) as answer:
        _accepted(_line(answer, home), home)
    raise _not_understood(home)


def flush(home: Home) -> int:
    """Try everything now; how many messages that are."""
    with _asked(home, {"ask": "flush"}) as answer:
        count = _accepted(_line(answer, home), home).get("messages")
        if not isinstance(count, int):
            raise _not_understood(home)
        return count


def _batches(numbers: Sequence[T]) -> list[Sequence[T]]:
    """As many requests as it takes."""
    return [numbers[at : at + NUMBERS] for at in range(0, len(numbers), NUMBERS)]


@contextmanager
def _asked(home: Home, request: dict[str, object]) -> Iterator[BinaryIO]:
    path = os.path.join(home.run, "admin")
    check_socket_paths(home.path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(path)
            connection.sendall(json.dumps({"v": 1, **request}).encode() + b"\n")
        except (FileNotFoundError, ConnectionRefusedError):
            raise Stopped(
                f"{home.path}: the service is stopped; 'openqmail --home {home.path} run' starts it"
            ) from None
        except OSError as error:
            raise TemporaryFailure(
                f"{path}: the service does not answer: {error.strerror or error}"
            ) from None
        with connection.makefile("rb") as answer:
            yield answer


def _line(answer: BinaryIO, home: Home) -> bytes:
    """The next line, empty at the end."""
    try:
        line = answer.readline(LINE + 1)
    except OSError as error:
        raise TemporaryFailure(f"{home.run}/admin: the answer broke off: {error.strerror or error}") from None
    if len(line) > LINE or (line and not line.endswith(b"\n")):
        raise _broke_off(home)
    return line


def _read(answer: BinaryIO, home: Home) -> bytes:
    try:
        return answer.read(CHUNK)
    except OSError as error:
        raise TemporaryFailure(f"{home.run}/admin: the answer broke off: {error.strerror or error}") from None


def _object(line: bytes, home: Home) -> dict[str, Any]:
    if not line:
        raise _broke_off(home)
    try:
        found = json.loads(line)
    except ValueError:
        raise _not_understood(home) from None
    if not isinstance(found, dict):
        raise _not_understood(home)
    if found.get("ok") is False:
        raise Refused(str(found.get("error", "the service refuses")))
    return found


def _accepted(line: bytes, home: Home) -> dict[str, Any]:
    found = _object(line, home)
    if found.get("ok") is not True:
        raise _not_understood(home)
    return found


def _broke_off(home: Home) -> TemporaryFailure:
    return TemporaryFailure(f"{home.run}/admin: the answer broke off; try again")


def _not_understood(home: Home) -> TemporaryFailure:
    return TemporaryFailure(
        f"{home.run}/admin: the answer is not understood; the service may be of another version, restart it"
    )
