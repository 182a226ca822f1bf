"""The client's side of an SMTP session, without IO, in h11's manner.

`receive_data` takes bytes (`b""` is the end), `next_event` tells what they mean, `begin` and
the other verbs say what to do next, `data_to_send` gives what is to be written.  How a session begins is
in client_opening.py; here are its transactions.  With PIPELINING (RFC 2920) MAIL, RCPT and DATA of one
leave in one write, otherwise one at a time.  A queue of stages matches replies with what was sent, and the
table `on_reply` says what a reply does at each (RFC 5321 section 4.3.2).  With CHUNKING (RFC 3030) as well,
a body that is given to `begin` leaves in that same write, as one chunk.  A peer that breaks the protocol
ends the session: `Ended`.  DNS, sockets and texts for people are the shell's.
"""

from collections import deque
from collections.abc import Callable, Mapping

from openqmail.core.message.lines import DataEncoder
from openqmail.core.smtp.client_events import (
    BODY_WANTED,
    Ended,
    ExtensionMissing,
    Finished,
    Outcome,
    Terms,
    Transaction,
)
from openqmail.core.smtp.client_opening import NO_TERMS, Opening
from openqmail.core.smtp.envelope import commands
from openqmail.core.smtp.patience import BLOCK
from openqmail.core.values import Reply

__all__ = ["ClientSession", "ExtensionMissing", "Transaction"]

_STAGES = ("mail", "rcpt", "data")
"""Of a transaction for one recipient."""

_OF_THE_MESSAGE = ("message", "chunk", "nothing")

_BDAT = b"BDAT %d LAST\r\n"


class ClientSession(Opening):
    """One session; `helo` is the name that we give, a domain or an address literal, `terms` what has to be
    so before mail is given, `timeout` the most seconds to wait for a reply."""

    __slots__ = (
        "_dirty",
        "_encoder",
        "_outcomes",
        "_returned",
        "_sending",
        "_todo",
        "_transaction",
    )

    def __init__(self, helo: bytes, timeout: float = 1200.0, terms: Terms = NO_TERMS) -> None:
        super().__init__(helo, timeout, terms)
        # What is sent once the replies have come that are expected.
        self._todo: deque[tuple[str, bytes]] = deque()
        self._dirty = False  # the peer may still have a transaction open
        self._transaction: Transaction | None = None
        self._outcomes: list[Outcome | None] = []
        self._returned = 0  # recipients that were answered
        self._encoder: DataEncoder | None = None  # of a body that is sent in pieces
        self._sending = False  # the body is wanted and not yet ended

    @property
    def ready(self) -> bool:
        """A transaction, or any other verb, may begin."""
        return self._usable and not self._expected and not self._ended and self._transaction is None

    @property
    def asking(self) -> bool:
        """It waits for the answer to something that comes before the message."""
        return bool(self._expected) and self._expected[0] not in _OF_THE_MESSAGE

    def deadline(self) -> float | None:
        """Seconds to wait for the peer now; None when nothing is expected of it."""
        if self._ended:
            return None
        if self._sending:
            return min(BLOCK, self._timeout)
        if self._expected:
            return self._patience[self._expected[0]]
        return None

    # --- what may be asked when it is ready ---------------------------------------------

    def begin(self, transaction: Transaction, whole: bytes = b"") -> bool:
        """Start a transaction.  Raises `ExtensionMissing` or another `PermanentFailure` when
        this peer can never take the message; the session stays ready.

        `whole`: the body, in lines that end with CRLF, which may leave before any reply has come; true if
        it did.  Otherwise `BodyWanted` asks for it."""
        self._claim()
        if not transaction.recipients:
            raise ValueError("a transaction has at least one recipient")
        todo = commands(transaction, self.extensions)
        stages = _STAGES if len(todo) == 3 else ("mail", *("rcpt",) * (len(todo) - 2), "data")
        chunked = bool(whole) and self._pipelining and b"CHUNKING" in self.extensions
        if chunked:
            todo[-1] = _BDAT % len(whole) + whole
            stages = (*stages[:-1], "chunk")
        if self._dirty:
            todo.insert(0, b"RSET\r\n")
            stages = ("cleared", *stages)
        self._transaction = transaction
        self._outcomes = [None] * len(transaction.recipients)
        self._returned = 0
        if self._replies.buffer:
            self._end("the peer answered before it was asked", "mail")
            return False
        if self._pipelining:
            self._expected.extend(stages)
            self._out.append(b"".join(todo))
        else:
            self._todo.extend(zip(stages, todo, strict=True))
            self._send_next()
        return chunked

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

    # --- parts of that ------------------------------------------------------------------

    def _claim(self) -> None:
        if not self.ready:
            raise RuntimeError("the session is not ready for another command")

    def _send_next(self) -> None:
        if self._todo:
            self._say(*self._todo.popleft())

    # --- replies ------------------------------------------------------------------------

    def _read(self) -> None:
        expected = self._expected
        if (
            expected
            and expected[0] == "mail"
            and expected[-1] == "data"
            and self._replies.go_ahead(len(expected))
        ):
            self.answers += 1
            self._body_wanted()
        super()._read()

    def _on_reply(self, reply: Reply) -> None:
        if self._sending and self._expected:  # before the end of the body (RFC 5321 section 4.2.5 has none)
            self.answers += 1
            self._hasty(reply)
        else:
            super()._on_reply(reply)

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
        super()._closed_by(reply, stage)

    def _on_rset(self, reply: Reply) -> None:
        if reply.code // 100 == 2:
            self._dirty = False
            self._open()
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

    def _on_chunk(self, reply: Reply) -> None:
        """The message by BDAT; where it was refused, or nobody was left to take it, RSET must follow (RFC
        3030 section 2)."""
        if reply.code // 100 == 3:
            self._end("the peer answered the message with a reply that is none", "chunk")
            return
        self._dirty = reply.code >= 400
        self._decide("message", reply)
        self._settle()

    def _on_nothing(self, reply: Reply) -> None:
        self._settle()

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
        super()._end(why, stage or ("body" if self._sending else ""))
        if self._transaction is not None:
            assert self._ending is not None
            self._ending = Ended(why, self._ending.stage, tuple(self._outcomes))
        self._encoder, self._sending = None, False
        self._todo.clear()

    on_reply: Mapping[str, Callable[..., None]] = {
        **Opening.on_reply,
        "rset": _on_rset,
        "cleared": _on_cleared,
        "mail": _on_mail,
        "rcpt": _on_rcpt,
        "data": _on_data,
        "message": _on_message,
        "chunk": _on_chunk,
        "nothing": _on_nothing,
    }
    """What a reply does at each stage."""
