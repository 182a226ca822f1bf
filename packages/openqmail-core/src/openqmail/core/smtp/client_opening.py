"""The client's side of a session until mail may be given: greeting, EHLO, STARTTLS, AUTH.  No IO.

`Terms` say what has to be so before the first transaction.  STARTTLS (RFC 3207) is asked for where it is
offered; `StartTls` tells the shell to do the handshake, whose end is told by `tls_started`: then all that
the peer said before is forgotten, and EHLO is said anew.  AUTH (RFC 4954) follows, by the best mechanism of
sasl/.  A peer that does not fulfil the terms gets no mail (`Unmet`, `Refused`), one that breaks the protocol
ends the session (`Ended`).  Here is also how replies are matched with what was sent; client.py has the rest.
"""

import binascii
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from openqmail.core import sasl
from openqmail.core.smtp.client_events import (
    NEED_DATA,
    START_TLS,
    Ended,
    Event,
    Ready,
    Refused,
    Terms,
    Unmet,
)
from openqmail.core.smtp.patience import patience
from openqmail.core.smtp.replies import MalformedReply, ReplyReader
from openqmail.core.values import Reply

if TYPE_CHECKING:
    from openqmail.core.tls import TlsFacts

NO_TERMS = Terms()


class Opening:
    """The beginning of a session; `helo` is the name that we give, a domain or an address literal."""

    __slots__ = (
        "_ended",
        "_ending",
        "_expected",
        "_helo",
        "_next",
        "_out",
        "_patience",
        "_peer_left",
        "_pipelining",
        "_replies",
        "_talk",
        "_terms",
        "_timeout",
        "_tls",
        "_unmet",
        "_usable",
        "answers",
        "extensions",
        "mechanism",
        "tls",
    )

    def __init__(self, helo: bytes, timeout: float = 1200.0, terms: Terms = NO_TERMS) -> None:
        self._helo = helo
        self._timeout = timeout
        self._terms = terms
        self._patience = patience(timeout)
        self._replies = ReplyReader()
        self._out: list[bytes] = []
        # What the replies to come will answer.
        self._expected: deque[str] = deque(("greeting",))
        self._next: Event | None = None
        self._ending: Ended | None = None
        self._usable = False  # greeted
        self._peer_left = False
        self._ended = False
        self._tls = False  # a handshake is under way
        self._pipelining = False
        self._talk: sasl.Client | None = None  # an exchange of AUTH
        self._unmet = ""  # why it was broken off
        self.answers = 0
        """How many whole replies there were; half of one is no reason to wait any longer."""
        self.extensions: dict[bytes, bytes] = {}
        self.tls: TlsFacts | None = None
        self.mechanism = b""
        """Of AUTH, when the peer has taken our login."""

    # --- what the shell does ------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Bytes from the peer; `b""` when it will send no more."""
        if self._ended or self._tls:
            return
        if not data:
            self._peer_left = True
        elif not self._replies.feed(data):
            self._end("the peer sends much that nobody asked for")

    def data_to_send(self) -> bytes:
        """What is to be written; it is handed out once."""
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    @property
    def closing(self) -> bool:
        """The session is over: write what is to be sent, then close."""
        return self._ended

    def timed_out(self) -> None:
        """The peer was silent for too long."""
        self._end("the peer did not answer in time")

    def next_event(self) -> Event:
        """What happened next.  It never raises, whatever the peer sent."""
        if self._next is None and (self._replies.buffer or self._peer_left):
            self._read()
        event = self._next
        if event is not None:
            self._next = None
            return event
        ending, self._ending = self._ending, None
        return ending or NEED_DATA

    def tls_started(self, facts: "TlsFacts") -> None:
        """The handshake is done: after `StartTls`, or before the greeting where TLS begins with the
        connection.  All that the peer said before is forgotten (RFC 3207 section 4.2)."""
        if self.tls is not None or not (self._tls or (self._expected and self._expected[0] == "greeting")):
            raise RuntimeError("nobody waits for a handshake")
        self.tls = facts
        if self._tls:
            self._tls = False
            self._replies.clear()
            self._hello("ehlo")

    # --- replies ------------------------------------------------------------------------

    def _read(self) -> None:
        """Replies, until one of them means something to the shell."""
        while self._next is None and not self._ended and not self._tls:
            try:
                reply = self._replies.next()
            except MalformedReply as error:
                self._end(str(error))
                return
            if reply is None:
                if self._peer_left:
                    self._end("the peer closed the connection")
                return
            self._on_reply(reply)

    def _on_reply(self, reply: Reply) -> None:
        self.answers += 1
        if not self._expected:
            if reply.code == 421:
                self._end("the peer closes the connection")
            else:
                self._end("the peer sent a reply to nothing")
            return
        stage = self._expected.popleft()
        self.on_reply[stage](self, reply)
        if reply.code == 421 and not self._ended:
            self._closed_by(reply, stage)

    def _closed_by(self, reply: Reply, stage: str) -> None:
        """421 at `stage`: the session is over."""
        self._usable = False
        self._out.clear()
        self._end("the peer closes the connection", stage)

    def _say(self, stage: str, wire: bytes) -> None:
        self._expected.append(stage)
        self._out.append(wire)

    def _end(self, why: str, stage: str = "") -> None:
        if self._ended:
            return
        self._ended = True
        self._ending = Ended(why, stage or (self._expected[0] if self._expected else "ready"))
        self._expected.clear()
        self._replies.clear()
        self._talk = None

    # --- greeting, EHLO, HELO -----------------------------------------------------------

    def _on_greeting(self, reply: Reply) -> None:
        if reply.code // 100 == 2:
            self._hello("ehlo")
        else:
            self._next = Refused("greeting", reply)

    def _hello(self, stage: str) -> None:
        self._usable = False
        self.extensions = {}
        self._pipelining = False
        self._say(stage, stage.upper().encode() + b" " + self._helo + b"\r\n")

    def _on_ehlo(self, reply: Reply) -> None:
        if reply.code // 100 == 2:
            for line in reply.lines[1:]:
                keyword, _, parameters = line.partition(b" ")
                self.extensions[keyword.upper()] = parameters
            self._pipelining = b"PIPELINING" in self.extensions
            self._greeted()
        elif reply.permanent:
            self._hello("helo")
        else:
            self._next = Refused("helo", reply)

    def _on_helo(self, reply: Reply) -> None:
        if reply.code // 100 == 2:
            self._greeted()
        else:
            self._next = Refused("helo", reply)

    def _greeted(self) -> None:
        """What has to come before mail, in its order: TLS, then who we are."""
        if self.tls is not None or self._terms.tls == "none":
            self._authenticate()
        elif b"STARTTLS" in self.extensions:
            self._say("starttls", b"STARTTLS\r\n")
        else:
            self._without_tls("the peer does not offer STARTTLS")

    def _open(self) -> None:
        self._usable = True
        self._next = Ready(self.extensions)

    # --- STARTTLS -----------------------------------------------------------------------

    def _on_starttls(self, reply: Reply) -> None:
        if reply.code == 220:
            if not self._replies.empty:
                why = "the peer sent something between its answer to STARTTLS and the handshake"
                self._end(why, "handshake")
                return
            self._tls = True
            self._next = START_TLS
        elif self._terms.tls == "must" or reply.code == 421:
            self._next = Refused("starttls", reply)
        elif reply.code >= 400:
            self._without_tls("")
        else:
            self._end("the peer answered STARTTLS with a reply that is none", "starttls")

    def _without_tls(self, why: str) -> None:
        if self._terms.tls == "must":
            self._next = Unmet("starttls", why)
        else:
            self._authenticate()

    # --- AUTH ---------------------------------------------------------------------------

    def _authenticate(self) -> None:
        login = self._terms.login
        if login is None:
            self._open()
            return
        if not (login.unverified or (self.tls is not None and self.tls.peer)):
            self._next = Unmet("auth", "it is not proved whose host that is, so no login is said to it")
            return
        facts = self.tls
        told = sasl.Facts(facts is not None, facts.bindings if facts else {}, login.host, login.port)
        offered = self.extensions.get(b"AUTH", b"").split()
        talk = sasl.client_mechanism(offered, login.name, login.password, told, login.in_clear or None)
        if talk is None:
            why = "offers no mechanism of AUTH that could be used" if offered else "does not offer AUTH"
            self._next = Unmet("auth", f"the peer {why}")
            return
        self._talk = talk
        line = b"AUTH " + talk.name
        if (initial := talk.initial()) is not None:
            line += b" " + (_base64(initial) or b"=")
        self._say("auth", line + b"\r\n")

    def _on_auth(self, reply: Reply) -> None:
        talk = self._talk
        assert talk is not None
        if reply.code == 334:
            self._challenged(talk, reply)
        elif reply.code == 235:
            self._talk = None
            try:
                talk.accepted()
            except sasl.SaslError as error:
                self._next = Unmet("auth", str(error))
                return
            self.mechanism = talk.name
            self._open()
        elif reply.code >= 400:
            login = self._terms.login
            self._next = Refused("auth", login.hidden_in(reply) if login else reply)
        else:
            self._end("the peer answered AUTH with a reply that is none", "auth")

    def _challenged(self, talk: sasl.Client, reply: Reply) -> None:
        try:
            challenge = binascii.a2b_base64(b"\n".join(reply.lines), strict_mode=True)
        except binascii.Error:
            self._end("the peer sent a challenge that is not base64", "auth")
            return
        try:
            said = talk.respond(challenge)
        except sasl.SaslError as error:
            self._unmet = str(error)
            self._say("cancelled", b"*\r\n")
            return
        self._say("auth", _base64(said) + b"\r\n")

    def _on_cancelled(self, reply: Reply) -> None:
        """We broke the exchange off; whatever the peer says to that, it gets no mail."""
        self._next = Unmet("auth", self._unmet)

    def _on_quit(self, reply: Reply) -> None:
        self._end("the session was closed", "quit")

    on_reply: Mapping[str, Callable[..., None]] = {
        "greeting": _on_greeting,
        "ehlo": _on_ehlo,
        "helo": _on_helo,
        "starttls": _on_starttls,
        "auth": _on_auth,
        "cancelled": _on_cancelled,
        "quit": _on_quit,
    }
    """What a reply does at each stage."""


def _base64(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False)
