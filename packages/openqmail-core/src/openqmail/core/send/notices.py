"""Makes what a sender is told of his message, and what goes on from here: bounces, notices, forwards.

Each is a message made out of a queued one, and is submitted in one record with what it does to that
(rule 11 of the queue), so a crash leaves both or neither.  That a forward was made does nothing more to
that: a crash between the forward and the notice of it leaves the notice out.  In what form is
`control/bounceformat`'s to say; what only DSN asks for has but one, RFC 3464's.  Who is told what has
been decided before.
"""

import asyncio
from functools import partial
from hashlib import blake2b

from openqmail.core import dsn
from openqmail.core.control.settings import Settings
from openqmail.core.dsn.multipart import HEADER
from openqmail.core.hooks import HookChain
from openqmail.core.message.header import beginning
from openqmail.core.message.lines import Fitness, unfit
from openqmail.core.ports import Forward, LargeBody
from openqmail.core.queue.store import Change, Closes, QueueStore, Stored
from openqmail.core.send import events
from openqmail.core.send.derived import prefixed
from openqmail.core.send.reading import READERS
from openqmail.core.send.routing import Routes, bounce_sender
from openqmail.core.send.wishes import forwarded, wants
from openqmail.core.values import Body, Envelope, Origin, Recipient, TemporaryFailure
from openqmail.core.world import Clock

MANY = 50
"""Recipients; a report of more is written off the loop."""


