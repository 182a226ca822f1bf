"""Whether a recipient of this host has a mailbox, as an SMTP client is told at RCPT.

A recipient is routed as the queue will route it; one of another host is nobody's to check.  An
answer holds for some seconds, and who asks for the same address meanwhile waits with the first.
Only what is known to be refused is refused, and only what is known to be deferred is put off:
where no answer comes soon, the recipient is taken, as without a check, and its delivery decides.
"""

import asyncio
import re
from asyncio import Future, TimerHandle
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import TypeVar

from openqmail.core.control.routing import route
from openqmail.core.control.settings import Settings
from openqmail.core.log import Log, Seldom, Warn
from openqmail.core.log.escaping import escape
from openqmail.core.ports import RecipientCheck, Told
from openqmail.core.values import Outcome, Reply, Result
from openqmail.core.world import Clock

FRESH = 5.0
"""Seconds for which an answer holds."""

MOST = 4096
"""Answers that are remembered, and routes; then all are forgotten."""

PATIENCE = 10.0
"""Seconds that a client waits for an answer."""

_PUT_OFF = b"this mailbox cannot take mail just now, try again later"
_CODE = re.compile(rb" *\(#([45]\.[0-9]{1,3}\.[0-9]{1,3})\)$")

_NEVER = 0.0, None

Verdict = Future[Reply | None]
T = TypeVar("T")


class Recipients:
    """What clients are told of recipients, under one set of settings."""

    def __init__(self, check: RecipientCheck, settings: Settings, clock: Clock, log: Log) -> None:
        self._loop = asyncio.get_running_loop()
        self._check = check
        self._clock = clock
        self._log = log
        self._route = lru_cache(MOST)(partial(route, settings=settings))
        self._taken: Verdict = self._loop.create_future()
        self._taken.set_result(None)
        self._known: dict[bytes, tuple[float, Verdict]] = {}
        self._foreseen: dict[bytes, tuple[float, Result | None]] = {}
        """What was told along with others and nobody has asked for yet."""
        self._waiting: dict[bytes, Verdict] = {}
        self._seldom = Seldom(FRESH)

    def check(self, recipient: bytes, ahead: "Callable[[], Iterable[bytes]]" = tuple) -> Verdict:
        """The reply that refuses `recipient`, as it stands in the envelope; None when it is to be
        taken.  There at once when nobody need be asked; never to be cancelled.  `ahead` gives others that
        will be asked for soon; they are looked up along with it where it has to be."""
        routed = self._route(recipient)
        if routed.channel != "local":
            return self._taken
        address = routed.address
        now = self._clock.monotonic()
        until, verdict = self._known.get(address, _NEVER)
        if verdict is not None and now < until:
            return verdict
        until, result = self._foreseen.pop(address, _NEVER)
        if now < until:
            return self._remember(address, until, self._done(self._reply(address, result)))
        return self._waiting.get(address) or self._ask(address, ahead())

    def _ask(self, address: bytes, ahead: Iterable[bytes]) -> Verdict:
        asked = self._check.check((address, *self._unknown(ahead, address)))
        if asked.done():
            result = self._foresee(address, asked.result())
            return self._remember(address, self._soon(), self._done(self._reply(address, result)))
        verdict: Verdict = self._loop.create_future()
        self._waiting[address] = verdict
        timer = self._loop.call_later(PATIENCE, self._settle, address, verdict, None)
        asked.add_done_callback(partial(self._answered, address, verdict, timer))
        return verdict

    def _unknown(self, recipients: Iterable[bytes], besides: bytes) -> Iterable[bytes]:
        """The addresses, each once, about which somebody would have to be asked."""
        found: dict[bytes, None] = {}
        now = self._clock.monotonic()
        for recipient in recipients:
            routed = self._route(recipient)
            address = routed.address
            until = max(self._known.get(address, _NEVER)[0], self._foreseen.get(address, _NEVER)[0])
            if routed.channel == "local" and until <= now and address not in self._waiting:
                found[address] = None
        found.pop(besides, None)
        return found

    def _answered(self, address: bytes, verdict: Verdict, timer: TimerHandle, asked: "Future[Told]") -> None:
        timer.cancel()
        if not verdict.done():  # else this answer came too late
            self._settle(address, verdict, self._foresee(address, asked.result()))

    def _foresee(self, address: bytes, told: Told) -> Result | None:
        """What is told of `address`; what is told of others is kept."""
        until = self._soon()
        for one, result in told.items():
            if one != address:
                _keep(self._foreseen, one, (until, result))
        return told[address]

    def _settle(self, address: bytes, verdict: Verdict, result: Result | None) -> None:
        del self._waiting[address]
        verdict.set_result(self._reply(address, result))
        self._remember(address, self._soon(), verdict)

    def _soon(self) -> float:
        """Until when what is told now holds."""
        return self._clock.monotonic() + FRESH

    def _remember(self, address: bytes, until: float, verdict: Verdict) -> Verdict:
        _keep(self._known, address, (until, verdict))
        return verdict

    def _done(self, reply: Reply | None) -> Verdict:
        if reply is None:
            return self._taken
        future: Verdict = self._loop.create_future()
        future.set_result(reply)
        return future

    def _reply(self, address: bytes, result: Result | None) -> Reply | None:
        """Why mail is deferred is no stranger's business: it names paths of users."""
        if result is not None and result.outcome is Outcome.DEFERRAL:
            self._tell(address, _on_a_line(result))
        return reply_of(result)

    def _tell(self, address: bytes, why: bytes) -> None:
        """The log: of one address for each reason in some seconds; one user may have any number of them."""
        if self._seldom.may_say(why, self._clock.monotonic()):
            self._log(Warn(f"mail for {escape(address).decode()} is put off: {escape(why).decode()}"))


def _keep(known: dict[bytes, T], name: bytes, value: T) -> None:
    """No more than `MOST`."""
    if len(known) >= MOST:
        known.clear()
    known[name] = value


def reply_of(result: Result | None) -> Reply | None:
    """What a client is told; None: the recipient is taken.  A refusal is told in its own words."""
    if result is None or result.outcome is Outcome.SUCCESS:
        return None
    text = _on_a_line(result)
    found = _CODE.search(text)
    if result.outcome is Outcome.FAILURE:
        code = found.group(1) if found and found.group(1).startswith(b"5") else b"5.1.1"
        return Reply(550, code, (_CODE.sub(b"", text),))
    code = found.group(1) if found and found.group(1).startswith(b"4") else b"4.3.0"
    return Reply(451, code, (_PUT_OFF,))


def _on_a_line(result: Result) -> bytes:
    return result.text.strip().replace(b"\n", b" ")
