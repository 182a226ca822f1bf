"""Who can log in, in tests: a users/smtpauth of cheap hashes, and programs that are only a function."""

import asyncio
from asyncio import Future

from openqmail.core.sasl import make_verifier

ALICE, PASSWORD = b"alice", b"alice's secret"
CRAM, CRAM_PASSWORD = b"carol", b"carols"

SMTPAUTH = (
    b"alice:%b\ncarol:{PLAIN}carols\n" % make_verifier(PASSWORD, b"salt of alice", 4096).written().encode()
)
"""alice has a verifier, which serves SCRAM, PLAIN and LOGIN; carol a plain password, for CRAM-MD5."""


class Checks:
    """Serves the port LoginChecks: `answers` by login, 1 for all others; `hold` leaves it open."""

    def __init__(self, answers: dict[bytes, int | None] | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[tuple[str, bytes, str]] = []
        self.strengthened: list[object] = []
        self.held: list[Future[int | None]] = []
        self.hold = False

    def check(self, program: str, told: bytes, client: str) -> "Future[int | None]":
        self.asked.append((program, told, client))
        answer: Future[int | None] = asyncio.get_running_loop().create_future()
        if self.hold:
            self.held.append(answer)
        else:
            answer.set_result(self.answers.get(told.split(b"\0")[0], 1))
        return answer

    def strengthen(self, rehash: object) -> None:
        self.strengthened.append(rehash)


CHECKS = Checks({b"bob": 0, b"Alice": 0, b"ALICE": 0, b"ill": 111, b"dead": None, b"misused": 2})
"""bob is right whatever he says, and so is alice in capitals."""
