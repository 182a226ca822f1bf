"""The client's side of an SMTP session, without IO, in h11's manner.

`receive_data` takes bytes (`b""` is the end), `next_event` tells what they mean, `begin` and
the other verbs say what to do next, `data_to_send` gives what is to be written.  With
PIPELINING (RFC 2920) MAIL, RCPT and DATA of a transaction leave in one write, otherwise one
at a time.  A queue of stages matches replies with what was sent, and the table `on_reply`
says what a reply does at each (RFC 5321 section 4.3.2).  A peer that breaks the protocol ends
the session: `Ended`.  DNS, sockets and texts for people are the shell's.
"""

import binascii
from collections import deque
from collections.abc import Callable, Mapping

from openqmail.core.message.lines import DataEncoder
from openqmail.core.smtp.client_events import (
    BODY_WANTED,
    NEED_DATA,
    AuthChallenge,
    AuthDone,
    Ended,
    Event,
    ExtensionMissing,
    Finished,
    Outcome,
    Ready,
    Refused,
    TlsReady,
    Transaction,
)
from openqmail.core.smtp.envelope import commands
from openqmail.core.smtp.patience import BLOCK, patience
from openqmail.core.smtp.replies import MalformedReply, ReplyReader
from openqmail.core.values import Reply

__all__ = ["ClientSession", "ExtensionMissing", "Transaction"]

_STAGES = ("mail", "rcpt", "data")
"""Of a transaction for one recipient."""


