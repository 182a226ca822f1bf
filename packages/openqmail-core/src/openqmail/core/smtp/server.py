"""The server's side of an SMTP session, without IO, in h11's manner.

`receive_data` takes bytes (`b""` is the end), `next_event` tells what they mean, `accept` or
`send` answers, `data_to_send` gives what is to be written.  Input is pulled, one event at a
time, so pipelining (RFC 2920) stays bounded: read no further while `full`.  Commands and
states meet in `tables.TABLE`.  Only CRLF ends a line (RFC 5321 section 2.3.8): a bare CR or
LF or a NUL ends the session with 5xx.  Policy is not here, nor is a clock.
"""

import re
from collections.abc import Callable

import msgspec

from openqmail.core.smtp import offer as answers
from openqmail.core.smtp import tables
from openqmail.core.smtp.events import (
    BREATH,
    NEED_DATA,
    PAUSED,
    Auth,
    AuthResponse,
    Data,
    Event,
    Hello,
    Mail,
    Quit,
    Rcpt,
    Reset,
    StartTls,
    XClientSaid,
)
from openqmail.core.smtp.machine import IDLE, Machine
from openqmail.core.smtp.offer import Offer
from openqmail.core.smtp.parameters import (
    SHORT_LINE,
    Uncommon,
    common,
    read_auth,
    read_base64,
    read_bdat,
    read_hello,
    read_mail,
    read_rcpt,
)
from openqmail.core.smtp.receiving import ChunkedBody, DataBody
from openqmail.core.smtp.refusals import Refused, of_event, of_line
from openqmail.core.smtp.tables import NO_SERVICE, TABLE, Refusal, State
from openqmail.core.smtp.xclient import read_xclient
from openqmail.core.values import Recipient, Reply

__all__ = ["Offer", "ServerSession"]

COMMAND_LINE = 2048
"""Octets in a command line with its CRLF; section 4.5.3.1.4 asks for 512 at least, and
extensions for more."""

AUTH_LINE = 12288
"""Octets in a line of AUTH (RFC 4954 section 4)."""

ALONE = 256
"""Commands that are dealt with before others have their turn, where none is reported."""

_AUTH_VERB = re.compile(rb"AUTH ", re.IGNORECASE)

# Looked at with every command: a name of the module costs a third of a member of the class.
_CONNECT, _READY, _AUTH, _TLS = State.CONNECT, State.READY, State.AUTH, State.TLS


# The rows of the table by what `common` reads, and the usual answers.
_ROWS: dict[type, dict[State, State | Reply]] = {
    Hello: TABLE[b"EHLO"],
    Mail: TABLE[b"MAIL"],
    Rcpt: TABLE[b"RCPT"],
    Data: TABLE[b"DATA"],
    Quit: TABLE[b"QUIT"],
}
_USUAL: dict[type, bytes] = {Mail: answers.MAIL_OK, Rcpt: answers.RCPT_OK, Data: answers.DATA_OK}


