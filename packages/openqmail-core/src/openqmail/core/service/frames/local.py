"""The ports of `local` between a client and one worker: the messages, and the worker's side.

A worker that was made for checks knows no other message: whoever asks there can deliver nothing,
and learns nothing but whether there is a mailbox.  The client's side is `local_worker`, and
`local_client`, which has many of them.
"""

from asyncio import Future
from functools import partial
from itertools import takewhile
from typing import Any, Protocol

import msgspec

from openqmail.core.ports import LocalDelivery, LocalJob, LocalReport, RecipientCheck, Told, Written
from openqmail.core.service.frames.bodies import release, unpack
from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.codec import FrameError, understand
from openqmail.core.service.frames.results import BROKE, LETTERS, Letter
from openqmail.core.service.frames.rights import close_all
from openqmail.core.service.frames.serving import DeliveryServer
from openqmail.core.values import MOST_WHY, Body, MessageId, Result

AT_ONCE = 10
"""Reports that are told without waiting for the other deliveries of a turn, each of which makes a file:
the queue goes on with these meanwhile."""


class Deliver(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A `LocalJob`; `size`, `digest`, `body` and a descriptor as `bodies` says."""

    id: int
    delivery: int
    message: MessageId
    birth: int
    sender: bytes
    recipient: bytes
    position: int
    again: bool
    synced: bool
    size: int
    digest: bytes
    body: bytes | None


class Sync(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Make durable what this worker has written: path and size of each file."""

    id: int
    written: tuple[tuple[bytes, int], ...]


class Check(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """What would become of mail for this address, as routed?  And for those that come along?"""

    id: int
    recipient: bytes
    along: tuple[bytes, ...] = ()


class Report(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A `LocalReport`; `forward`: sender, recipients, header; `why`: of the result."""

    id: int
    outcome: Letter
    text: bytes
    written: tuple[tuple[bytes, int], ...]
    forward: tuple[bytes, tuple[bytes, ...], bytes] | None
    why: str = ""


class Synced(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """For each file of a `Sync`, in their order, whether it is durable."""

    id: int
    durable: tuple[bool, ...]


Word = tuple[Letter, bytes]
"""On one address; K, without a text: it would be taken, or nobody can tell."""


class Checked(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """The answer to a `Check`: a `Word`, and one for each of the first so many that came along."""

    id: int
    outcome: Letter
    text: bytes
    along: tuple[Word, ...] = ()


ToWorker = Deliver | Sync | Check
FromWorker = Report | Synced | Checked

understand(ToWorker, FromWorker)


class LocalPorts(LocalDelivery, RecipientCheck, Protocol):
    """Both ports of `local`."""


class CheckServer(DeliveryServer):
    """A worker's that is asked about mailboxes, and for nothing else."""

    def __init__(self, checks: RecipientCheck, messages: Any = Check) -> None:
        super().__init__(messages)
        self._checks = checks

    def _take(self, channel: Channel, message: Any, descriptors: list[int]) -> None:
        if descriptors:
            close_all(descriptors)
            raise FrameError("a check comes without descriptors")
        checking = self._begin(self._checks.check, (message.recipient, *message.along))
        checking.add_done_callback(partial(self._checked, channel, message))

    def _checked(self, channel: Channel, asked: Check, done: "Future[Told]") -> None:
        told = self._end(done) or {}
        along = tuple([_word(told[one]) for one in takewhile(told.__contains__, asked.along)])
        channel.send(Checked(asked.id, *_word(told.get(asked.recipient)), along))


def _word(result: Result | None) -> Word:
    return ("K", b"") if result is None else (LETTERS[result.outcome], result.text)


class LocalServer(CheckServer):
    """A worker's that delivers: hands what is asked to who can do it."""

    def __init__(self, deliveries: LocalPorts) -> None:
        super().__init__(deliveries, ToWorker)
        self._deliveries = deliveries

    def _take(self, channel: Channel, message: ToWorker, descriptors: list[int]) -> None:
        if isinstance(message, Deliver):
            body = unpack(message.size, message.digest, message.body, descriptors)
            job = LocalJob(
                message.delivery,
                message.message,
                message.birth,
                message.sender,
                message.recipient,
                message.position,
                body,
                message.again,
                message.synced,
            )
            future = self._begin(self._deliveries.deliver, job)
            if future.done():
                self._report(channel, message.id, body, future)
                channel.say_now(AT_ONCE)
            else:
                future.add_done_callback(partial(self._report, channel, message.id, body))
        elif isinstance(message, Sync):
            if descriptors:
                close_all(descriptors)
                raise FrameError("a sync comes without descriptors")
            written = [Written(path, size) for path, size in message.written]
            syncing = self._begin(self._deliveries.sync, written)
            syncing.add_done_callback(partial(self._synced, channel, message.id, len(written)))
        else:
            super()._take(channel, message, descriptors)

    def _report(self, channel: Channel, number: int, body: Body, done: "Future[LocalReport]") -> None:
        release(body)
        report = self._end(done) or LocalReport(BROKE)
        result, forward = report.result, report.forward
        channel.send(
            Report(
                number,
                LETTERS[result.outcome],
                result.text,
                tuple([(file.path, file.size) for file in report.written]),
                None if forward is None else (forward.sender, forward.recipients, forward.header),
                result.why[:MOST_WHY],
            )
        )

    def _synced(self, channel: Channel, number: int, count: int, done: "Future[tuple[bool, ...]]") -> None:
        channel.send(Synced(number, self._end(done) or (False,) * count))
