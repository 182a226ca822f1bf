"""What smtpd counts: it looks at the log as it is written, so figures and lines tell the same."""

from collections.abc import Mapping, Sequence

from openqmail.core.log import (
    Event,
    Log,
    SmtpdAccepted,
    SmtpdSession,
    SmtpdTlsFailed,
    SubmitAccepted,
    SubmitRefused,
)
from openqmail.core.service.figures import ENDS, SUBMITTED, VERSIONS
from openqmail.core.service.processes.tallies import ByWord


class Receptions:
    """A log that passes on what it is told."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._ends = ByWord(ENDS)
        self._ciphered = ByWord(VERSIONS)
        self._submitted = dict.fromkeys(SUBMITTED, 0)
        self._accepted = self._refused = self._bytes = self._tls_failed = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, SmtpdSession):
            self._ends.add(event.end)
            if event.tls:
                self._ciphered.add(event.tls)
            self._refused += event.refused
            self._bytes += event.size
        elif isinstance(event, SmtpdAccepted):
            self._accepted += 1
        elif isinstance(event, SmtpdTlsFailed):
            self._tls_failed += 1
        elif isinstance(event, SubmitAccepted):
            self._submitted["accepted"] += 1
        elif isinstance(event, SubmitRefused):
            self._submitted[event.outcome] += 1
        self._log(event)

    def figures(self) -> Mapping[str, Sequence[int]]:
        """The numbers of smtpd's figures, but for what is open."""
        return {
            "smtp_sessions_total": self._ends.numbers,
            "smtp_messages_accepted_total": (self._accepted,),
            "smtp_commands_refused_total": (self._refused,),
            "smtp_received_bytes_total": (self._bytes,),
            "submissions_total": tuple(self._submitted.values()),
            "smtp_tls_sessions_total": self._ciphered.numbers,
            "smtp_tls_failures_total": (self._tls_failed,),
        }
