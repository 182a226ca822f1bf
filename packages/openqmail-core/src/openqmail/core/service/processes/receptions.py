"""What smtpd counts: it looks at the log as it is written, so figures and lines tell the same."""

from collections.abc import Mapping, Sequence

from openqmail.core.log import (
    Event,
    Log,
    SmtpdAccepted,
    SmtpdSession,
    SubmitAccepted,
    SubmitRefused,
)
from openqmail.core.service.figures import ENDS, SUBMITTED


class Receptions:
    """A log that passes on what it is told."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._ends = dict.fromkeys(ENDS, 0)
        self._submitted = dict.fromkeys(SUBMITTED, 0)
        self._accepted = self._refused = self._bytes = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, SmtpdSession):
            self._ends[event.end if event.end in self._ends else "other"] += 1
            self._refused += event.refused
            self._bytes += event.size
        elif isinstance(event, SmtpdAccepted):
            self._accepted += 1
        elif isinstance(event, SubmitAccepted):
            self._submitted["accepted"] += 1
        elif isinstance(event, SubmitRefused):
            self._submitted[event.outcome] += 1
        self._log(event)

    def figures(self) -> Mapping[str, Sequence[int]]:
        """The numbers of smtpd's figures, but for what is open."""
        return {
            "smtp_sessions_total": tuple(self._ends.values()),
            "smtp_messages_accepted_total": (self._accepted,),
            "smtp_commands_refused_total": (self._refused,),
            "smtp_received_bytes_total": (self._bytes,),
            "submissions_total": tuple(self._submitted.values()),
        }
