"""A child of this process, which does one thing and is no more."""

import os
import sys
from collections.abc import Callable


def forked(name: str, body: Callable[[], int]) -> int:
    """Fork; the child does `body` and ends with the code that it returns, or says what broke and ends
    with 111.  Returns the child's pid, and only in the parent.  Raises OSError."""
    pid = os.fork()
    if pid:
        return pid
    code = 111
    try:
        code = body()
    except BaseException as error:  # whatever it is: the parent must not return twice
        sys.stderr.write(f"openqmail: {name} broke: {error!r}\n")
        sys.stderr.flush()
    finally:
        os._exit(code)
