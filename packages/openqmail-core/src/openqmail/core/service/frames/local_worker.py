"""One worker, as its client sees it: deliveries, syncs and checks under way on its connection.

A worker is known before it has a connection: what is asked of it then waits.  What it has
written stays its own until it was asked whether that is durable; when it is lost in between,
nobody knows, so the answer is no.  What was under way is then deferred; of a check nobody can tell.
"""

import asyncio
import socket
from asyncio import Future
from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol

from openqmail.core.ports import Forward, LocalJob, LocalReport, Told, Written
from openqmail.core.service.frames.bodies import pack
from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.codec import FrameError
from openqmail.core.service.frames.local import Check, Checked, Deliver, FromWorker, Report, Sync
from openqmail.core.service.frames.results import (
    LOCAL_LOST,
    OUTCOMES,
    STOPPED,
    TOO_LARGE,
    UNREADABLE,
    Letter,
)
from openqmail.core.service.frames.spawning import Spawner
from openqmail.core.values import MOST_WHY, OpenqmailError, Result
from openqmail.core.values.address import may_be_queued

Answer = Future[LocalReport]
Verdict = Future[Told]
Key = tuple[int, int]
"""uid and gid."""

Durable = Callable[[Sequence[bool]], None]

MOST_FILES = 3000
"""Asked for in one frame: with the longest paths there are, they fill it nearly."""


class Owner(Protocol):
    """Whom a worker tells."""

    def wrote(self, worker: "Worker", written: tuple[Written, ...]) -> None:
        """There are files to be synced by this worker."""
        ...

    def rested(self, worker: "Worker") -> None:
        """No delivery is under way there just now."""
        ...

    def lost(self, worker: "Worker") -> None:
        """It is gone."""
        ...


