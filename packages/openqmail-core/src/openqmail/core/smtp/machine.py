"""What the server's machine stands on: bytes that wait, the event that is to be answered, the message that
comes, the end.

`ServerSession` adds the commands and the answers.  Pure, as that is.
"""

import msgspec

from openqmail.core.smtp import offer as answers
from openqmail.core.smtp import tables
from openqmail.core.smtp.events import Aborted, Chunk, Ended, Event, MessageEnd, Reset
from openqmail.core.smtp.offer import Offer
from openqmail.core.smtp.receiving import ChunkedBody, DataBody
from openqmail.core.smtp.refusals import Refused
from openqmail.core.smtp.tables import COUNTED, State
from openqmail.core.values import Reply

FULL = 64 * 1024
"""From so many octets on that wait for their turn, the client should be read no further."""

IDLE = 100
"""Commands that lead to no mail, until there is some or the session ends (Postfix's are as many)."""

OVERFULL = 4 * 1024 * 1024
"""Nobody reads so far ahead who heeds `full`."""

# Looked at with every command: a name of the module costs a third of a member of the class.
_CONNECT, _START, _READY = State.CONNECT, State.START, State.READY
_TLS, _CLOSED = State.TLS, State.CLOSED


class Greeting(msgspec.Struct, frozen=True, gc=False):
    """What waits for its answer when a session begins; it is never reported."""


_GREETING = Greeting()


