"""A child of this process, which does one thing and is no more."""

import os
import sys
from collections.abc import Callable

from openqmail.core.log import Alert, Form, LogWriter
from openqmail.core.world import SystemClock


def forked(name: str, body: Callable[[], int], form: Form = "qmail") -> int:
    """Fork; the child does `body` and ends with the code that it returns, or says what broke and ends
    with 111.  Returns the child's pid, and only in the parent.  Raises OSError."""
    pid = os.fork()
    if pid:
        return pid
    code = 111
    try:
        code = body()
    except BaseException as error:  # whatever it is: the parent must not return twice
        LogWriter(sys.stderr.fileno(), SystemClock(), form=form)(Alert(f"{name} broke: {error!r}"))
    finally:
        os._exit(code)
