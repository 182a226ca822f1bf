"""A queue and local deliveries that tell the ledger what they are asked for, and what is on the disk.

Else they are the real ones, and do as they do.
"""

from ledger import name_of

from openqmail.core.local import LocalDeliveries
from openqmail.core.local.maildir import stem
from openqmail.core.queue import LocalStore
from openqmail.core.queue.journal.records import Submitted, decode_record
from openqmail.core.values import Outcome

MAILDIR = b"./Maildir/"
"""Where everybody has his mail."""


class WatchedStore(LocalStore):
    """`watch` first.  Positions are of the recipients as accepted, or as they lie in the layout; which,
    is known from what was told about a message in this life."""

    def watch(self, ledger, place):
        """`place`: where a recipient as accepted goes."""
        self.ledger, self._place = ledger, place
        self._names = {}
        self._as_accepted, self._as_routed = {}, {}
        self._closings = []

    def name(self, number):
        if number not in self._names:
            self._names[number] = name_of(b"".join(self.body(number).chunks()))
        return self._names[number]

    def _told(self, stored):
        """Whoever is told of a message knows its recipients in this order."""
        addresses = [recipient.address for recipient in stored.envelope.recipients]
        if stored.channels:
            self._as_routed[stored.id.number] = addresses
        else:
            self._as_accepted[stored.id.number] = [self._place(address)[1] for address in addresses]

    def _result(self, number, changes, ended, routed):
        """What tells the ledger when it is on the disk."""
        changes = [change for change in changes if change.outcome is not Outcome.DEFERRAL]
        if not changes and not ended:
            return lambda: None
        name = self.name(number)
        addresses = (self._as_routed if routed else self._as_accepted)[number] if changes else ()

        def tell():
            for change in changes:
                self.ledger.settled(name, addresses[change.position], change.outcome)
            if ended:
                self.ledger.ended(name)
                for known in (self._names, self._as_accepted, self._as_routed):
                    known.pop(number, None)

        return tell

    def _closing(self, closes):
        closing, parent = super()._closing(closes)
        tell = self._result(closes.number, closes.changes, closes.ended, closes.routed)
        self._closings.append((closing, tell))
        return closing, parent

    def _settle(self, items):
        """What a submission closes counts when that is on the disk, which its sender hears later."""
        for item in items:
            if item.submission and item.closes:
                self._closed_on_disk(item)
        super()._settle(items)

    def _closed_on_disk(self, item):
        record = decode_record(item.data + item.body, 0)[0]
        assert isinstance(record, Submitted)
        [*_, tell] = [tell for closing, tell in self._closings if closing == record.closes]
        self._closings = [one for one in self._closings if one[0] != record.closes]
        if item.error is None:
            tell()

    # --- as of the store ------------------------------------------------------------------

    def load(self, number):
        stored = super().load(number)
        self._told(stored)
        return stored

    def arrivals(self, arrived):
        def told(stored):
            self._told(stored)
            arrived(stored)

        super().arrivals(told)

    def record(self, number, changes, due, ended, routed=False):
        if ended:
            self.name(number)  # while it is there
        future = super().record(number, changes, due, ended, routed)
        tell = self._result(number, changes, ended, routed)
        future.add_done_callback(lambda done: done.cancelled() or done.exception() or tell())
        return future

    def submit(self, envelope, body, closes=None):
        if closes is not None:
            self.name(closes.number)
        future = super().submit(envelope, body, closes)
        future.add_done_callback(self._submitted)
        return future

    def _submitted(self, future):
        if not future.cancelled() and future.exception() is None:
            self._told(future.result())


class WatchedLocal(LocalDeliveries):
    """`watch` first."""

    def watch(self, ledger, store):
        self.ledger, self._watched = ledger, store

    def deliver(self, job):
        name = self._watched.name(job.message.number)
        self.ledger.tried(name, job.recipient)
        self.ledger.files[stem(job, MAILDIR, 0)] = name, job.recipient
        return super().deliver(job)
