"""Hands a message to the service of this host, and waits while that restarts.  Light to import.

A request is repeated only when the service cannot have accepted it: nobody listens, it was
not sent whole, the service said that it took nothing (`wire.BUSY`), or the kernel says that
something of it was never read.  Else its fate is not known, and that is said.
"""

from __future__ import annotations

import socket
import sys
import time

from openqmail.core.submit.wire import BUSY, AnswerDecoder, WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PATIENCE = 60.0
"""Seconds that a service may take to restart."""
SILENCE = 600.0
"""Seconds that a service may take to answer, or to read on."""

_PAUSE, _LONGEST_PAUSE = 0.05, 0.5


class NotTaken(Exception):
    """The message is certainly not in the queue."""


class Nobody(NotTaken):
    """No service is there."""


class Closed(Exception):
    """This user may not use the socket."""


class Unknown(Exception):
    """The whole request was sent, and no answer came: the message may be in the queue."""


def hand_over(
    path: str,
    head: bytes,
    message: Callable[[], Iterable[bytes]],
    patience: float,
    waits: Callable[[NotTaken], object],
) -> bytes:
    """The service's answer, its letter first.  `head` and `message` are all of the request but its
    last comma; `message` is asked for its octets again for each attempt, and `waits` is told why there
    has to be a second one.

    Raises NotTaken after `patience` seconds, Closed, Unknown, and OSError for a socket that cannot be used.
    """
    until = time.monotonic() + patience
    pause = _PAUSE
    while True:
        try:
            answer = _attempt(path, head, message)
            if not answer.startswith(b"Z") or not answer.endswith(BUSY):
                return answer
            why = NotTaken(answer[1:].decode("ascii", "replace"))
        except NotTaken as error:
            why = error
        if time.monotonic() + pause > until:
            raise why
        if pause == _PAUSE:
            waits(why)
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _attempt(path: str, head: bytes, message: Callable[[], Iterable[bytes]]) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SILENCE)
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            raise Nobody(f"nobody listens at {path}") from None
        except PermissionError:
            raise Closed from None
        try:
            sent = _send(connection, head, message)
            return _answer(connection, sent)
        except TimeoutError:
            raise Unknown(f"the service did not go on for {SILENCE:.0f} seconds") from None
        except WireError as error:
            raise Unknown(f"the service's answer cannot be understood: {error}") from None


def _send(connection: socket.socket, head: bytes, message: Callable[[], Iterable[bytes]]) -> bool:
    """Whether all of the request was sent; a service that ends early may still have said why."""
    try:
        connection.sendall(head)
        for chunk in message():
            connection.sendall(chunk)
        connection.sendall(b",")
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _answer(connection: socket.socket, sent: bool) -> bytes:
    answer = AnswerDecoder()
    heard = False
    try:
        while data := connection.recv(4096):
            heard = True
            if whole := answer.receive(data):
                return whole
    except ConnectionResetError:
        # Linux says so, instead of an end, when something that we sent was never read (unix(7)).
        sent = sent and (heard or sys.platform != "linux")
    if not sent:
        raise NotTaken("the service ended before it had the whole message")
    raise Unknown("the service ended before it answered")