class Notices:
    """`origin`: who the new messages are from.  All raise OSError, KeyError and what the queue has to
    say, and then nothing has changed."""

    def __init__(
        self,
        store: QueueStore,
        settings: Settings,
        clock: Clock,
        origin: Origin,
        hooks: HookChain | None = None,
    ) -> None:
        self._store = store
        self.hooks = hooks
        """Those that are asked about forwards."""
        self._clock = clock
        self._origin = origin
        self.reconfigure(settings)

    def reconfigure(self, settings: Settings) -> None:
        """From the next message on."""
        self._settings = settings

    async def bounce(self, action: events.Bounce) -> Stored:
        """What tells of all that failed, and ends the message."""
        number = action.number
        original = self._store.load(number)
        envelope = Envelope(
            action.sender, (Recipient(action.recipient),), self._origin, original.envelope.smtputf8
        )
        told = self._failures(original, action.failures) if self._settings.bounceformat == "dsn" else ()
        if told:
            report = self._report(original, action.recipient, told, double=action.double)
            body = await self._multipart(original, report)
        else:
            text = dsn.bounce(
                self._settings,
                action.recipient,
                action.failures,
                double=action.double,
                now=self._clock.now(),
                pid=self._origin.pid,
            )
            body = await prefixed(self._store, text, number)
        return await self._store.submit(envelope, body, Closes(number, (), True))

    async def notify(self, action: events.Notify) -> Stored:
        """What tells of some recipients, and records what became of them."""
        return await self._notify(action.number, action.told, action.changes, action.routed)

    async def forward(self, action: events.StartLocal, forward: Forward, change: Change) -> Stored:
        """The new message; `change` closes the recipient."""
        stored, position = action.stored, action.position
        number, routed = stored.id.number, bool(stored.channels)
        same = forward.sender == action.sender
        envelope = forwarded(stored.envelope, position, forward.sender, forward.recipients, same=same)
        if self.hooks is not None and self.hooks.has("forward"):
            plain = Routes(self._settings).of(stored, position).plain
            asked = await self.hooks.forward(envelope, plain)
            if asked is None:
                raise TemporaryFailure("a hook failed")
            envelope = asked
        body = await prefixed(self._store, forward.header, number)
        return await self._store.submit(envelope, body, Closes(number, (change,), False, routed))

    async def forwarded(self, action: events.StartLocal, forward: Forward, text: bytes) -> Stored | None:
        """What tells of a forward that was submitted, as long as its message is there: that the address was
        expanded, or that the message became another one.  None where nobody is to be told."""
        stored, position = action.stored, action.position
        same = forward.sender == action.sender
        what: dsn.Action = "expanded" if same else "delivered"
        if (same and len(forward.recipients) == 1) or not wants(stored.envelope, position, what):
            return None
        plain = Routes(self._settings).of(stored, position).plain
        one = dsn.Told(what, plain, text, stored.envelope.recipients[position].orcpt)
        return await self._notify(stored.id.number, (one,), (), bool(stored.channels))

    async def _notify(
        self, number: int, told: tuple[dsn.Told, ...], changes: tuple[Change, ...], routed: bool
    ) -> Stored:
        original = self._store.load(number)
        to = bounce_sender(original.envelope.sender)
        body = await self._multipart(original, self._report(original, to, told))
        envelope = Envelope(b"", (Recipient(to),), self._origin, original.envelope.smtputf8)
        return await self._store.submit(envelope, body, Closes(number, changes, False, routed))

    # --- the report -------------------------------------------------------------------------

    def _failures(self, original: Stored, failures: bytes) -> tuple[dsn.Told, ...]:
        """What `bounce/N` says, with what the sender called the recipients."""
        originals: dict[bytes, list[bytes]] = {}
        recipients = original.envelope.recipients
        if any(recipient.orcpt for recipient in recipients):
            routes = Routes(self._settings)
            for position, recipient in enumerate(recipients):
                plain = routes.of(original, position).plain.replace(b"\n", b"_")
                originals.setdefault(plain, []).append(recipient.orcpt)
        return tuple(
            dsn.Told("failed", one.address, one.text, _first(originals.get(one.address)))
            for one in dsn.paragraphs(failures)
        )

    def _report(
        self, original: Stored, to: bytes, told: tuple[dsn.Told, ...], *, double: bool = False
    ) -> dsn.Report:
        until = original.birth + self._settings.queuelifetime
        envelope = original.envelope
        return dsn.Report(to, told, original.birth, until, envelope.envid, envelope.smtputf8, double)

    async def _multipart(self, original: Stored, report: dsn.Report) -> bytes | LargeBody:
        number, now = original.id.number, self._clock.now()
        body = self._store.body(number)
        copy, header = await self._copy(original, body, report)
        write = partial(
            dsn.enclose,
            self._settings,
            report,
            copy,
            boundary=_boundary(original, report, now),
            now=now,
            pid=self._origin.pid,
        )
        if len(report.told) > MANY:
            head, tail = await asyncio.get_running_loop().run_in_executor(READERS, write)
        else:
            head, tail = write()
        if copy.whole:
            return await prefixed(self._store, head, number, tail)
        return head + header + tail

    async def _copy(self, original: Stored, body: Body, report: dsn.Report) -> tuple[dsn.Copy, bytes]:
        """What of the original is given back, and its header: all of it only with a failure (RFC 3461
        section 4.3), where it is wanted, not too large, and such that SMTP can carry it."""
        most = self._settings.bouncemaxbytes
        if (
            report.told[0].action == "failed"
            and original.envelope.ret != b"HDRS"
            and (not most or original.size <= most)
        ):
            eight_bit = await _eight_bit(body)
            if eight_bit is not None:
                return dsn.Copy(True, eight_bit), b""
        header = dsn.header(await _beginning(body))
        return dsn.Copy(False, not header.isascii()), header


def _first(originals: list[bytes] | None) -> bytes:
    return originals.pop(0) if originals else b""


def _boundary(original: Stored, report: dsn.Report, now: float) -> bytes:
    """One for each report on a message, which follows from a key that no stranger knows."""
    facts = b"".join(b"%s %s\n" % (told.action.encode(), told.address) for told in report.told)
    text = b"%s%d %s" % (original.id.key, int(now), facts)
    return blake2b(text, digest_size=16, person=b"boundary").hexdigest().encode()


async def _eight_bit(body: Body) -> bool | None:
    """Whether any octet has its high bit set; None when SMTP cannot carry the message."""
    if body.data is not None:
        return None if unfit(body.data) else not body.data.isascii()
    return await asyncio.get_running_loop().run_in_executor(READERS, _examine, body)


def _examine(body: Body) -> bool | None:
    fitness = Fitness()
    for chunk in body.chunks():
        if fitness.feed(chunk) is not None:
            return None
    return fitness.eight_bit


async def _beginning(body: Body) -> bytes:
    if body.data is not None:
        return body.data
    return await asyncio.get_running_loop().run_in_executor(READERS, beginning, body, HEADER)