class ServerSession(Machine):
    """One session, from the greeting, which is the first answer that it waits for."""

    __slots__ = ()

    def next_event(self) -> Event:
        """What happened next.  It never raises, whatever the client sent."""
        if self._next is not None:
            event, self._next = self._next, None
            return event
        if self._pending is not None or self.state is _TLS:
            return PAUSED
        alone = 0
        while self._buffer or self._eof:
            found = self._command() if self._decoder is None else self._body(self._decoder)
            if found is not None:
                return found
            alone += 1
            if alone == ALONE and self._next is None:
                return BREATH
        event, self._next = self._next or NEED_DATA, None
        return event

    def recipients_ahead(self, most: int) -> list[Recipient]:
        """Those of the RCPT commands that came behind the one that waits for its answer, up to any other
        line: at most `most`, and no more than could be accepted.  Their turn is still to come."""
        found: list[Recipient] = []
        if type(self._pending) is not Rcpt:
            return found
        most = min(most, self._offer.max_recipients - self._recipients - 1)
        buffer, at = self._buffer, self._position
        while len(found) < most and (end := buffer.find(b"\n", at, at + COMMAND_LINE) + 1):
            rcpt = self._rcpt_on(buffer[at:end])
            if rcpt is None:
                break
            found.append(rcpt.recipient)
            at = end
        return found

    # --- answers ------------------------------------------------------------------------

    def accept(self, wire: bytes = b"") -> None:
        """The usual positive answer to the event that waits, or `wire` in its place."""
        pending = self._pending
        if pending is None:
            return
        self._out.append(wire or self._default)
        self._pending = None
        self.state = self._after
        if type(pending) is Rcpt:
            self._recipients += 1
        elif type(pending) is Data:
            if self._chunks is None:
                self._decoder = DataBody(self._offer.size)
            else:
                self._next = self._receive(self._chunks)
        elif type(pending) is Mail:
            self._chunks, self._idle = None, 0
            self._smtputf8, self._recipients, self._sender = pending.smtputf8, 0, pending.sender
        elif type(pending) is Hello:
            self._extended = pending.extended
        elif type(pending) is StartTls:
            self._buffer, self._position, self._eof = b"", 0, False  # sent ahead: never read
        if self._farewell is not None:
            self._take_leave()

    def send(self, reply: Reply) -> None:
        """Any answer to the event that waits; 421 ends the session.

        A challenge of AUTH is `Reply(334, b"", (its base64,))`.
        """
        pending, code = self._pending, reply.code
        if pending is None:
            return
        if code >= 400 and code != 421 and type(pending) is Data and self._chunks is not None:
            self._pending = None
            self._chunks.refuse(reply)
            self._next = self._receive(self._chunks)
            return
        wire = reply.encode()
        if code >= 400:
            self.refused.append(of_event(pending, self._transaction(), reply))
        if code == 421:
            self._out.append(wire)
            self._close()
        elif code == 334 and isinstance(pending, Auth | AuthResponse):
            self._after = _AUTH
            self.accept(wire)
        elif code == 354 if type(pending) is Data else 200 <= code < 300:
            self.accept(wire)
        else:
            self._denied(wire)
            senseless = code == 501 and isinstance(pending, Auth | AuthResponse)  # as what is no base64
            if senseless or (code == 530 and type(pending) is Mail):  # it goes on without a login, or TLS
                self._erred()

    def authenticated(self, identity: bytes) -> None:
        """The positive answer to an AUTH exchange."""
        self.identity = identity
        self.accept()

    def within_tls(self, facts: object) -> None:
        """The handshake was done before the greeting (RFC 8314)."""
        self.tls = facts
        if self._offer.starttls:
            self._offer = msgspec.structs.replace(self._offer, starttls=False)

    def offer_auth(self, mechanisms: tuple[bytes, ...]) -> None:
        """Offer these from now on."""
        self._offer = msgspec.structs.replace(self._offer, auth=mechanisms)

    @property
    def lacks_tls(self) -> bool:
        """Nobody can log in here as yet, and TLS may be begun."""
        return self._offer.starttls and not self._offer.auth

    def tls_started(self, facts: object) -> None:
        """The handshake is done.  Nothing that was said or sent before it counts any more
        (RFC 3207 section 4.2)."""
        self.tls, self.identity = facts, None
        self._offer = msgspec.structs.replace(self._offer, starttls=False, auth=())
        self._buffer, self._position, self._eof = b"", 0, False
        self._extended = self._smtputf8 = False
        self._pending, self._next, self._decoder = None, None, None
        self.state = State.START
        self._take_leave()

    def _denied(self, wire: bytes) -> None:
        """The state stays, but a message or an exchange that was refused is over."""
        self._out.append(wire)
        self._pending = None
        if self.state is _CONNECT:
            self.state = State.REFUSED
        elif self.state in (State.BODY, _AUTH):
            self.state = _READY
        if self._farewell is not None:
            self._take_leave()

    # --- commands -----------------------------------------------------------------------

    def _command(self) -> Event | None:
        """The next line; None when the machine has dealt with it by itself."""
        buffer, start = self._buffer, self._position
        limit = AUTH_LINE if self.state is _AUTH else COMMAND_LINE
        end = buffer.find(b"\n", start, start + limit) + 1
        if not end and limit == COMMAND_LINE and self._offer.auth and _AUTH_VERB.match(buffer, start):
            limit = AUTH_LINE  # tokens are long, and clients send them with the command
            end = buffer.find(b"\n", start, start + limit) + 1
        if not end:
            if buffer.startswith(tables.HANDSHAKE, start):
                self._violated("line", tables.OTHER_PROTOCOL)
                return None
            if len(buffer) - start >= limit:
                self._violated("line", tables.LONG_COMMAND)
                return None
            return self._half_closed() if self._eof else NEED_DATA
        line = buffer[start:end]
        if end == len(buffer):
            self._buffer, self._position = b"", 0
        else:
            self._position = end
        if end - start <= SHORT_LINE:
            try:
                event = common(line)
                after = _ROWS[type(event)].get(self.state)
                if type(after) is State and (found := self._take(event, after)) is not None:
                    return found
            except Uncommon:
                pass
        if _is_bare(line):
            self._violated("line", tables.BARE_IN_COMMAND)
            return None
        try:
            return self._auth_line(line) if self.state is _AUTH else self._obey(line)
        except Refusal as refusal:
            self._refuse(of_line(line, self._transaction(), refusal.reply))
            return None

    def _take(self, event: Event, after: State) -> Event | None:
        """Obey a command of a common form; None where it is to be refused, the long way."""
        if type(event) is Quit:
            self._out.append(self._offer.bye)
            self._close()
            return event
        if type(event) is Hello:
            if self._idle >= IDLE:
                return None
            self._default = self._hello(event.extended)
        elif type(event) is Rcpt and self._recipients >= self._offer.max_recipients:
            return None
        else:
            self._default = _USUAL[type(event)]
        self._pending, self._after = event, after
        return event

    def _obey(self, line: bytes) -> Event | None:
        verb, argument = _words(line)
        row = TABLE.get(verb)
        if row is None:
            if verb in tables.OTHERS:
                self._violated("unknown", tables.OTHER_PROTOCOL)
                return None
            raise Refusal(tables.NOT_IMPLEMENTED if verb in tables.STANDARD else tables.UNKNOWN)
        after = row.get(self.state, NO_SERVICE)
        if verb == b"BDAT":
            return self._bdat(argument, after)
        if isinstance(after, Reply):
            raise Refusal(after)
        return _HANDLERS[verb](self, argument, after)

    def _ehlo(self, argument: bytes, after: State) -> Event | None:
        return self._wait(read_hello(argument, True), self._hello(True), after)

    def _helo(self, argument: bytes, after: State) -> Event | None:
        return self._wait(read_hello(argument, False), self._hello(False), after)

    def _hello(self, extended: bool) -> bytes:
        """The answer; from now on a client may speak for itself that a front end has named, and has no say in
        who it is."""
        self._lead_nowhere()
        self._hears_xclient = self._offer.xclient
        return self._offer.ehlo if extended else self._offer.helo

    def _mail(self, argument: bytes, after: State) -> Event | None:
        offer = self._offer
        event = read_mail(argument, self._extended, offer.size, offer.dsn, bool(offer.auth))
        return self._wait(event, answers.MAIL_OK, after)

    def _rcpt(self, argument: bytes, after: State) -> Event | None:
        event = self._read_rcpt(argument)
        if self._recipients >= self._offer.max_recipients:
            raise Refusal(tables.TOO_MANY_RECIPIENTS)
        return self._wait(event, answers.RCPT_OK, after)

    def _read_rcpt(self, argument: bytes) -> Rcpt:
        return read_rcpt(argument, self._extended, self._smtputf8, self._offer.dsn)

    def _rcpt_on(self, line: bytes) -> Rcpt | None:
        """The RCPT command that a line is, where nothing is wrong with it."""
        try:
            event = common(line) if len(line) <= SHORT_LINE else None
        except Uncommon:
            event = None
        if event is not None or _is_bare(line):
            return event if type(event) is Rcpt else None
        verb, argument = _words(line)
        try:
            return self._read_rcpt(argument) if verb == b"RCPT" else None
        except Refusal:
            return None

    def _data(self, argument: bytes, after: State) -> Event | None:
        _no_argument(argument)
        return self._wait(Data(), answers.DATA_OK, after)

    def _bdat(self, argument: bytes, after: State | Reply) -> Event | None:
        """Whatever becomes of it, what it announces is never taken for commands."""
        read = read_bdat(argument)
        if read is None:
            self._violated("bdat", tables.BAD_CHUNK)
            return None
        if self.state is not State.CHUNKS or self._chunks is None:
            self._chunks = ChunkedBody(self._offer.size)
        self._chunks.begin(*read)
        if isinstance(after, Reply):
            self._chunks.refuse(after)
        elif self.state is State.RCPT and self._chunks.refusal is None:
            return self._wait(Data(), b"", after)
        return self._receive(self._chunks)

    def _rset(self, argument: bytes, after: State) -> Event | None:
        _no_argument(argument)
        if self.state is after:
            self._lead_nowhere()
        self._out.append(answers.OK)
        before, self.state = self.state, after
        return Reset(b"RSET") if before is not after else None

    def _lead_nowhere(self) -> None:
        """One more command that mail does not need."""
        self._idle += 1
        if self._idle > IDLE:
            raise Refusal(tables.TOO_IDLE)

    def _noop(self, argument: bytes, after: State) -> None:
        self._lead_nowhere()
        self._out.append(answers.OK)

    def _vrfy(self, argument: bytes, after: State) -> None:
        self._lead_nowhere()
        self._out.append(answers.CANNOT_VERIFY)

    def _help(self, argument: bytes, after: State) -> None:
        self._lead_nowhere()
        self._out.append(answers.HELP)

    def _quit(self, argument: bytes, after: State) -> Event | None:
        _no_argument(argument)
        self._out.append(self._offer.bye)
        self._close()
        return Quit()

    def _starttls(self, argument: bytes, after: State) -> Event | None:
        if not self._offer.starttls:
            raise Refusal(tables.NOT_IMPLEMENTED)
        _no_argument(argument)
        return self._wait(StartTls(), answers.TLS_OK, after)

    def _xclient(self, argument: bytes, after: State) -> Event | None:
        if not self._hears_xclient:
            raise Refusal(tables.NOT_IMPLEMENTED)
        said = read_xclient(argument)
        if self._buffer:
            raise Refusal(tables.XCLIENT_LAST)
        return self._wait(XClientSaid(said), b"", after)

    def _auth(self, argument: bytes, after: State) -> Event | None:
        if not self._offer.auth:
            raise Refusal(tables.TLS_FIRST if self.lacks_tls and self.auth_in_tls else tables.NOT_IMPLEMENTED)
        if self.identity is not None:
            raise Refusal(tables.AUTHENTICATED)
        return self._wait(read_auth(argument, self._offer.auth), answers.AUTH_OK, after)

    def _auth_line(self, line: bytes) -> Event | None:
        """The client's answer to a challenge; "*" cancels (RFC 4954 section 4)."""
        try:
            if line == b"*\r\n":
                raise Refusal(tables.CANCELLED)
            response = AuthResponse(read_base64(line[:-2]))
        except Refusal as refusal:
            self.state = _READY
            self._refuse(Refused("auth", b"", None, refusal.reply))
            return Reset(b"AUTH") if self._next is None else None
        return self._wait(response, answers.AUTH_OK, _READY)


