"""What this room raises: a mistake in a test, and mail that did not come."""

from collections.abc import Sequence

from openqmail.core.values import OpenqmailError

_SHOWN = 20
"""Lines of the log that an error tells."""


class TestingError(OpenqmailError):
    """The test asks for what cannot be."""

    __test__ = False  # pytest takes classes of such names for tests


class NotArrived(AssertionError):
    """What a test waited for did not come; the text has the end of the log."""


def with_log(sentence: str, lines: Sequence[str]) -> str:
    if not lines:
        return f"{sentence}; nothing is in the log"
    last = "\n  ".join(lines[-_SHOWN:])
    return f"{sentence}; the log's last lines:\n  {last}"
