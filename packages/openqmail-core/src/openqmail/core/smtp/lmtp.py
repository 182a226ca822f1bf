"""The client's side of an LMTP session (RFC 2033): SMTP's with LHLO, and a reply for each recipient.

After the message every recipient that was accepted gets a reply of its own, in their order; so
one mailbox that is full keeps no other waiting.  There is no HELO to fall back to, and DATA for
nobody has to be refused by the peer (section 4.2): one that wants the message ends the session.
"""

from collections.abc import Callable, Mapping

from openqmail.core.smtp.client import ClientSession
from openqmail.core.smtp.client_events import Refused
from openqmail.core.values import Reply


class LmtpSession(ClientSession):
    """One session; verbs and events are those of `ClientSession`."""

    __slots__ = ()

    def _hello(self, stage: str) -> None:
        super()._hello("lhlo")

    def _on_lhlo(self, reply: Reply) -> None:
        if reply.code // 100 == 2:
            self._on_ehlo(reply)
        else:
            self._next = Refused("helo", reply)

    def _on_data(self, reply: Reply) -> None:
        if reply.code == 354 and None not in self._outcomes:
            self._end("the peer wants a message for nobody", "data")
        else:
            super()._on_data(reply)

    def _body_wanted(self) -> None:
        super()._body_wanted()
        if self._sending:
            self._expected.extend(("message",) * (self._outcomes.count(None) - 1))
            self._returned = 0

    def _on_message(self, reply: Reply) -> None:
        if reply.code // 100 == 3:
            self._end("the peer answered the message with a reply that is none", "message")
            return
        while self._outcomes[self._returned] is not None:
            self._returned += 1
        self._outcomes[self._returned] = ("message", reply)
        if not self._expected:
            self._settle()

    on_reply: Mapping[str, Callable[..., None]] = {
        **ClientSession.on_reply,
        "lhlo": _on_lhlo,
        "data": _on_data,
        "message": _on_message,
    }
