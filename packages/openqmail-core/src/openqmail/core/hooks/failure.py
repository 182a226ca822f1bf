"""What counts as the failure of a hook, and how it is told to the administrator: what was raised, and where
in the hook's own code.
"""

import asyncio
import os
import traceback

FAILURES = (Exception, SystemExit, asyncio.CancelledError)
"""A hook may not end our process, and what of its own was cancelled is no answer."""


def told(error: BaseException, module: str) -> str:
    """The error, and the line of `module` at which it came up, else the line that raised it."""
    what = repr(error)
    if isinstance(error, OSError) and error.filename is not None:  # its repr does not say of what
        what = f"{type(error).__name__}: {error}"
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if place is None or frame.f_globals.get("__name__") == module or place[0] != module:
            place = frame.f_globals.get("__name__"), os.path.basename(frame.f_code.co_filename), line
    return what if place is None else f"{what} ({place[1]}:{place[2]})"


def module_of(hook: object) -> str:
    """Where a hook's methods stand."""
    return getattr(hook, "__module__", None) or type(hook).__module__
