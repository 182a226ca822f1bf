"""Kills with SIGKILL at random moments while clients send, and counts what is there.

serving      the whole service, while it serves, and one time in five while it starts
recovering   again, up to three times, while it recovers from the kill before
moving       while the other host is away, so that its mail is deferred and leaves the journal
stopping     shortly after a TERM, while what stays leaves the journal
parts        the other host, or a client in the middle of what it says; the service lives on

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
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
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
    """What a run of one phase found; `failed`, `lost` and `damaged` must be empty."""

    phase: str
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
        self._connections: list[smtplib.SMTP] = []
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def die(self, dice: random.Random) -> None:
        """One of the clients is gone, whatever it was about to say; another comes in its place."""
        with self._lock:
            self._connections = [one for one in self._connections if one.sock is not None]
            chosen = dice.choice(self._connections) if self._connections else None
        with contextlib.suppress(OSError, AttributeError):  # it has gone meanwhile
            if chosen is not None:
                chosen.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]

    def _connect(self) -> smtplib.SMTP:
        made = smtplib.SMTP("127.0.0.1", self._home.port, "client.example", 30)
        with self._lock:
            self._connections.append(made)
        return made

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
                connection = connection or self._connect()
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


class Scene(NamedTuple):
    """`first` takes the mail; what is for `second` is relayed."""

    first: Home
    second: Home
    clients: Clients
    dice: random.Random


class Struck(NamedTuple):
    kills: int
    starts: int


def serving(scene: Scene) -> Struck:
    kills = 1
    scene.first.kill()
    while scene.dice.random() < 0.2:
        _kill_while_it_starts(scene)
        kills += 1
    scene.first.start()
    return Struck(kills, kills)


def recovering(scene: Scene) -> Struck:
    scene.first.kill()
    times = scene.dice.randint(1, 3)
    for _ in range(times):
        _kill_while_it_starts(scene)
    scene.first.start()
    return Struck(1 + times, 1 + times)


def moving(scene: Scene) -> Struck:
    _other_host_goes_or_comes(scene)
    time.sleep(scene.dice.uniform(0, 0.3))
    scene.first.kill()
    scene.first.start()
    return Struck(1, 1)


def stopping(scene: Scene) -> Struck:
    _other_host_goes_or_comes(scene)
    time.sleep(scene.dice.uniform(0, 0.2))
    scene.first.signal(signal.SIGTERM)
    time.sleep(scene.dice.uniform(0, 0.3))
    scene.first.kill()
    scene.first.start()
    return Struck(1, 1)


def parts(scene: Scene) -> Struck:
    if scene.dice.random() < 0.5:
        scene.clients.die(scene.dice)
        return Struck(1, 0)
    scene.second.kill()
    time.sleep(scene.dice.uniform(0, 0.2))
    scene.second.start()
    scene.first.signal(signal.SIGALRM)
    return Struck(1, 1)


def _kill_while_it_starts(scene: Scene) -> None:
    scene.first.spawn()
    time.sleep(scene.dice.uniform(0, 0.6))
    scene.first.kill()


def _other_host_goes_or_comes(scene: Scene) -> None:
    """Mail for it is deferred, or what was deferred is tried from where it lies."""
    if scene.second.process is not None:
        scene.second.kill()
    else:
        scene.second.start()
        scene.first.signal(signal.SIGALRM)


PHASES: dict[str, Callable[[Scene], Struck]] = {
    strike.__name__: strike for strike in (serving, recovering, moving, stopping, parts)
}


def kill_at_random(scene: Scene, strike: Callable[[Scene], Struck], messages: int, kills: int) -> Struck:
    """Kills, spread over the whole run.  Returns how many kills and starts there were."""
    done = starts = 0
    bar = Progress(f"accepted, {strike.__name__}", messages)
    marks = sorted(scene.dice.sample(range(1, messages), min(kills, messages - 1)))
    while (busy := scene.clients.busy) or done < kills:
        count = len(scene.clients.accepted)
        bar.to(count)
        # When the clients are through, what is queued and delivered is not.
        if done < kills and (not busy or count >= marks[min(done, len(marks) - 1)]):
            time.sleep(scene.dice.uniform(0, 0.05))
            struck = strike(scene)
            done, starts = done + struck.kills, starts + struck.starts
        time.sleep(0.002)
    bar.done(len(scene.clients.accepted), f", {done} kills")
    return Struck(done, starts)


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


def crash(
    place: Place, messages: int, kills: int, clients: int, seed: int, phase: str = "serving"
) -> Outcome:
    """One phase, the whole of it."""
    first = place.home("a.example", "alice", "bob")
    second = place.home("b.example", "carol")
    first.control("smtproutes", f"b.example:127.0.0.1:{second.port}")
    for home in (second, first):
        home.start()
    scene = Scene(first, second, Clients(first, messages, clients), random.Random(seed))
    struck = kill_at_random(scene, PHASES[phase], messages, kills)
    senders = scene.clients
    if second.process is None:
        second.start()
    with contextlib.suppress(AssertionError):  # what is still queued then shows as lost
        for _ in Waiting("both queues are empty", 120, 0.3):
            first.signal(signal.SIGALRM)
            second.signal(signal.SIGALRM)
            if not first.status()["queue"]["messages"] and not second.status()["queue"]["messages"]:
                break
    lost, damaged, wanted, here, relayed, unanswered = count(
        senders, {"a.example": first, "b.example": second}
    )
    if lost or damaged or senders.failed:
        say(f"the end of the log:\n{first.tail()}")
    return Outcome(
        phase,
        len(senders.accepted),
        struck.kills,
        struck.starts,
        senders.attempts,
        wanted,
        senders.failed,
        lost,
        damaged,
        here,
        relayed,
        unanswered,
    )


def show(found: Outcome, seed: int) -> str:
    """One phase, in full."""
    rows = [
        ("accepted (250 seen)", found.accepted),
        ("recipients of these", found.recipients),
        ("kills", found.kills),
        ("starts after a kill", found.restarts),
        ("failed (not accepted)", len(found.failed)),
        ("lost", len(found.lost)),
        ("damaged", len(found.damaged)),
        ("repeated in Maildirs here", found.repeats_here),
        ("repeated at the other host", found.repeats_relayed),
        ("attempts of clients", found.attempts),
        ("attempts without an answer that arrived as well", found.unanswered),
        ("seed", seed),
    ]
    return table((found.phase, "count"), rows)


def show_phases(outcomes: list[Outcome]) -> str:
    head = ("phase", "accepted", "kills", "failed", "lost", "damaged", "repeated here", "at the other host")
    rows = [
        (
            found.phase,
            found.accepted,
            found.kills,
            len(found.failed),
            len(found.lost),
            len(found.damaged),
            found.repeats_here,
            found.repeats_relayed,
        )
        for found in outcomes
    ]
    return table(head, rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=20_000, help="while serving; a fifth in the others")
    parser.add_argument("--kills", type=int, default=200, help="while serving; a fifth in the others")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--phase", action="append", choices=list(PHASES), help="this one; may be repeated")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; told in the table")
    parser.add_argument("--keep", action="store_true", help="leave the homes in place")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    outcomes = []
    wrong: list[str] = []
    for phase in arguments.phase or PHASES:
        messages, kills = arguments.messages, arguments.kills
        if phase != "serving":
            messages, kills = max(messages // 5, 2), max(kills // 5, 1)
        with Place(arguments.keep) as place:
            found = crash(place, messages, kills, arguments.clients, seed, phase)
        outcomes.append(found)
        wrong += [f"{phase}: {line}" for line in found.failed[:20] + found.lost[:20] + found.damaged[:20]]
        if found.accepted != messages:
            wrong.append(f"{phase}: {messages - found.accepted} of {messages} messages were not accepted")
    say("\n" + show(outcomes[0], seed))
    if len(outcomes) > 1:
        say("\n" + show_phases(outcomes))
    for line in wrong:
        say(f"WRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
