"""Kills the whole service with SIGKILL at random moments while clients send, and counts what is there.

Every message carries an id and the number of the client's attempt.  A message whose 250 was seen
must be found by each of its recipients, in a Maildir here or at the second home it is relayed to,
whole.  Copies of one attempt beyond the first are repeats of the service; an attempt that the
client had to give up (no answer) may arrive as well, and is counted apart.  A client tries one
message for a minute and takes a 5xx at once: either is a failure.
"""

import argparse
import contextlib
import hashlib
import random
import re
import signal
import smtplib
import sys
import threading
import time
from collections import Counter
from typing import NamedTuple

from homes import Home, Place, Waiting
from progress import Progress, say, table
from sending import permanent

RECIPIENTS = (
    ("alice@a.example",),
    ("bob@a.example",),
    ("alice@a.example", "bob@a.example"),
    ("carol@b.example",),
    ("alice@a.example", "carol@b.example"),
)
PATIENCE = 60.0
"""Seconds that a client tries one message; then the service is taken for gone, and all clients end."""
_IDS = re.compile(rb"^X-Id: (\d+)/(\d+)\n", re.MULTILINE)


class Outcome(NamedTuple):
    """What a run found; `failed`, `lost` and `damaged` must be empty."""

    accepted: int
    kills: int
    restarts: int
    attempts: int
    recipients: int
    failed: list[str]
    lost: list[str]
    damaged: list[str]
    repeats_here: int
    repeats_relayed: int
    unanswered: int


def recipients(number: int) -> tuple[str, ...]:
    return RECIPIENTS[number % len(RECIPIENTS)]


