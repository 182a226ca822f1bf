"""One connection to another host: a socket round the SMTP client machine, one transaction at a time.

It reports to whoever holds the other end of `Owner`; it decides nothing about other hosts, and of
other tries only that the next one to this host is without TLS, where the policy lets it.  One write for
all that a turn of the loop has to say.  It has no timer: its owner calls `expire` now and then, and
`deadline` is where the machine's patience (RFC 5321 section 4.5.3.2, at most `timeoutremote`) ends.  A host
that answers each time at the last moment is given up as well: all that comes before the message has
`SECONDS_TO_AGREE`, on however many connections, and a large body a time of its own (streaming.py).
"""

import asyncio
from math import inf
from typing import cast

import msgspec

from openqmail.core.control.settings import Settings
from openqmail.core.log import Log
from openqmail.core.message.lines import chunk_form
from openqmail.core.remote import report
from openqmail.core.remote.attempt import Attempt, Owner, State
from openqmail.core.remote.pool import Place
from openqmail.core.remote.securing import HUNG_UP, SECONDS, TOO_LATE, Securing, begun, failed, logged_in
from openqmail.core.remote.streaming import Streaming
from openqmail.core.remote.transport import Stop
from openqmail.core.smtp.client import ClientSession
from openqmail.core.smtp.client_events import (
    BODY_WANTED,
    NEED_DATA,
    Ended,
    Finished,
    Ready,
    Refused,
    StartTls,
    Unmet,
)
from openqmail.core.smtp.client_events import Outcome as Decided
from openqmail.core.tls import TlsError, TlsFacts
from openqmail.core.values import PermanentFailure, Result

SECONDS_TO_LEAVE = 5.0
MOST_TRANSACTIONS = 1000
"""A connection that was of use so often makes room for a new one: addresses and policies change."""

ANSWERS = 16 * 1024
"""Octets that TLS itself may answer behind its handshake: new keys may be asked for (RFC 8446 section
4.6.3), but not without end by who reads nothing."""

_BEFORE_THE_MESSAGE = frozenset(
    ("greeting", "ehlo", "helo", "lhlo", "starttls", "auth", "cancelled", "cleared", "mail", "rcpt", "data")
)


