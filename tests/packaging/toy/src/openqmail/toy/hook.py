"""Refuses recipients that are called `broken`, and has mail for `suspect` held."""

from openqmail.core.hooks import Answer, Hold, HookContext, Reject, SessionFacts
from openqmail.core.values import Recipient, Reply


class ToyHook:
    def __init__(self, context: HookContext) -> None:
        self._name = context.settings.added["toyname"]

    def rcpt(self, session: SessionFacts, recipient: Recipient) -> Answer:
        if recipient.address.startswith(b"broken@"):
            return Reject(Reply(550, b"5.7.1", (f"the toy {self._name} is broken".encode(),)))
        return Hold("a toy is suspicious") if recipient.address.startswith(b"suspect@") else None
