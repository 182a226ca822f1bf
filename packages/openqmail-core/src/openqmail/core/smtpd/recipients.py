"""Whether a recipient of this host has a mailbox, as an SMTP client is told at RCPT.

A recipient is routed as the queue will route it; one of another host is nobody's to check.  An
answer holds for some seconds, and who asks for the same address meanwhile waits with the first.
Only what is known to be refused is refused, and only what is known to be deferred is put off:
where no answer comes soon, the recipient is taken, as without a check, and its delivery decides.
"""

import asyncio
import re
from asyncio import Future, TimerHandle
from functools import lru_cache, partial

from openqmail.core.control.routing import route
from openqmail.core.control.settings import Settings
from openqmail.core.log import Log, Warn
from openqmail.core.ports import RecipientCheck
from openqmail.core.values import Outcome, Reply, Result
from openqmail.core.world import Clock

FRESH = 5.0
"""Seconds for which an answer holds."""

MOST = 1024
"""Answers that are remembered, and routes; then all are forgotten."""

PATIENCE = 10.0
"""Seconds that a client waits for an answer."""

_PUT_OFF = b"this mailbox cannot take mail just now, try again later"
_CODE = re.compile(rb" *\(#([45]\.[0-9]{1,3}\.[0-9]{1,3})\)$")

Verdict = Future[Reply | None]


class Recipients:
    """What clients are told of recipients, under one set of settings."""

    def __init__(self, check: RecipientCheck, settings: Settings, clock: Clock, log: Log) -> None:
        self._loop = asyncio.get_running_loop()
        self._check = check
        self._clock = clock
        self._log = log
        self._route = lru_cache(MOST)(partial(route, settings=settings))
        self._taken = self._done(None)
        self._known: dict[bytes, tuple[float, Verdict]] = {}
        self._waiting: dict[bytes, Verdict] = {}

    def check(self, recipient: bytes) -> Verdict:
        """The reply that refuses `recipient`, as it stands in the envelope; None when it is to be
        taken.  There at once when nobody need be asked; never to be cancelled."""
        routed = self._route(recipient)
        if routed.channel != "local":
            return self._taken
        address = routed.address
        until, verdict = self._known.get(address, (0.0, self._taken))
        if self._clock.monotonic() < until:
            return verdict
        return self._waiting.get(address) or self._ask(address)

    def _ask(self, address: bytes) -> Verdict:
        asked = self._check.check(address)
        if asked.done():
            return self._remember(address, self._done(self._reply(address, asked.result())))
        verdict: Verdict = self._loop.create_future()
        self._waiting[address] = verdict
        timer = self._loop.call_later(PATIENCE, self._settle, address, verdict, None)
        asked.add_done_callback(partial(self._answered, address, verdict, timer))
        return verdict

    def _answered(
        self, address: bytes, verdict: Verdict, timer: TimerHandle, asked: "Future[Result | None]"
    ) -> None:
        timer.cancel()
        self._settle(address, verdict, asked.result())

    def _settle(self, address: bytes, verdict: Verdict, result: Result | None) -> None:
        if verdict.done():  # this answer came too late
            return
        del self._waiting[address]
        verdict.set_result(self._reply(address, result))
        self._remember(address, verdict)

    def _remember(self, address: bytes, verdict: Verdict) -> Verdict:
        if len(self._known) >= MOST:
            self._known.clear()
        self._known[address] = self._clock.monotonic() + FRESH, verdict
        return verdict

    def _done(self, reply: Reply | None) -> Verdict:
        future: Verdict = self._loop.create_future()
        future.set_result(reply)
        return future

    def _reply(self, address: bytes, result: Result | None) -> Reply | None:
        """Why mail is deferred is no stranger's business: it names paths of users."""
        if result is not None and result.outcome is Outcome.DEFERRAL:
            shown, why = address.decode("ascii", "replace"), _on_a_line(result).decode("ascii", "replace")
            self._log(Warn(f"mail for {shown} is put off: {why}"))
        return reply_of(result)


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
