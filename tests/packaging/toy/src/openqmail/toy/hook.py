"""Refuses recipients that are called `broken`."""

from openqmail.core.hooks import Refuse, SessionFacts
from openqmail.core.values import Recipient, Reply


class ToyHook:
    def rcpt(self, session: SessionFacts, sender: bytes, recipient: Recipient) -> Refuse | None:
        if recipient.address.startswith(b"broken@"):
            return Refuse(Reply(550, b"5.7.1", (b"the toy is broken",)))
        return None
