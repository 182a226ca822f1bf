"""What the checks of a client and hooks cost: sessions of one message each, in memory, with them off and on.

    python bench/session.py [SESSIONS]

Off: no rules, no limits, no recipient check.  On: a thousand networks in the rules, every limit set (the
gate by frames over a socket, both its ends in this process), lists of bad addresses, recipients looked up:
another in each session, since an answer is kept for some seconds.
Hooks are ten, plain, without an opinion (plain_hooks.py).  It prints microseconds a session, the best of
several rounds taken in turn, and the difference; and those of a step that no hook has a say in.
"""

import asyncio
import itertools
import socket
import sys
import time
from asyncio import Future
from collections.abc import Sequence
from typing import Any

import plain_hooks

from openqmail.core.control.reader import defaults
from openqmail.core.control.rules import Rule, Rules
from openqmail.core.control.settings import Listener
from openqmail.core.gate import LocalGate, limits_of
from openqmail.core.hooks import Conversation, HookChain, SessionFacts
from openqmail.core.log import MemoryLog
from openqmail.core.ports import ServiceContext, Told
from openqmail.core.service.frames.gate import GateClient, GateServer
from openqmail.core.smtpd import SmtpService
from openqmail.core.values import MessageId, Outcome, Recipient, Result
from openqmail.core.world import SystemClock

ROUNDS = 7
MESSAGE = b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n" * 10
BEFORE = (b"EHLO c.example\r\n", b"MAIL FROM:<s@c.example> SIZE=100\r\n")
BEHIND = (b"DATA\r\n", MESSAGE + b".\r\n", b"QUIT\r\n")

NETWORKS = {f"10.{at // 256}.{at % 256}.0/25": Rule(True, {}) for at in range(1000)}
OFF: dict[str, Any] = {
    "rcpthosts": frozenset({b"a.example"}), "concurrencyincoming": 100_000,
    "concurrencynetwork": 0, "maxbadrcpt": 0, "tarpit": 0, "mindatarate": 0, "maxmessages": 0,
    "maxconnectionrecipients": 0, "connectionsperhour": 0, "messagesperhour": 0, "recipientsperhour": 0,
}  # fmt: skip
ON: dict[str, Any] = OFF | {
    "rules": Rules(NETWORKS | {"192.": Rule(True, {})}),
    "badmailfrom": frozenset({b"@bad.example"}), "badrcptto": frozenset({b"former@a.example"}),
    "badhelo": ("a.example", ".local"), "morercpthosts": frozenset({b"more.example"}),
    "concurrencynetwork": 50, "maxmessages": 100, "maxbadrcpt": 20, "tarpit": 1, "mindatarate": 100,
    "maxconnectionrecipients": 10_000,
}  # fmt: skip


class Queue:
    def submit(self, envelope: object, body: object, hold: str = "") -> "Future[MessageId]":
        future: Future[MessageId] = asyncio.get_running_loop().create_future()
        future.set_result(MessageId(1, b"k" * 24))
        return future


class Mailboxes:
    def check(self, recipients: Sequence[bytes]) -> "Future[Told]":
        future: Future[Told] = asyncio.get_running_loop().create_future()
        future.set_result({recipients[0]: Result(Outcome.SUCCESS, b"")})
        return future


class Transport:
    """Of a client at 192.0.2.1 that reads all at once."""

    said = b""

    def get_extra_info(self, name: str) -> tuple[str, int]:
        return ("192.0.2.1", 40_000) if name == "peername" else ("192.0.2.9", 25)

    def write(self, data: bytes) -> None:
        self.said = data

    def close(self) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Side:
    """One way of being configured."""

    def __init__(
        self, values: dict[str, Any], checked: bool, kind: type[plain_hooks.Plain] | None = None
    ) -> None:
        settings = defaults(b"a.example", **values)
        ours, theirs = socket.socketpair()
        self.gate = GateClient()
        self.gate.attach(ours)
        self._server = GateServer(LocalGate(limits_of(settings)))
        self._server.serve(theirs)
        self._users = itertools.count()
        self._service = SmtpService(
            ServiceContext(
                listener=Listener("smtp", "", 0),
                settings=settings,
                submission=Queue(),  # type: ignore[arg-type]
                gate=self.gate,
                hooks=HookChain(
                    [(name, kind(None)) for name in plain_hooks.names(kind)] if kind else (), MemoryLog()
                ),
                log=lambda event: None,  # type: ignore[arg-type]
                clock=SystemClock(),
                recipients=Mailboxes() if checked else None,
            )
        )

    async def sessions(self, count: int) -> float:
        """Seconds of CPU for so many."""
        begun = time.process_time()
        for _ in range(count):
            session, transport = self._service.connect(), Transport()
            session.connection_made(transport)  # type: ignore[arg-type]
            while not transport.said:
                await asyncio.sleep(0)
            for turn in (*BEFORE, b"RCPT TO:<u%d@a.example>\r\n" % next(self._users), *BEHIND):
                session.get_buffer(-1)[: len(turn)] = turn
                transport.said = b""
                session.buffer_updated(len(turn))
                while not transport.said:
                    await asyncio.sleep(0)
            assert transport.said[:3] == b"221", transport.said
            session.connection_lost(None)
        return time.process_time() - begun


class _OnlyAuth:
    """A hook that has a say at one step alone."""

    def auth(self, session: object, identity: object) -> None: ...


def step_without_hooks(count: int = 100_000) -> float:
    """Microseconds of a step that no hook has a say in, while there is one for others.  Where there is none
    at all a step costs less: there is no conversation to ask, and nobody looks further."""
    hooks = HookChain([("only-auth", _OnlyAuth())], MemoryLog())
    facts = SessionFacts("smtp", "192.0.2.1", 40_000, "192.0.2.9", False)
    conversation = Conversation(hooks, frozenset({"auth"}), lambda number, listed: facts)
    recipient = Recipient(b"alice@a.example")
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(count):
            conversation.ask("rcpt", recipient, listed=True)
        best = min(best, time.process_time() - begun)
    return 1e6 * best / count


async def main(count: int) -> None:
    sides = {
        "off": Side(OFF, False),
        "on, nothing counted by network": Side(ON | {"concurrencynetwork": 0}, True),
        "on": Side(ON, True),
        "on, and every rate an hour": Side(
            ON | dict.fromkeys(("messagesperhour", "recipientsperhour", "connectionsperhour"), 100_000_000),
            True,
        ),
        "off, and ten hooks": Side(OFF, False, plain_hooks.Plain),
        "off, and ten that see the message as it comes": Side(OFF, False, plain_hooks.Listening),
    }
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(ROUNDS):
        for name, side in sides.items():
            best[name] = min(best[name], await side.sessions(count) / count)
    for name, seconds in best.items():
        print(f"{seconds * 1e6:8.1f} us  {seconds / best['off'] - 1:+6.1%}  {name}")
    print(f"{step_without_hooks():8.2f} us          a step that no hook has a say in")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