class Connection(asyncio.Protocol):
    """Made with its first attempt; after that `start` gives it another while it is idle."""

    def __init__(
        self,
        owner: Owner,
        stop: Stop,
        place: Place,
        settings: Settings,
        session: ClientSession,
        attempt: Attempt,
        log: Log,
    ) -> None:
        self.stop = stop
        self.place = place
        self.settings = settings
        self.state: State = "opening"
        self.opened = False
        self.deadline = inf
        self._owner = owner
        self._log = log
        self._tls: Securing | None = None
        self._answered = 0  # octets, by TLS itself
        self._vouched = True  # something was heard since the handshake began, if one did
        self._timeout = settings.timeoutremote
        self._host = stop.address.encode("ascii")
        self._session = session
        self._answers = -1
        self._attempt: Attempt | None = attempt
        self._reused = False
        self._relay = stop.name if stop.relay else b""
        self._login_told = False
        self._whole_sent = False
        self._transactions = 0
        self._streaming: Streaming | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    # --- what the owner asks for ------------------------------------------------------

    def start(self, attempt: Attempt) -> None:
        """Another transaction on this idle connection."""
        self._reused = True
        self._attempt = attempt
        attempt.connected(self._loop.time())
        self._begin()
        self._flush()

    def leave(self) -> None:
        """Say QUIT, and go when the peer has answered or `SECONDS_TO_LEAVE` are over."""
        if self._session.closing:
            self._fail()
        elif self.state == "idle":
            self.state = "leaving"
            self._session.quit()
            self._flush()

    def late(self, now: float) -> bool:
        """Whether the time for what comes before the message is over; it counts only until then."""
        return self._attempt is not None and now >= self._attempt.until

    def expire(self, now: float) -> None:
        """Give up when the deadline has passed."""
        if now >= self.deadline:
            self._break_off(TOO_LATE)

    def abort(self) -> None:
        """End at once; a delivery under way is deferred."""
        self._vouched = True  # no fault of its TLS
        self._break_off("")

    # --- what the event loop tells ----------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        if self._attempt is not None:
            self._attempt.connected(self._loop.time())
        self.opened = True
        self._owner.opened(self)
        if self.stop.security.implicit(self.stop.port):
            self._begin_tls()
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self.state == "gone":
            return
        if self._tls is not None and not (data := self._decipher(self._tls, data)):
            return
        if self.state == "idle":
            # Nothing was asked: a 421, or worse.  Neither makes it of further use.
            self._fail()
            return
        self._vouched = True
        self._session.receive_data(data)
        self._turn()

    def eof_received(self) -> None:
        if not self._vouched:
            self._tls_failed(HUNG_UP)
            return
        self._session.receive_data(b"")
        self._turn()

    def connection_lost(self, exc: Exception | None) -> None:
        self._break_off(HUNG_UP)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # --- TLS --------------------------------------------------------------------------

    @property
    def handshaking(self) -> bool:
        """The handshake has begun, and nothing was heard behind it."""
        return not self._vouched

    def _begin_tls(self) -> None:
        self._vouched = False
        try:
            self._tls = Securing(self.stop.security, self.stop.name)
        except TlsError as error:
            self._tls_failed(str(error))
        else:
            self._wire.write(self._tls.to_send())

    def _decipher(self, tls: Securing, data: bytes) -> bytes:
        """What the peer says, if it says something and the connection is still of use."""
        try:
            plain = tls.receive(data)
        except TlsError as error:
            self._wire.write(tls.to_send())  # why, as TLS says it
            self._break_off(str(error))
            return b""
        if answer := tls.to_send():
            self._wire.write(answer)
            if self._session.tls is not None:
                self._answered += len(answer)
                if self._answered > ANSWERS:
                    self._break_off("it asks for new keys without end")
                    return b""
        if tls.facts is not None and self._session.tls is None:
            self._secured(tls.facts)
        if tls.over:
            if plain:
                self._vouched = True
                self._session.receive_data(plain)
            self.eof_received()
            return b""
        return plain

    def _cipher(self, tls: Securing, data: bytes) -> bytes:
        """The same as it goes over the wire; nothing where TLS is broken."""
        try:
            return tls.send(data)
        except TlsError as error:
            self._break_off(str(error))
            return b""

    def _secured(self, facts: TlsFacts) -> None:
        self._session.tls_started(facts)
        if self._attempt is not None:
            self._log(begun(self._attempt.job.delivery, self.stop, facts))
        self._flush()

    def _tls_failed(self, why: str) -> None:
        """The next try is without TLS, on a new connection, where the policy lets it."""
        attempt, self._attempt = self._attempt, None
        stop, security = self.stop, self.stop.security
        self._leave_behind()
        if attempt is None:
            return
        may = not security.policy.encrypted and not security.implicit(stop.port)
        self._log(failed(attempt.job.delivery, stop, why, again=may))
        if may:
            attempt.stops = (msgspec.structs.replace(stop, security=security.without_tls()), *attempt.stops)
            attempt.problem = report.died(self._host, "starttls", whole_message_sent=False)
        else:
            attempt.problem = report.not_secure(self._host, f"TLS failed: {why}", security.reason)
        self._owner.try_again(attempt)

    # --- what the machine says --------------------------------------------------------

    def _turn(self) -> None:
        session = self._session
        while self.state != "gone":
            event = session.next_event()
            if event is NEED_DATA:
                break
            if event is BODY_WANTED:
                self._send_body()
            elif isinstance(event, Finished):
                self._finished(event)
            elif isinstance(event, Ready):
                self._tell_login()
                self._begin()
            elif isinstance(event, StartTls):
                self._owner.answered(self)
                self._begin_tls()
            elif isinstance(event, Refused | Unmet):
                self._refused(event)
            elif isinstance(event, Ended):
                if event.stage == "starttls":
                    self._tls_failed(event.why)
                else:
                    self._fail(event.outcomes, event.stage)
        if self.state != "idle":
            self._flush()

    def _tell_login(self) -> None:
        """Once, when the host has taken it."""
        session, attempt = self._session, self._attempt
        if session.mechanism and attempt is not None and not self._login_told:
            self._login_told = True
            under_tls = session.tls is not None
            self._log(logged_in(attempt.job.delivery, self.stop, session.mechanism, under_tls))

    def _flush(self) -> None:
        if self.state == "gone":
            return
        data, answers = self._session.data_to_send(), self._session.answers
        if data:
            if self._tls is not None and not (data := self._cipher(self._tls, data)):
                return
            self._wire.write(data)
        elif answers == self._answers:
            return  # half a reply wins the peer no time, or one octet a minute would hold us for ever
        self._answers = answers
        if self.state == "leaving":
            patience: float | None = SECONDS_TO_LEAVE
        elif self._tls is not None and self._tls.facts is None:
            patience = min(SECONDS, self._timeout)
        else:
            patience = self._session.deadline()
        if self.state != "idle":
            self.deadline = self._loop.time() + (self._timeout if patience is None else patience)
            if self._attempt is not None and self.deadline > self._attempt.until and self._session.asking:
                self.deadline = self._attempt.until
            self.deadline = min(self.deadline, self._taken_by)

    def _begin(self) -> None:
        attempt = self._attempt
        if attempt is None:
            return
        if self.state == "opening":
            self._owner.answered(self)
        self.state = "busy"
        self._whole_sent = False
        self._transactions += 1
        job = attempt.job
        # On a connection that was kept, a body that was sent at once could not be told from one that the
        # peer, which had hung up, never saw.
        whole = b""
        if self.settings.chunkingremote and not self._reused and attempt.wire is not None:
            whole = chunk_form(attempt.wire)
        try:
            self._whole_sent = self._session.begin(attempt.transaction(), whole)
        except PermanentFailure as failure:
            self._over(attempt, (report.unable(self._host, str(failure)),) * len(job.recipients))

    def _send_body(self) -> None:
        attempt = self._attempt
        if attempt is None:
            return
        if attempt.wire is None:
            self._streaming = Streaming(
                attempt.job.body, attempt.size, self._writable, self._send_piece, self._streamed
            )
            return
        self._session.send_whole(attempt.wire)
        self._whole_sent = True

    def _send_piece(self, piece: bytes) -> None:
        self._session.send_body(piece)
        self._flush()

    def _streamed(self, whole: bool) -> None:
        """All of the large body has been sent that can be read."""
        attempt = self._attempt
        if not whole and attempt is not None:
            self._attempt = None
            attempt.finish_all(report.UNREADABLE)
            self._fail()
            return
        self._streaming = None
        self._session.end_body()
        self._whole_sent = True
        self._flush()

    @property
    def _taken_by(self) -> float:
        """When the peer has to have taken what it is sent just now."""
        return inf if self._streaming is None else self._streaming.until

    def _finished(self, event: Finished) -> None:
        attempt = self._attempt
        if attempt is None:
            return
        closing = self._session.closing  # it takes a 421, or a reply in the midst of the body
        if closing and self._reused and all(stage == "mail" for stage, _ in event.outcomes):
            # It was kept too long for the peer's taste; nothing of this message has been said yet.
            self._attempt = None
            self._fail()
            attempt.stops = (self.stop, *attempt.stops)
            self._owner.try_again(attempt)
            return
        results = report.transaction(self._host, event.outcomes, self._relay)
        if attempt.job.dsn and b"DSN" in self._session.extensions:
            results = report.taken_over(results)
        if closing or self._streaming is not None:
            self._attempt = None
            self._fail()
            attempt.finish(results)
        else:
            self._over(attempt, results)

    def _over(self, attempt: Attempt, results: tuple[Result, ...]) -> None:
        """The transaction has ended as SMTP wants it; the connection may serve another."""
        self._attempt = None
        self.state = "idle"
        if self._transactions >= MOST_TRANSACTIONS or not self._session.ready or not self._owner.idle(self):
            self.leave()
        attempt.finish(results)

    def _refused(self, event: Refused | Unmet) -> None:
        self._owner.answered(self)
        attempt = self._attempt
        self._attempt = None
        self.state = "idle"
        self.leave()
        if attempt is not None:
            reason = self.stop.security.reason
            if isinstance(event, Unmet):
                attempt.problem = report.not_secure(self._host, event.why, reason)
            else:
                attempt.problem = report.refused(self._host, event.stage, event.reply, reason, self.stop.name)
            self._owner.try_again(attempt)

    # --- the end ----------------------------------------------------------------------

    def _break_off(self, why: str) -> None:
        """Nothing more will come; what the peer has said about some of the recipients stands."""
        if self.state == "gone":
            return
        if not self._vouched:
            self._tls_failed(why)
            return
        self._session.timed_out()
        self._turn()
        self._fail()

    def _fail(self, decided: tuple[Decided | None, ...] = (), stage: str = "") -> None:
        """The connection is of no more use, for whatever reason; `decided` is what it still said
        about recipients, `stage` what it owed an answer to."""
        if self.state == "gone":
            return
        before = self.state
        attempt, self._attempt = self._attempt, None
        taken_by = self._taken_by
        if self._streaming is not None:
            self._streaming.stop()
            self._streaming = None  # or each would keep the other, until the garbage is collected
        self._leave_behind(polite=stage == "quit")
        if attempt is None:
            return
        if self._loop.time() >= attempt.until and stage in _BEFORE_THE_MESSAGE and not self._whole_sent:
            died = report.too_slow(self._host)
        elif self._loop.time() >= taken_by:
            died = report.taken_too_slowly(self._host)
        else:
            died = report.died(self._host, stage, whole_message_sent=self._whole_sent)
        if before == "opening":
            attempt.problem = died
            self._owner.try_again(attempt)
        elif self._reused and not self._whole_sent:
            attempt.stops = (self.stop, *attempt.stops)
            self._owner.try_again(attempt)
        elif decided:
            attempt.finish(
                tuple(
                    died if each is None else report.concluded(self._host, *each, self._relay)
                    for each in decided
                )
            )
        else:
            attempt.finish_all(died)

    def _leave_behind(self, polite: bool = False) -> None:
        self.state = "gone"
        if polite and self._tls is not None:
            self._wire.write(self._tls.close())
            self._wire.close()
        else:
            self._wire.abort()
        self._owner.gone(self)
