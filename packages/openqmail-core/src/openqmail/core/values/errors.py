"""The errors of openqmail: few, named, each with a sentence for the administrator.

A job raises `TemporaryFailure` or `PermanentFailure` for a message; `ControlError` and
`HomeError` stop a start and name the file, the line and the remedy; `QueueFull` and
`QueueDamaged` come from the queue alone.
"""


class OpenqmailError(Exception):
    """The root; its text is meant to be read by people."""


class TemporaryFailure(OpenqmailError):
    """Nothing is wrong with the message; trying later may help."""


class QueueFull(TemporaryFailure):
    """The queue's file system has too little room to accept more mail (452)."""


class PermanentFailure(OpenqmailError):
    """Trying again cannot help."""


class HomeError(OpenqmailError):
    """The home (or a part of it) is missing, in use, or not ours."""


class QueueDamaged(OpenqmailError):
    """The journal is damaged before a point that was known to be synced."""


class ControlError(OpenqmailError):
    """A control file does not parse.

    `file` is its name below the home (`control/rules`), `line` counts from 1 (0: the file as
    a whole), `why` says what is wrong and what to do about it.
    """

    def __init__(self, file: str, line: int, why: str) -> None:
        self.file, self.line, self.why = file, line, why
        where = f"{file}, line {line}" if line else file
        super().__init__(f"{where}: {why}")
