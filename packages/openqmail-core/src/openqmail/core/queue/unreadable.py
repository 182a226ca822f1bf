"""One form for all that says that a file cannot be read: its path, why, and what to do about it."""

import os


def unreadable(path: bytes, error: Exception) -> str:
    """A sentence, without its full stop."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    remedy = "mend its owner and mode" if isinstance(error, PermissionError) else "mend it"
    return f"{os.fsdecode(path)} cannot be read: {why[:1].lower()}{why[1:]}; {remedy}"