class Worker:
    """The worker of one user."""

    def __init__(self, owner: Owner, key: Key, local: bytes) -> None:
        """`local`: of an address for which it is wanted."""
        self.key = key
        self.local = local
        self.running = False
        self.leaving = False
        self.idle_since = 0.0
        self.heard = 0.0
        """When it last said something, or had nothing to say."""
        self.asked: tuple[Spawner, int] | None = None
        """Of whom it was asked for, and by which id."""
        self.files: dict[bytes, Written] = {}
        """What it has written and was not asked to sync yet, by path."""
        self.along = 0
        """Addresses that were asked along with the checks under way."""
        self._owner = owner
        self._early: list[tuple[LocalJob, Answer]] = []
        self._early_checks: list[tuple[Sequence[bytes], Verdict]] = []
        self._jobs: dict[int, Answer] = {}
        self._syncs: dict[int, tuple[int, Durable]] = {}
        self._checks: dict[int, tuple[Sequence[bytes], Verdict]] = {}
        self._last = 0
        self._loop = asyncio.get_running_loop()
        self._channel: Channel | None = None

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._jobs or self._syncs or self._early or self.checks)

    @property
    def checks(self) -> int:
        """Checks that are under way, or wait."""
        return len(self._checks) + len(self._early_checks)

    def silent_for(self, now: float, syncing: float, delivering: float) -> bool:
        """Whether it owes an answer for longer than that: one to a sync or a check, one to a delivery."""
        if not self.running:
            return False
        return now - self.heard > (
            syncing if self._syncs or self._checks else delivering if self._jobs else inf
        )

    def keeps_checks(self, now: float, patience: float) -> bool:
        """Whether checks wait for it, and it has said nothing for longer than that."""
        return self.checks > 0 and now - self.heard > patience

    def begin(self, connection: socket.socket) -> None:
        """It runs, and takes what waits for it."""
        self._channel = Channel(connection, FromWorker, self._received, self._lost, descriptors=False)
        self.running = True
        early, self._early = self._early, []
        for job, answer in early:
            self.deliver(job, answer)
        checks, self._early_checks = self._early_checks, []
        for recipients, verdict in checks:
            self._ask(self._channel, recipients, verdict)

    def deliver(self, job: LocalJob, answer: Answer) -> None:
        channel = self._channel
        if channel is None:
            self._early.append((job, answer))
            return
        try:
            size, digest, data, descriptors = pack(job.body)
        except (OSError, OpenqmailError):
            settle(answer, UNREADABLE)
            return
        if not self.busy:
            self.heard = self._loop.time()
        number = self._last = self._last + 1
        message = Deliver(
            number,
            job.delivery,
            job.message,
            job.birth,
            job.sender,
            job.recipient,
            job.position,
            job.again,
            job.synced,
            size,
            digest,
            data,
        )
        try:
            channel.send(message, descriptors)
        except FrameError:
            settle(answer, TOO_LARGE)
            return
        self._jobs[number] = answer

    def sync(self, written: Sequence[Written], durable: Durable) -> None:
        """Make files durable that it has written (at most `MOST_FILES`); all False, and at once, when
        it is gone."""
        channel = self._channel
        if channel is None or not self.running:
            durable((False,) * len(written))
            return
        if not self._syncs:
            self.heard = self._loop.time()
        number = self._last = self._last + 1
        self._syncs[number] = len(written), durable
        channel.send(Sync(number, tuple([(file.path, file.size) for file in written])))

    def check(self, recipients: Sequence[bytes], verdict: Verdict) -> None:
        """Of the first it is told whatever happens, of the others when that is known."""
        self.along += len(recipients) - 1
        if self._channel is None:
            if not self._early_checks:
                self.heard = self._loop.time()
            self._early_checks.append((recipients, verdict))
        else:
            self._ask(self._channel, recipients, verdict)

    def _ask(self, channel: Channel, recipients: Sequence[bytes], verdict: Verdict) -> None:
        if not self._checks:
            self.heard = self._loop.time()
        number = self._last = self._last + 1
        self._checks[number] = recipients, verdict
        channel.send(Check(number, recipients[0], tuple(recipients[1:])))

    def close(self, result: Result = STOPPED) -> None:
        """It may go; what is under way, or waits, gets this result."""
        if self._channel is not None:
            self._channel.close()
        self._end(result)

    # --- what it tells ------------------------------------------------------------------

    def _received(self, message: FromWorker, _: list[int]) -> None:
        self.heard = self._loop.time()
        if isinstance(message, Report):
            answer = self._jobs.pop(message.id, None)
            if answer is None:
                raise FrameError("a report of a delivery that was not asked for")
            if not _can_be(message):
                settle(answer, LOCAL_LOST)
                raise FrameError("a forward that no delivery makes")
            if not answer.done():
                report = _report_of(message)
                if report.written:
                    self._owner.wrote(self, report.written)
                answer.set_result(report)
        elif isinstance(message, Checked):
            recipients, verdict = self._checks.get(message.id, ((), None))
            if verdict is None or len(message.along) >= len(recipients):
                raise FrameError("a word on a mailbox that was not asked for")
            del self._checks[message.id]
            self.along -= len(recipients) - 1
            words = ((message.outcome, message.text), *message.along)
            tell(verdict, {one: _result_of(*word) for one, word in zip(recipients, words, strict=False)})
        else:
            count, durable = self._syncs.get(message.id, (-1, None))
            if durable is None or count != len(message.durable):
                raise FrameError("a word on files that was not asked for")
            del self._syncs[message.id]
            durable(message.durable)
        if not self._jobs and not self._checks:
            self._owner.rested(self)

    def _lost(self, _: Exception | None) -> None:
        self._end(LOCAL_LOST)
        self._owner.lost(self)

    def _end(self, result: Result) -> None:
        self.running = False
        self.files.clear()
        syncs, self._syncs = self._syncs, {}
        for count, durable in syncs.values():
            durable((False,) * count)
        answers = [answer for _, answer in self._early] + list(self._jobs.values())
        self._early.clear()
        self._jobs.clear()
        for answer in answers:
            settle(answer, result)
        checks = self._early_checks + list(self._checks.values())
        self._early_checks.clear()
        self._checks.clear()
        for recipients, verdict in checks:
            tell(verdict, {recipients[0]: None})


def settle(answer: Answer, result: Result) -> None:
    if not answer.done():
        answer.set_result(LocalReport(result))


def _can_be(message: Report) -> bool:
    """Whether a worker of ours could say this; whose it is could be another's by now."""
    if message.forward is None:
        return True
    sender, recipients, _ = message.forward
    return message.outcome == "K" and bool(recipients) and all(map(may_be_queued, (sender, *recipients)))


def tell(verdict: Verdict, told: Told) -> None:
    if not verdict.done():
        verdict.set_result(told)


def _result_of(outcome: Letter, text: bytes) -> Result | None:
    return None if outcome == "K" else Result(OUTCOMES[outcome], text)


def _report_of(message: Report) -> LocalReport:
    written = tuple([Written(path, size) for path, size in message.written])
    forward = None if message.forward is None else Forward(*message.forward)
    result = Result(OUTCOMES[message.outcome], message.text, why=message.why[:MOST_WHY])
    return LocalReport(result, written, forward)
