"""The port `LocalDelivery` between a client and one worker: the messages, and the worker's side.

The client's side is `local_worker`, and `local_client`, which has many of them.
"""

from asyncio import Future
from functools import partial

import msgspec

from openqmail.core.ports import LocalDelivery, LocalJob, LocalReport, Written
from openqmail.core.service.frames.bodies import release, unpack
from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.codec import FrameError
from openqmail.core.service.frames.results import BROKE, LETTERS, Letter
from openqmail.core.service.frames.rights import close_all
from openqmail.core.service.frames.serving import DeliveryServer
from openqmail.core.values import Body, MessageId


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


class Report(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A `LocalReport`; `forward`: sender, recipients, header."""

    id: int
    outcome: Letter
    text: bytes
    written: tuple[tuple[bytes, int], ...]
    forward: tuple[bytes, tuple[bytes, ...], bytes] | None


class Synced(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """For each file of a `Sync`, in their order, whether it is durable."""

    id: int
    durable: tuple[bool, ...]


ToWorker = Deliver | Sync
FromWorker = Report | Synced


class LocalServer(DeliveryServer):
    """A worker's: hands what is asked to who can do it."""

    def __init__(self, deliveries: LocalDelivery) -> None:
        super().__init__(ToWorker)
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
            else:
                future.add_done_callback(partial(self._report, channel, message.id, body))
        elif isinstance(message, Sync) and not descriptors:
            written = [Written(path, size) for path, size in message.written]
            syncing = self._begin(self._deliveries.sync, written)
            syncing.add_done_callback(partial(self._synced, channel, message.id, len(written)))
        else:
            close_all(descriptors)
            raise FrameError("a sync comes without descriptors")

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
            )
        )

    def _synced(self, channel: Channel, number: int, count: int, done: "Future[tuple[bool, ...]]") -> None:
        channel.send(Synced(number, self._end(done) or (False,) * count))
