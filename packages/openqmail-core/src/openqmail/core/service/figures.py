"""The figures of a service: what is counted, by which process, under which names; nothing else has a list.

A process counts in integers that it has anyway.  Once a second it tells the supervisor what has been
added to those that only grow, and what the others are; the supervisor adds, and knows them by their
place alone.  So what a process has counted stays counted when it ends, and nothing is counted twice
when a reload has two of them.  A label has only the values that stand here: no address, domain or user
ever is one.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Annotated, Literal

import msgspec

from openqmail.core.send.tally import BOUNDS
from openqmail.core.values.address import Channel

MOST = 2**53
"""A number that has grown to this begins again at 0: it is the largest that Prometheus tells exactly."""
PLACES = 64
"""The most numbers that a process tells at once."""

Number = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
Numbers = Annotated[tuple[Number, ...], msgspec.Meta(max_length=PLACES)]

Kind = Literal["counter", "gauge", "histogram"]


class Figure(msgspec.Struct, frozen=True):
    """`rows`: the values of `labels`, a tuple for each number.  A histogram has a number between two bounds,
    one above the last, and one that is the sum."""

    role: str
    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ((),)

    @property
    def places(self) -> int:
        return len(BOUNDS) + 2 if self.kind == "histogram" else len(self.rows)


def _each(*values: str) -> tuple[tuple[str, ...], ...]:
    return tuple((value,) for value in values)


CHANNELS: tuple[Channel, ...] = ("local", "remote")
RESULTS = ("success", "deferral", "failure")
ENDS = (
    *("quit", "eof", "lost", "timeout", "slow", "errors", "violation", "refused", "enough", "guesses"),
    *("denied", "busy", "rate", "shutdown", "aborted", "tls", "logins", "xclient", "other"),
)
"""How a session ends: the words of the log, and one for those that a service has beyond them."""
SUBMITTED = ("accepted", "failure", "deferral", "gone")
VERSIONS = ("TLSv1.3", "TLSv1.2", "other")
ENTRIES = ("accepted", "wrong", "undecided", "locked", "abandoned", "later")
"""What comes of a login, in the words of the log."""
LOCKED = ("network", "login", "login_at_home")
"""What is locked out: a network; a login where it never was; a login in a network where it was before."""

FIGURES: tuple[Figure, ...] = (
    # send
    Figure("send", "queue_messages", "gauge", "Messages in the queue."),
    Figure("send", "queue_recipients", "gauge", "Recipients of these that are not done with."),
    Figure("send", "queue_deferred_messages", "gauge", "Messages in the queue that wait for their time."),
    Figure("send", "queue_held_messages", "gauge", "Messages that the administrator holds."),
    Figure("send", "destinations_resting", "gauge", "Domains that are left alone, as their hosts failed."),
    Figure("send", "queue_bytes", "gauge", "Bytes of the messages in the queue."),
    Figure("send", "journal_bytes", "gauge", "Bytes that the journal takes on the disk."),
    Figure("send", "journal_segments", "gauge", "Files of the journal that are needed still."),
    Figure("send", "deliveries_running", "gauge", "Deliveries under way.", ("channel",), _each(*CHANNELS)),
    Figure(
        "send",
        "deliveries_total",
        "counter",
        "Deliveries that have ended, one a recipient.",
        ("channel", "result"),
        tuple((channel, result) for channel in CHANNELS for result in RESULTS),
    ),
    Figure("send", "queued_messages_total", "counter", "Messages that came into the queue, bounces too."),
    Figure("send", "bounces_total", "counter", "Bounces that were queued."),
    Figure(
        "send",
        "time_in_queue_seconds",
        "histogram",
        "Time from when a message came until all of it was done.",
    ),
    # smtpd
    Figure("smtpd", "connections_open", "gauge", "Connections of clients, those of local programs too."),
    Figure("smtpd", "smtp_sessions_total", "counter", "SMTP sessions that are over.", ("end",), _each(*ENDS)),
    Figure("smtpd", "smtp_messages_accepted_total", "counter", "Messages that got 250 after their data."),
    Figure(
        "smtpd", "smtp_commands_refused_total", "counter", "Commands of ended sessions that got 4xx or 5xx."
    ),
    Figure("smtpd", "smtp_received_bytes_total", "counter", "Bytes that clients sent in ended sessions."),
    Figure(
        "smtpd",
        "submissions_total",
        "counter",
        "Messages that programs of this host handed in.",
        ("result",),
        _each(*SUBMITTED),
    ),
    Figure(
        "smtpd",
        "smtp_tls_sessions_total",
        "counter",
        "SMTP sessions under TLS that are over.",
        ("version",),
        _each(*VERSIONS),
    ),
    Figure("smtpd", "smtp_tls_failures_total", "counter", "TLS handshakes of clients that came to nothing."),
    # gate
    Figure("gate", "logins_total", "counter", "Logins that were tried.", ("result",), _each(*ENTRIES)),
    Figure("gate", "lockouts", "gauge", "Who may not log in, after failures.", ("kind",), _each(*LOCKED)),
    # remote
    Figure("remote", "remote_connections_open", "gauge", "Connections to other hosts, kept ones too."),
    Figure("remote", "remote_connections_total", "counter", "Connections to other hosts that were made."),
    Figure(
        "remote",
        "remote_tls_connections_total",
        "counter",
        "Those of them that were ciphered.",
        ("version",),
        _each(*VERSIONS),
    ),
    Figure(
        "remote",
        "remote_tls_failures_total",
        "counter",
        "TLS with other hosts that came to nothing, or not to a host that has to prove who it is.",
    ),
)

SUPERVISED: tuple[Figure, ...] = (
    Figure("supervisor", "info", "gauge", "1; the label is the version that runs.", ("version",)),
    Figure("supervisor", "start_time_seconds", "gauge", "When the service began, in seconds UTC."),
    Figure("supervisor", "processes", "gauge", "Processes of the service.", ("role",)),
    Figure(
        "supervisor", "process_resident_bytes", "gauge", "Memory that they hold, shared pages too.", ("role",)
    ),
)
"""What the supervisor knows by itself; a role is a process's, so there are eight; there is one version."""

