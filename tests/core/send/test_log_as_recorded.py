"""The manager's log against qmail-send's, line by line, when the same things happen to it.

What came from outside (messages, reports, ALRM) is read from the recorded log and told to the
manager; what it writes must be the recorded log again.  One recipient a transaction here, as
in qmail-send.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openqmail.core.send.events import Flush
from openqmail.core.values import Origin, Outcome

CASES = [
    "8bit-original",
    "alrm",
    "bounce-8bit-addresses",
    "bounce-mixed",
    "bounce-program-output",
    "bounce-several",
    "bouncefrom-odd",
    "concurrency",
    "double-bounce",
    "double-bounce-controls",
    "exit-0",
    "exit-100",
    "exit-111",
    "expired",
    "expired-lifetime-0",
    "local-no-mailbox",
    "local-success",
    "long-addresses",
    "loop-delivered-to",
    "no-recipients",
    "odd-sender-0",
    "odd-sender-1",
    "odd-sender-5",
    "odd-sender-8",
    "odd-sender-9",
    "owner-bounce",
    "program-output-long",
    "program-output-odd",
    "remote-deferral",
    "remote-long-reply",
    "remote-success",
    "triple-bounce",
]
OUTCOMES = {b"success": Outcome.SUCCESS, b"deferral": Outcome.DEFERRAL, b"failure": Outcome.FAILURE}
EXPIRED = b"I'm_not_going_to_try_again;_this_message_has_been_in_the_queue_too_long./"


class Replay:
    def __init__(self, log: bytes, world: Any) -> None:
        self.lines = log.splitlines()
        self.world = world
        self.recipients: dict[int, list[bytes]] = {}
        for number, recipient in re.findall(rb"starting delivery \d+: msg (\d+) to \w+ (.*)", log):
            known = self.recipients.setdefault(int(number), [])
            if recipient not in known:
                known.append(recipient)

    def run(self) -> list[bytes]:
        for at, line in enumerate(self.lines):
            words = line.split()
            if line.startswith(b"new msg "):
                self._new(int(words[2]), self.lines[at + 1])
            elif re.match(rb"delivery \d+: (success|deferral|failure): ", line):
                self._report(line)
            elif line.startswith(b"starting delivery ") and line not in self.world.log.lines():
                self.world.write_all()
                self.world.now += 2
                self.world.tell(Flush())
                self.world.load_all()
            elif line.startswith((b"bounce msg ", b"end msg ")):
                while int(words[2]) in self.world.writes:
                    self.world.write(int(words[2]))
        return [re.sub(rb"^(bounce msg .* qp) .*", rb"\1 P", line) for line in self.world.log.lines()]

    def expected(self) -> list[bytes]:
        inside = [line for line in self.lines[1:] if line != b"status: exiting"]
        return [re.sub(rb"^(bounce msg .* qp) .*", rb"\1 P", line) for line in inside]

    def _new(self, number: int, info: bytes) -> None:
        found = re.fullmatch(rb"info msg \d+: bytes (\d+) from <(.*)> qp (\d+) uid (\d+)", info)
        assert found is not None
        origin = Origin(int(found[4]), int(found[3]))
        self.world.accept(number, self.recipients.get(number, []), found[2], int(found[1]), origin)

    def _report(self, line: bytes) -> None:
        found = re.fullmatch(rb"delivery (\d+): (\w+): (.*)", line)
        assert found is not None
        outcome, text = OUTCOMES[found[2]], found[3]
        if text.endswith(EXPIRED):
            outcome, text = Outcome.DEFERRAL, text.removesuffix(EXPIRED)
        if text.endswith(b"/"):
            text = text[:-1] + b"\n"
        self.world.report(int(found[1]), outcome, text)


@pytest.mark.parametrize("case", CASES)
def test_log(case: str, vectors: Path, play: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openqmail.core.send.work.GROUP", 1)
    log = (vectors / f"notqmail/log/{case}.log").read_bytes()
    limits = re.match(rb"status: local 0/(\d+) remote 0/(\d+)", log)
    assert limits is not None
    local = {address.rpartition(b"@")[2].lower() for address in re.findall(rb": msg \d+ to local (.*)", log)}
    world = play(
        locals=frozenset(local),
        concurrencylocal=int(limits[1]),
        concurrencyremote=int(limits[2]),
        queuelifetime={"expired": 1, "expired-lifetime-0": 0}.get(case, 604_800),
    )
    replay = Replay(log, world)
    assert replay.run() == replay.expected()