def text(number: int, attempt: int) -> bytes:
    """A message of its own, some small, some of a few KiB, now and then a large one."""
    size = 200_000 if number % 997 == 5 else 100 + number * 7919 % 5000
    body = hashlib.shake_128(str(number).encode()).hexdigest(size // 2).encode()
    lines = b"\n".join(body[at : at + 76] for at in range(0, len(body), 76))
    return b"Subject: crash\nX-Id: %d/%d\n\n%s\n" % (number, attempt, lines)


class Clients:
    """Clients that each send their share, and again until the 250 is seen."""

    def __init__(self, home: Home, messages: int, clients: int) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._next = 0
        self._messages = messages
        self.accepted: dict[int, int] = {}  # number -> the attempt that was answered
        self.attempts = 0
        self.failed: list[str] = []
        self._gone = False
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _take(self) -> int | None:
        with self._lock:
            self._next += 1
            return self._next if self._next <= self._messages and not self._gone else None

    def _client(self) -> None:
        connection: smtplib.SMTP | None = None
        while (number := self._take()) is not None:
            connection = self._send(number, connection)
        if connection:
            with contextlib.suppress(OSError):
                connection.quit()

    def _send(self, number: int, connection: smtplib.SMTP | None) -> smtplib.SMTP | None:
        """Sends until the 250, a permanent error, or the end of patience; the connection if it stands."""
        end = time.monotonic() + PATIENCE
        attempt = 0
        while True:
            try:
                connection = connection or smtplib.SMTP("127.0.0.1", self._home.port, "client.example", 30)
                attempt += 1
                self.attempts += 1
                wire = text(number, attempt).replace(b"\n", b"\r\n")
                if refused := connection.sendmail("sender@a.example", recipients(number), wire):
                    raise smtplib.SMTPRecipientsRefused(refused)
                self.accepted[number] = attempt
                return connection
            except Exception as error:  # whatever it is, it must be seen
                if connection:
                    connection.close()
                connection = None
                late = time.monotonic() > end
                if late or self._gone or permanent(error):
                    self._gone |= late
                    why = f"in vain for {PATIENCE:.0f} s, at last " if late else ""
                    self.failed.append(f"{number}: {why}{type(error).__name__}: {error}")
                    return None
                time.sleep(0.01)  # nobody is there just now


def kill_at_random(
    home: Home, clients: Clients, messages: int, kills: int, dice: random.Random
) -> tuple[int, int]:
    """Kills, spread over the whole run: while it serves, and one in five while it starts.

    Returns how many kills and starts there were."""
    done = starts = 0
    bar = Progress("accepted", messages)
    marks = sorted(dice.sample(range(1, messages), min(kills, messages - 1)))
    while clients.busy:
        bar.to(len(clients.accepted))
        if done < kills and len(clients.accepted) >= marks[min(done, len(marks) - 1)]:
            time.sleep(dice.uniform(0, 0.05))
            home.kill()
            done += 1
            while done < kills and dice.random() < 0.2:
                home.spawn()
                starts += 1
                time.sleep(dice.uniform(0, 0.6))
                home.kill()
                done += 1
            home.start()
            starts += 1
        time.sleep(0.002)
    while done < kills:  # the clients are through; what is queued and delivered is not
        home.kill()
        home.start()
        done, starts = done + 1, starts + 1
    bar.done(len(clients.accepted), f", {done} kills")
    return done, starts


def count(clients: Clients, homes: dict[str, Home]) -> tuple[list[str], list[str], int, int, int, int]:
    """Lost, damaged, recipients, repeats here and at the other host, copies of unanswered attempts."""
    damaged: list[str] = []
    copies: Counter[tuple[int, int, str]] = Counter()
    for host, home in homes.items():
        for user in sorted(path.name for path in (home.path / "mail").iterdir()):
            for mail in home.mails(user):
                ids = _IDS.search(mail)
                if ids is None:
                    damaged.append(f"{user}@{host} has {mail[:200]!r}")
                    continue
                number, attempt = int(ids[1]), int(ids[2])
                if not mail.endswith(text(number, attempt)) or f"{user}@{host}" not in recipients(number):
                    damaged.append(f"{user}@{host}: {number}/{attempt} is not what was sent")
                else:
                    copies[number, attempt, f"{user}@{host}"] += 1
    wanted = {(n, a, address) for n, a in clients.accepted.items() for address in recipients(n)}
    lost = [f"{number}/{attempt} to {address}" for number, attempt, address in sorted(wanted - copies.keys())]
    repeated = {
        host: sum(n - 1 for key, n in copies.items() if key[2].endswith(f"@{host}")) for host in homes
    }
    unanswered = len(copies.keys() - wanted)
    return lost, damaged, len(wanted), repeated["a.example"], repeated["b.example"], unanswered


def crash(place: Place, messages: int, kills: int, clients: int, seed: int) -> Outcome:
    """The whole run."""
    first = place.home("a.example", "alice", "bob")
    second = place.home("b.example", "carol")
    first.control("smtproutes", f"b.example:127.0.0.1:{second.port}")
    for home in (second, first):
        home.start()
    senders = Clients(first, messages, clients)
    done, restarts = kill_at_random(first, senders, messages, kills, random.Random(seed))
    with contextlib.suppress(AssertionError):  # what is still queued then shows as lost
        for _ in Waiting("both queues are empty", 120, 0.3):
            first.signal(signal.SIGALRM)
            if not first.status()["queue"]["messages"] and not second.status()["queue"]["messages"]:
                break
    lost, damaged, wanted, here, relayed, unanswered = count(
        senders, {"a.example": first, "b.example": second}
    )
    if lost or damaged or senders.failed:
        say(f"the end of the log:\n{first.tail()}")
    return Outcome(
        len(senders.accepted),
        done,
        restarts,
        senders.attempts,
        wanted,
        senders.failed,
        lost,
        damaged,
        here,
        relayed,
        unanswered,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=None, help="of the moments; told in the table")
    parser.add_argument("--keep", action="store_true", help="leave the homes in place")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    with Place(arguments.keep) as place:
        found = crash(place, arguments.messages, arguments.kills, arguments.clients, seed)
    missing = arguments.messages - found.accepted
    rows = [
        ("accepted (250 seen)", found.accepted),
        ("recipients of these", found.recipients),
        ("kills", found.kills),
        ("starts after a kill", found.restarts),
        ("failed (not accepted)", missing),
        ("lost", len(found.lost)),
        ("damaged", len(found.damaged)),
        ("repeated in Maildirs here", found.repeats_here),
        ("repeated at the other host", found.repeats_relayed),
        ("attempts of clients", found.attempts),
        ("attempts without an answer that arrived as well", found.unanswered),
        ("seed", seed),
    ]
    say("\n" + table(("what", "count"), rows))
    for line in [*found.failed[:20], *found.lost[:20], *found.damaged[:20]]:
        say(f"WRONG: {line}")
    return 1 if found.lost or found.damaged or found.failed or missing else 0


if __name__ == "__main__":
    sys.exit(main())
