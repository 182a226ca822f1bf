"""What fails where nobody can be told: in a finalizer, or in a callback that a library of C has called.

Python writes such a thing to standard error itself, over many lines that have no time and no form, with
whatever text was at hand (`sys.unraisablehook`).  Here it is one alert of the process.  A name that a client
asks for in TLS and that is not ASCII is none: its handshake fails, and the log says so.
"""

import sys
from asyncio import AbstractEventLoop
from functools import partial
from typing import TYPE_CHECKING

from openqmail.core.log import Alert, Log

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

MOST = 300
"""Characters of it that are told."""


def tell(role: str, log: Log, loop: AbstractEventLoop) -> None:
    """From now on, for this whole process, whichever thread it happens in."""
    sys.unraisablehook = partial(_heard, role, log, loop)


def _heard(role: str, log: Log, loop: AbstractEventLoop, what: "UnraisableHookArgs") -> None:
    error = what.exc_value
    if isinstance(error, UnicodeDecodeError) and isinstance(what.object, bytes):  # as the module ssl has it
        return
    place, where = what.exc_traceback, ""
    while place is not None:  # the innermost
        where = f" in {place.tb_frame.f_code.co_qualname}, line {place.tb_lineno},"
        place = place.tb_next
    said = repr(what.exc_type if error is None else error)[:MOST]
    loop.call_soon_threadsafe(log, Alert(f"{role}: a fault{where} that no caller could be told of: {said}"))
