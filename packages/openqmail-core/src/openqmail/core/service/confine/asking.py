"""Root asks somebody else to look: in a process that has become that user, and answers by a pipe.

What belongs to a user is looked at with his rights alone, and what comes back is bytes of a bounded
number in bounded time, whatever he has made of it.
"""

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from openqmail.core.control.accounts import Account
from openqmail.core.service.confine.hardening import harden
from openqmail.core.service.confine.identity import become
from openqmail.core.values import OpenqmailError, TemporaryFailure

LARGEST = 16 << 20
SECONDS = 60.0

_ANSWER, _REFUSAL = b"A", b"R"


def ask_as(account: Account, work: Callable[[], bytes]) -> bytes:
    """What `work` gives when that user does it.  What it uses must be imported before.

    Raises OpenqmailError with its sentence where it raised one, TemporaryFailure where there is no
    answer."""
    if os.geteuid() != 0:  # there is nobody else to be
        return work()

    def enter(answering: int) -> None:
        become(account)
        harden(no_new_privileges=True)

    return ask_entered(account.name, enter, work)


def ask_apart(work: Callable[[], bytes]) -> bytes:
    """What `work` gives in a process that ends with it: what it comes to know, nobody knows after that.

    Raises as `ask_as`."""
    return ask_entered("a process of its own", lambda _: harden(no_new_privileges=True), work)


def ask_entered(who: str, enter: Callable[[int], None], work: Callable[[], bytes]) -> bytes:
    """What `work` gives in a process that `enter` has made what it is to be, and that ends with it.
    `enter` is given the descriptor of the answer, to be left open.

    Raises as `ask_as`."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _answer(writing, who, enter, work)
    os.close(writing)
    try:
        data = _read(reading)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if data[:1] == _REFUSAL:
        raise OpenqmailError(data[1:].decode("utf-8", "replace"))
    if data[:1] != _ANSWER:
        raise TemporaryFailure(f"'{who}' could not be asked, or took too long; try again")
    return data[1:]


def _answer(writing: int, who: str, enter: Callable[[int], None], work: Callable[[], bytes]) -> None:
    """In the process that is asked, which ends here."""
    try:
        enter(writing)
        data = _ANSWER + work()
    except OpenqmailError as error:
        data = _REFUSAL + str(error).encode("utf-8", "replace")
    except BaseException as error:  # nothing of the asking process goes on here
        data = _REFUSAL + f"a fault while looking as '{who}': {error!r}".encode("utf-8", "replace")
    with suppress(OSError):
        while data:
            data = data[os.write(writing, data) :]
    os._exit(0)


def _read(reading: int) -> bytes:
    data, until = b"", time.monotonic() + SECONDS
    while len(data) <= LARGEST and (left := until - time.monotonic()) > 0:
        if not select.select([reading], (), (), left)[0]:
            break
        chunk = os.read(reading, 1 << 16)
        if not chunk:
            return data
        data += chunk
    return b""
