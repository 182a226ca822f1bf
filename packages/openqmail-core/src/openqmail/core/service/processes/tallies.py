"""What gate and remote count of logins and TLS: they look at the log as it is written, so figures and lines
tell the same."""

from collections.abc import Iterable, Mapping, Sequence

from openqmail.core.log import AuthAccepted, AuthRefused, Event, Log, RemoteTls, RemoteTlsFailed
from openqmail.core.service.figures import ENTRIES, VERSIONS


class ByWord:
    """Counts by a word; any that is not among those that it knows counts as the last of them."""

    def __init__(self, words: Iterable[str]) -> None:
        self._counts = dict.fromkeys(words, 0)
        self._other = list(self._counts)[-1]

    def add(self, word: str) -> None:
        self._counts[word if word in self._counts else self._other] += 1

    @property
    def numbers(self) -> tuple[int, ...]:
        """In the order of the words."""
        return tuple(self._counts.values())


class LoginTally:
    """A log that passes on what it is told."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._entries = ByWord(ENTRIES)

    def __call__(self, event: Event) -> None:
        if isinstance(event, AuthAccepted):
            self._entries.add("accepted")
        elif isinstance(event, AuthRefused):
            self._entries.add(event.why)
        self._log(event)

    def figures(self) -> Mapping[str, Sequence[int]]:
        return {"logins_total": self._entries.numbers}


class TlsTally:
    """A log that passes on what it is told."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._begun = ByWord(VERSIONS)
        self._failed = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, RemoteTls):
            self._begun.add(event.tls)
        elif isinstance(event, RemoteTlsFailed):
            self._failed += 1
        self._log(event)

    def figures(self) -> Mapping[str, Sequence[int]]:
        return {
            "remote_tls_connections_total": self._begun.numbers,
            "remote_tls_failures_total": (self._failed,),
        }