class ClientSession:
    """One session; `helo` is the name that we give, a domain or an address literal."""

    __slots__ = (
        "_dirty",
        "_encoder",
        "_ended",
        "_ending",
        "_expected",
        "_helo",
        "_next",
        "_out",
        "_outcomes",
        "_patience",
        "_peer_left",
        "_pipelining",
        "_replies",
        "_returned",
        "_sending",
        "_timeout",
        "_tls",
        "_todo",
        "_transaction",
        "_usable",
        "answers",
        "extensions",
        "tls",
    )

    def __init__(self, helo: bytes, timeout: float = 1200.0) -> None:
        self._helo = helo
        self._timeout = timeout
        self._patience = patience(timeout)
        self._replies = ReplyReader()
        self._out: list[bytes] = []
        # What the replies to come will answer, and what is sent once they have come.
        self._expected: deque[str] = deque(("greeting",))
        self._todo: deque[tuple[str, bytes]] = deque()
        self._next: Event | None = None
        self._ending: Ended | None = None
        self._usable = False  # greeted
        self._dirty = False  # the peer may still have a transaction open
        self._peer_left = False
        self._ended = False
        self._tls = False  # a handshake is under way
        self._pipelining = False
        self._transaction: Transaction | None = None
        self._outcomes: list[Outcome | None] = []
        self._returned = 0  # recipients that were answered
        self._encoder: DataEncoder | None = None  # of a body that is sent in pieces
        self._sending = False  # the body is wanted and not yet ended
        self.answers = 0
        """How many whole replies there were; half of one is no reason to wait any longer."""
        self.extensions: dict[bytes, bytes] = {}
        self.tls: object | None = None

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
    def ready(self) -> bool:
        """A transaction, or any other verb, may begin."""
        return self._usable and not self._expected and not self._ended and self._transaction is None

    @property
    def closing(self) -> bool:
        """The session is over: write what is to be sent, then close."""
        return self._ended

    def deadline(self) -> float | None:
        """Seconds to wait for the peer now; None when nothing is expected of it."""
        if self._ended:
            return None
        if self._sending:
            return min(BLOCK, self._timeout)
        if self._expected:
            return self._patience[self._expected[0]]
        return None

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

    def _read(self) -> None:
        """Replies, until one of them means something to the shell."""
        expected = self._expected
        if expected and expected[0] == "mail" and self._replies.go_ahead(len(expected)):
            self.answers += 1
            self._body_wanted()
        while self._next is None and not self._ended:
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

    # --- what may be asked when it is ready ---------------------------------------------

    def begin(self, transaction: Transaction) -> None:
        """Start a transaction.  Raises `ExtensionMissing` or another `PermanentFailure` when
        this peer can never take the message; the session stays ready."""
        self._claim()
        if not transaction.recipients:
            raise ValueError("a transaction has at least one recipient")
        todo = commands(transaction, self.extensions)
        stages = _STAGES if len(todo) == 3 else ("mail", *("rcpt",) * (len(todo) - 2), "data")
        if self._dirty:
            todo.insert(0, b"RSET\r\n")
            stages = ("cleared", *stages)
        self._transaction = transaction
        self._outcomes = [None] * len(transaction.recipients)
        self._returned = 0
        if self._replies.buffer:
            self._end("the peer answered before it was asked", "mail")
            return
        if self._pipelining:
            self._expected.extend(stages)
            self._out.append(b"".join(todo))
        else:
            self._todo.extend(zip(stages, todo, strict=True))
            self._send_next()

    def send_body(self, stored: bytes) -> None:
        """The next piece of the body, in stored form, after `BodyWanted`."""
        if self._sending:
            if self._encoder is None:
                self._encoder = DataEncoder()
            self._out.append(self._encoder.feed(stored))

    def end_body(self) -> None:
        """The body is whole."""
        if self._sending:
            self._out.append((self._encoder or DataEncoder()).finish())
            self._encoder, self._sending = None, False

    def send_whole(self, wire: bytes) -> None:
        """The whole body and its end, as `message.lines.wire_form` wrote them; in place of the two."""
        if self._sending:
            self._out.append(wire)
            self._sending = False

    def reset(self) -> None:
        """RSET; `Ready` tells that the peer is still there."""
        self._claim()
        self._say("rset", b"RSET\r\n")

    def quit(self) -> None:
        """Take leave (RFC 5321 section 4.1.1.10), also after `Refused`; `Ended` follows."""
        if self._expected or self._transaction is not None or self._tls:
            raise RuntimeError("QUIT in the midst of something else")
        if not self._ended:
            self._say("quit", b"QUIT\r\n")

    def starttls(self) -> None:
        """STARTTLS (RFC 3207); `TlsReady` or `Refused` follows."""
        self._claim()
        if b"STARTTLS" not in self.extensions:
            raise ExtensionMissing("the peer does not offer STARTTLS")
        self._say("starttls", b"STARTTLS\r\n")

    def tls_started(self, facts: object) -> None:
        """The handshake is done; all that the peer said before is forgotten (section 4.2)."""
        self.tls, self._tls = facts, False
        self._replies.clear()
        self._hello("ehlo")

    def authenticate(self, mechanism: bytes, initial: bytes | None) -> None:
        """AUTH (RFC 4954); `AuthChallenge` or `AuthDone` follows."""
        self._claim()
        if mechanism.upper() not in self.extensions.get(b"AUTH", b"").upper().split():
            raise ExtensionMissing("the peer does not offer this mechanism of AUTH")
        line = b"AUTH " + mechanism
        if initial is not None:
            line += b" " + (binascii.b2a_base64(initial, newline=False) or b"=")
        self._say("auth", line + b"\r\n")

    def auth_response(self, data: bytes | None) -> None:
        """The answer to a challenge; None cancels the exchange."""
        line = b"*" if data is None else binascii.b2a_base64(data, newline=False)
        self._say("auth", line + b"\r\n")

    # --- parts of that ------------------------------------------------------------------

    def _claim(self) -> None:
        if not self.ready:
            raise RuntimeError("the session is not ready for another command")

    def _say(self, stage: str, wire: bytes) -> None:
        self._expected.append(stage)
        self._out.append(wire)

    def _send_next(self) -> None:
        if self._todo:
            self._say(*self._todo.popleft())

    def _hello(self, stage: str) -> None:
        self._usable = False
        self.extensions = {}
        self._pipelining = False
        self._say(stage, stage.upper().encode() + b" " + self._helo + b"\r\n")

    # --- replies ------------------------------------------------------------------------

    def _on_reply(self, reply: Reply) -> None:
        self.answers += 1
        if not self._expected:
            self._unasked(reply)
            return
        stage = self._expected[0]
        if self._sending:  # a reply before the end of the body (RFC 5321 section 4.2.5 has none)
            self._hasty(reply)
            return
        self._expected.popleft()
        self.on_reply[stage](self, reply)
        if reply.code == 421 and not self._ended:
            self._closed_by(reply, stage)

    def _unasked(self, reply: Reply) -> None:
        if reply.code == 421:
            self._end("the peer closes the connection")
        else:
            self._end("the peer sent a reply to nothing")

    def _hasty(self, reply: Reply) -> None:
        if reply.code < 400:
            self._end("the peer answered before the end of the message")
            return
        self._encoder, self._sending = None, False
        self._closed_by(reply, "message")

    def _closed_by(self, reply: Reply, stage: str) -> None:
        """421 at `stage`: what it decided is told first, then that the session is over."""
        if self._transaction is not None:
            self._decide(stage, reply)
            self._settle()
        self._usable = False
        self._out.clear()
        self._end("the peer closes the connection", stage)

    def _on_greeting(self, reply: Reply) -> None:
        if reply.code // 100 == 2:
            self._hello("ehlo")
        else:
            self._next = Refused("greeting", reply)

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
        self._usable = True
        self._dirty = False
        self._next = Ready(self.extensions)

    def _on_rset(self, reply: Reply) -> None:
        if reply.code // 100 == 2:
            self._greeted()
        else:
            self._end("the peer refused RSET", "rset")

    def _on_cleared(self, reply: Reply) -> None:
        """RSET in front of a transaction; only a peer out of its mind refuses it."""
        if reply.code // 100 != 2:
            self._end("the peer refused RSET", "rset")
            return
        self._dirty = False
        self._send_next()

    def _on_mail(self, reply: Reply) -> None:
        if reply.code // 100 in {4, 5}:
            self._decide("mail", reply)
            self._give_up()
        elif reply.code // 100 == 2:
            self._dirty = True
            self._send_next()
        else:
            self._end("the peer answered MAIL with a reply that is none", "mail")

    def _on_rcpt(self, reply: Reply) -> None:
        place = self._returned
        self._returned += 1
        if reply.code // 100 == 3:
            self._end("the peer answered RCPT with a reply that is none", "rcpt")
            return
        if reply.code >= 400 and self._outcomes[place] is None:
            self._outcomes[place] = ("rcpt", reply)
        if self._returned == len(self._outcomes) and None not in self._outcomes:
            self._give_up()
        else:
            self._send_next()

    def _on_data(self, reply: Reply) -> None:
        if reply.code == 354:
            if None in self._outcomes:
                self._body_wanted()
            else:  # RFC 2920 section 3.1: an empty message for nobody
                self._dirty = False
                self._say("nothing", b".\r\n")
        elif reply.code < 400:
            self._end("the peer answered DATA with a reply that is none", "data")
        else:
            self._decide("data", reply)
            self._settle()

    def _body_wanted(self) -> None:
        if self._replies.buffer:  # it cannot be the answer to a message that was not sent
            self._end("the peer answered before it was asked", "data")
            return
        self._dirty = False  # with the end of the message the transaction is over
        self._sending = True
        self._expected.clear()
        self._expected.append("message")
        self._next = BODY_WANTED

    def _on_message(self, reply: Reply) -> None:
        if reply.code // 100 == 3:
            self._end("the peer answered the message with a reply that is none", "message")
            return
        self._decide("message", reply)
        self._settle()

    def _on_nothing(self, reply: Reply) -> None:
        self._settle()

    def _on_starttls(self, reply: Reply) -> None:
        if reply.code != 220:
            self._next = Refused("starttls", reply)
        elif not self._replies.empty:
            self._end("the peer sent something between its answer to STARTTLS and the handshake", "starttls")
        else:
            self._tls = True
            self._usable = False
            self._next = TlsReady()

    def _on_auth(self, reply: Reply) -> None:
        if reply.code != 334:
            self._next = AuthDone(reply)
            return
        try:
            self._next = AuthChallenge(binascii.a2b_base64(reply.lines[0], strict_mode=True))
        except binascii.Error:
            self._end("the peer sent a challenge that is not base64", "auth")

    def _on_quit(self, reply: Reply) -> None:
        self._end("the session was closed", "quit")

    # --- the end of a transaction, of a session -------------------------------------------

    def _decide(self, stage: str, reply: Reply) -> None:
        """All that were not refused before share this outcome."""
        decided = (stage, reply)
        undecided = self._outcomes.count(None)
        if undecided == len(self._outcomes):
            self._outcomes = [decided] * undecided
        else:
            self._outcomes = [outcome or decided for outcome in self._outcomes]

    def _give_up(self) -> None:
        """Nobody is left to send to: done, unless replies are still to come."""
        self._todo.clear()
        if not self._expected:
            self._settle()

    def _settle(self) -> None:
        self._transaction = None
        self._next = Finished(tuple(self._outcomes))  # type: ignore[arg-type]  # all are decided

    def _end(self, why: str, stage: str = "") -> None:
        if self._ended:
            return
        self._ended = True
        if not stage:
            stage = "body" if self._sending else self._expected[0] if self._expected else "ready"
        outcomes = tuple(self._outcomes) if self._transaction is not None else ()
        self._ending = Ended(why, stage, outcomes)
        self._encoder, self._sending = None, False
        self._expected.clear()
        self._todo.clear()
        self._replies.clear()

    on_reply: Mapping[str, Callable[..., None]] = {
        "greeting": _on_greeting,
        "ehlo": _on_ehlo,
        "helo": _on_helo,
        "starttls": _on_starttls,
        "auth": _on_auth,
        "rset": _on_rset,
        "cleared": _on_cleared,
        "mail": _on_mail,
        "rcpt": _on_rcpt,
        "data": _on_data,
        "message": _on_message,
        "nothing": _on_nothing,
        "quit": _on_quit,
    }
    """What a reply does at each stage."""