PREFIX = "openqmail_"


def of(role: str, *, grows: bool) -> tuple[Figure, ...]:
    """Those of a role that only grow, or the others, in the order in which their numbers are told."""
    return tuple(each for each in FIGURES if each.role == role and (each.kind != "gauge") == grows)


class Told(msgspec.Struct, frozen=True):
    """What a process tells: `added` to what only grows, `present` of the rest."""

    added: Numbers
    present: Numbers


class Counts:
    """What a process has told of its figures so far."""

    def __init__(self, role: str) -> None:
        self._grow, self._vary = of(role, grows=True), of(role, grows=False)
        self._last = Told((0,) * sum(each.places for each in self._grow), ())

    def news(self, now: Mapping[str, Sequence[int]]) -> Told | None:
        """What is to be told, by the numbers of each figure now; None: nothing is new."""
        grown, present = _flat(self._grow, now), _flat(self._vary, now)
        told = Told(
            tuple([after - before for after, before in zip(grown, self._last.added, strict=True)]), present
        )
        if not any(told.added) and present == self._last.present:
            return None
        self._last = Told(grown, present)
        return told


def _flat(figures: Sequence[Figure], now: Mapping[str, Sequence[int]]) -> Numbers:
    numbers: list[int] = []
    for each in figures:
        if len(now[each.name]) != each.places:
            raise ValueError(f"{each.name} has {each.places} numbers, not {len(now[each.name])}")
        numbers += now[each.name]
    return tuple(numbers)


def sums(before: Numbers, added: Numbers) -> Numbers:
    """Place by place."""
    return tuple([(one + other) % MOST for one, other in zip_longest(before, added, fillvalue=0)])


def numbers_of(role: str, grown: Numbers, present: Numbers) -> dict[str, Numbers]:
    """The numbers of each figure: zeros for what has not grown yet, nothing for the others when nobody has
    told them."""
    found: dict[str, Numbers] = {}
    for figures, numbers in ((of(role, grows=True), grown), (of(role, grows=False), present)):
        at = 0
        for each in figures:
            some = numbers[at : at + each.places]
            at += each.places
            if some or each.kind != "gauge":
                found[each.name] = some + (0,) * (each.places - len(some))
    return found