class Machine:
    """One session; it is told bytes, and hands out bytes."""

    __slots__ = (
        "_after",
        "_buffer",
        "_chunks",
        "_decoder",
        "_default",
        "_eof",
        "_errors",
        "_extended",
        "_farewell",
        "_hears_xclient",
        "_idle",
        "_next",
        "_offer",
        "_out",
        "_pending",
        "_position",
        "_recipients",
        "_sender",
        "_smtputf8",
        "auth_in_tls",
        "closing",
        "identity",
        "refused",
        "state",
        "tls",
    )

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._buffer = b""  # and where to go on in it, 0 when it is empty
        self._position = 0
        self._eof = False
        self._out: list[bytes] = []
        self._errors = 0
        self._idle = 0  # commands since the last MAIL that lead nowhere
        self._extended = False
        self._smtputf8 = False
        self._recipients = 0
        self._sender = b""
        self._hears_xclient = offer.xclient or offer.named
        self._decoder: DataBody | ChunkedBody | None = None  # of what comes now
        self._chunks: ChunkedBody | None = None  # of a message that comes by BDAT
        self._farewell: Reply | None = None
        self._next: Event | None = None
        # The event that waits for an answer, the usual answer, and the state behind that.
        self._pending: Event | Greeting | None = _GREETING
        self._default = offer.greeting
        self._after = _START
        self.state = _CONNECT
        self.auth_in_tls = False  # who begins TLS will be offered AUTH
        self.closing = False  # the session is over: write what is to be sent, then close
        self.refused: list[Refused] = []  # commands, in their order, for the shell to take out
        self.identity: bytes | None = None
        self.tls: object | None = None

    # --- what the shell does ------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Bytes from the client; `b""` when it will send no more."""
        if self.state >= _TLS:  # a handshake is not ours to read
            return
        if not data:
            self._eof = True
        elif not self._buffer:
            self._buffer = data
        elif len(self._buffer) - self._position > OVERFULL:
            self._abort(tables.TOO_MUCH_AHEAD)
        else:
            self._buffer = self._buffer[self._position :] + data
            self._position = 0

    @property
    def full(self) -> bool:
        """Enough is waiting; read no further until events were pulled."""
        return len(self._buffer) - self._position >= FULL

    def data_to_send(self) -> bytes:
        """What is to be written; it is handed out once."""
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def deadline(self) -> float | None:
        """Seconds of silence to bear now; None while the next step is not the client's.  Who sends no more,
        and may have gone, is answered by then or not at all."""
        if (self._pending is not None and not self._eof) or self.state is _CLOSED:
            return None
        return self._offer.timeout

    @property
    def receiving(self) -> bool:
        """A message is coming."""
        return self._decoder is not None

    @property
    def unfinished(self) -> bool:
        """A message has begun, and more of it is the client's to send: now, or as its next chunk."""
        return self._decoder is not None or self.state is State.CHUNKS

    @property
    def ahead(self) -> bool:
        """Something came that has not had its turn yet."""
        return bool(self._buffer)

    def timed_out(self, reply: Reply = tables.TIMEOUT) -> None:
        """The client was silent for too long, or too slow."""
        self._abort(reply)

    def shutdown(self, reply: Reply) -> None:
        """End with `reply` (421) as soon as nothing is under way (section 3.8): now between
        commands, after its answer in the midst of one, and never in the midst of a message."""
        self._farewell = reply
        self._take_leave()

    # --- events, and refusals --------------------------------------------------------------

    def _wait(self, event: Event, default: bytes, after: State) -> Event:
        """Report `event` and owe an answer to it."""
        self._pending, self._default, self._after = event, default, after
        return event

    def _transaction(self) -> bytes | None:
        """The sender of the one that is open."""
        return self._sender if State.MAIL <= self.state <= State.CHUNKS else None

    def _refuse(self, refused: Refused) -> None:
        """Answer a command that cannot be obeyed."""
        reply = refused.reply
        self.refused.append(refused)
        if reply.code == 421:
            self._abort(reply)
            return
        self._out.append(reply.encode())
        if reply.code in COUNTED:
            self._erred()

    def _erred(self) -> None:
        """One more error of the client's; so many end the session."""
        self._errors += 1
        if self._errors >= self._offer.max_errors:
            self._abort(tables.TOO_MANY_ERRORS)

    # --- the end ------------------------------------------------------------------------

    def _take_leave(self) -> None:
        if self._farewell is None or self._pending is not None or self._decoder is not None:
            return
        if self.state is not _TLS and self.state is not State.CHUNKS:
            self._abort(self._farewell)

    def _half_closed(self) -> Event:
        """The client sends no more, and what it sent has been answered."""
        self._close()
        return Ended()

    def _violated(self, command: str, reply: Reply) -> None:
        """The client broke the rules of the wire: the session ends."""
        self.refused.append(Refused(command, b"", self._transaction(), reply))
        self._abort(reply)

    def _abort(self, reply: Reply) -> None:
        if self.state is not _CLOSED:
            self._out.append(reply.encode())
            self._close()
            self._next = Aborted(reply)

    def _close(self) -> None:
        self.state = _CLOSED
        self.closing = True
        self._buffer, self._position, self._eof = b"", 0, False
        self._pending, self._next, self._decoder = None, None, None

    # --- the message --------------------------------------------------------------------

    def _body(self, body: DataBody | ChunkedBody) -> Event | None:
        """What the next bytes add to the message; None when nothing that is to be kept."""
        data = self._buffer[self._position :] if self._position else self._buffer
        self._buffer, self._position = b"", 0
        if not data:
            return self._half_closed()
        stored = body.feed(data)
        self._buffer = body.rest
        if body.fatal:
            self._unbearable(body)
            return None
        if not body.over:
            return Chunk(stored) if stored else None
        return self._piece_over(body, stored)

    def _receive(self, body: ChunkedBody) -> Event | None:
        """A chunk was announced; it may have no octets."""
        self._decoder = body
        if self.state is State.CHUNKS:
            self.state = State.BODY
        if body.fatal:
            self._unbearable(body)
            return None
        return self._piece_over(body, b"") if body.over else None

    def _piece_over(self, body: DataBody | ChunkedBody, stored: bytes) -> Event | None:
        """The message, or one chunk of it."""
        self._decoder = None
        if body.refusal is not None:
            return self._spoilt(body, body.refusal)
        if body.last:
            event: Event = self._wait(MessageEnd(body.size), answers.MESSAGE_OK, _READY)
            if not stored:
                return event
            self._next = event
            return Chunk(stored)
        self._out.append(answers.CHUNK_OK)
        self.state = State.CHUNKS
        return Chunk(stored) if stored else None

    def _unbearable(self, body: DataBody | ChunkedBody) -> None:
        """No more of it is read: the session ends."""
        if body.refusal is not None:
            self._violated(body.command, body.refusal)

    def _spoilt(self, body: DataBody | ChunkedBody, reply: Reply) -> Event | None:
        """Nothing of it is kept, and what was open is over; chunks that were sent ahead are no errors."""
        sender = self._transaction()
        self.refused.append(Refused(body.command, b"", sender, reply))
        self._out.append(reply.encode())
        if sender is not None:
            self.state = _READY
        self._take_leave()
        return Reset(reply.lines[0]) if sender is not None and self._next is None else None