def _words(line: bytes) -> tuple[bytes, bytes]:
    """The verb of a command in upper case, and what stands behind it (section 4.1.1)."""
    verb, _, argument = line.rstrip(b" \t\r\n").partition(b" ")
    return verb.upper(), argument


def _is_bare(line: bytes) -> bool:
    """Whether CR or LF do not come in pairs, at its end alone, or there is a NUL."""
    return len(line) == 1 or line.find(b"\r") != len(line) - 2 or 0 in line


def _no_argument(argument: bytes) -> None:
    if argument:
        raise Refusal(tables.NO_ARGUMENT)


_HANDLERS: dict[bytes, Callable[[ServerSession, bytes, State], Event | None]] = {
    b"EHLO": ServerSession._ehlo,
    b"HELO": ServerSession._helo,
    b"MAIL": ServerSession._mail,
    b"RCPT": ServerSession._rcpt,
    b"DATA": ServerSession._data,
    b"RSET": ServerSession._rset,
    b"XCLIENT": ServerSession._xclient,
    b"NOOP": ServerSession._noop,
    b"VRFY": ServerSession._vrfy,
    b"HELP": ServerSession._help,
    b"QUIT": ServerSession._quit,
    b"STARTTLS": ServerSession._starttls,
    b"AUTH": ServerSession._auth,
}
