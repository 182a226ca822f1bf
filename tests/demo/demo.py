"""The main job on real mail: two homes, a corpus, a host that is down, and a kill in the middle.

`a.example` takes the mail of four clients; its own users find theirs in Maildirs, the rest is
relayed to `b.example` and lands there.  Half-way `a.example` is killed with SIGKILL and started
again.  Ends with a table, and with 0 only if every mail was accepted and every recipient has it,
byte for byte.  A client that lost its connection before the answer sends again, as RFC 5321 asks
of it: what that doubles is counted as repeated.  It does so for a minute; a 5xx it takes at once.
"""

import argparse
import contextlib
import queue
import signal
import smtplib
import sys
import threading
import time
from collections import Counter
from types import FrameType
from typing import NamedTuple

from corpus import Mail, corpus, mark_of, same
from homes import Home, Place, Waiting, free_port
from progress import Progress, say, table
from sending import permanent

CLIENTS = 4
PATIENCE = 60.0
"""Seconds that a client tries one mail; then the service is taken for gone, and all clients end."""
CROWD = [f"user{number:02}" for number in range(50)]
SELDOM = {"attachment": 2, "hundred": 2}
"""How often the heavy ones are sent; the others once a round."""


class Letter(NamedTuple):
    """One transaction of the demo."""

    mark: bytes
    mail: Mail
    recipients: tuple[str, ...]


def letters(rounds: int) -> list[Letter]:
    """What is sent: each mail of the corpus to both hosts, and one to a host that is down."""
    made = []
    for number in range(rounds):
        for mail in corpus():
            if number >= SELDOM.get(mail.name, rounds):
                continue
            mark = f"{mail.name}.{number}".encode()
            recipients = [f"{user}@{host}" for host in ("a.example", "b.example") for user in CROWD]
            if mail.name != "hundred":
                recipients = ["alice@a.example", "carol@b.example"]
            made.append(Letter(mark, mail.marked(mark), tuple(recipients)))
    down = Mail("to a host that is down", next(corpus()).text).marked(b"down.0")
    made.insert(0, Letter(b"down.0", down, ("zoe@down.example",)))
    return made


# --- sending ------------------------------------------------------------------------------


class Clients:
    """Some clients that send until nothing is left; each mail counts when its 250 was seen."""

    def __init__(self, home: Home, work: list[Letter]) -> None:
        self._home = home
        self._work: queue.SimpleQueue[Letter] = queue.SimpleQueue()
        for letter in work:
            self._work.put(letter)
        self.accepted: list[Letter] = []
        self.failed: list[str] = []
        self._gone = False
        self.tries: Counter[bytes] = Counter()
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _client(self) -> None:
        connection: smtplib.SMTP | None = None
        while not self._gone:
            try:
                letter = self._work.get_nowait()
            except queue.Empty:
                break
            connection = self._deliver(letter, connection)
        if connection:
            with contextlib.suppress(OSError):
                connection.quit()

    def _deliver(self, letter: Letter, connection: smtplib.SMTP | None) -> smtplib.SMTP | None:
        """Sends until the 250, a permanent error, or the end of patience; the connection if it stands."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                connection = connection or smtplib.SMTP("127.0.0.1", self._home.port, "client.example", 30)
                self.tries[letter.mark] += 1
                send(connection, letter)
                self.accepted.append(letter)
                return connection
            except Exception as error:  # whatever it is, it must be seen
                if connection:
                    connection.close()
                connection = None
                late = time.monotonic() > end
                if late or self._gone or permanent(error):
                    self._gone |= late
                    why = f"in vain for {PATIENCE:.0f} s, at last " if late else ""
                    self.failed.append(f"{letter.mark.decode()}: {why}{type(error).__name__}: {error}")
                    return None
                time.sleep(0.02)  # the service is being started again


def send(connection: smtplib.SMTP, letter: Letter) -> None:
    options = ["BODY=8BITMIME"] * letter.mail.eight_bit + ["SMTPUTF8"] * letter.mail.smtputf8
    refused = connection.sendmail("alice@a.example", letter.recipients, letter.mail.wire(), options)
    if refused:
        raise smtplib.SMTPRecipientsRefused(refused)


# --- counting -----------------------------------------------------------------------------


class Row:
    """What became of the recipients of one kind of mail."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.mails = self.failed = self.accepted = 0
        self.delivered = self.deferred = self.lost = self.repeated = 0

    def cells(self) -> list[object]:
        return [self.name, *(getattr(self, name) for name in COUNTS)]


COUNTS = ("mails", "failed", "accepted", "delivered", "deferred", "lost", "repeated")


def count(
    work: list[Letter], accepted: list[Letter], homes: dict[str, Home], waiting: set[str]
) -> tuple[list[Row], list[str]]:
    """A row a kind of mail, and everything that is not as it should be."""
    wrong: list[str] = []
    known = {letter.mark: letter for letter in work}
    taken = {letter.mark for letter in accepted}
    found: Counter[tuple[bytes, str]] = Counter()
    for host, home in homes.items():
        for user in sorted(path.name for path in (home.path / "mail").iterdir()):
            for delivered in home.mails(user):
                letter = known.get(mark_of(delivered) or b"")
                if letter is None or f"{user}@{host}" not in letter.recipients:
                    wrong.append(f"{user}@{host} has a mail that nobody sent: {delivered[:300]!r}")
                elif not same(delivered, letter.mail):
                    wrong.append(f"{user}@{host}: {letter.mark.decode()} is not what was sent")
                else:
                    found[letter.mark, f"{user}@{host}"] += 1
    rows: dict[str, Row] = {}
    for letter in sorted(work, key=lambda letter: letter.mark):
        row = rows.setdefault(letter.mail.name, Row(letter.mail.name))
        row.mails += 1
        if letter.mark not in taken:
            row.failed += 1
            continue
        row.accepted += len(letter.recipients)
        for recipient in letter.recipients:
            copies = found[letter.mark, recipient]
            row.delivered += copies > 0
            row.repeated += max(copies - 1, 0)
            row.deferred += not copies and recipient in waiting
            row.lost += not copies and recipient not in waiting
    return list(rows.values()), wrong


def still_waiting(home: Home) -> set[str]:
    """Recipients that `queue list` shows as deferred."""
    return {
        recipient["address"]
        for message in home.queue()
        if message["state"] == "deferred"
        for recipient in message["recipients"]
        if recipient["state"] == "todo"
    }


# --- the run ------------------------------------------------------------------------------


def run(place: Place, rounds: int) -> bool:
    began = time.monotonic()
    first = place.home("a.example", "alice", "bob", *CROWD)
    second = place.home("b.example", "carol", "dave", *CROWD)
    first.control("smtproutes", f"b.example:127.0.0.1:{second.port}\ndown.example:127.0.0.1:{free_port()}")
    for home in (first, second):
        home.start()
        say(f"{home.me} serves on 127.0.0.1:{home.port}, home {home.path}")

    work = letters(rounds)
    clients = Clients(first, work)
    bar = Progress("accepted", len(work))
    killed = False
    while clients.busy:
        if not killed and len(clients.accepted) >= len(work) // 2:
            first.kill()
            say(f"a.example killed with SIGKILL after {len(clients.accepted)} of {len(work)} mails")
            first.start()
            say("a.example serves again")
            killed = True
        bar.to(len(clients.accepted))
        time.sleep(0.005)
    bar.done(len(clients.accepted))

    left = -1
    with contextlib.suppress(AssertionError):  # what is left then shows in the table
        for _ in Waiting("everything has left the queues", 40, 0.2):
            left = sum(home.status()["queue"]["messages"] for home in (first, second))
            if left <= 1:
                break
    say(f"left in the queues: {left}")

    waiting = still_waiting(first)
    rows, wrong = count(work, clients.accepted, {"a.example": first, "b.example": second}, waiting)
    total = Row("all")
    for name in COUNTS:
        setattr(total, name, sum(getattr(row, name) for row in rows))
    wrong += [f"failed: {text}" for text in clients.failed]
    if len(clients.accepted) != len(work):
        wrong.insert(0, f"{len(clients.accepted)} of {len(work)} mails were accepted")
    if waiting != {"zoe@down.example"}:
        wrong.append(f"deferred should be zoe@down.example alone, and is {sorted(waiting) or 'nobody'}")
    if not killed:
        wrong.append("the service was not killed: too few mails")
    again = sum(clients.tries.values()) - len(clients.tries)

    say("\n" + table(("mail", *COUNTS), [row.cells() for row in [*rows, total]]))
    say("\nmails and failed (not accepted) are counted once, everything else in recipients;")
    say("every body compared byte for byte")
    say(f"sent again by a client that lost its connection: {again}")
    say(f"deferred and listed: {', '.join(sorted(waiting))}")
    for text in wrong[:20]:
        say(f"WRONG: {text}")
    well = not wrong and total.lost == 0
    say(f"{'all is well' if well else 'NOT WELL'}, {time.monotonic() - began:.0f} s")
    if not well:
        say(f"the end of a.example's log:\n{first.tail()}")
    return well


def interrupted(_number: int, _frame: FrameType | None) -> None:
    """Ends the run by the way that cleans up; a second signal does not disturb that."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, help="how often each small mail is sent (20)")
    parser.add_argument("--keep", action="store_true", help="leave the homes in place")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    try:
        with Place(arguments.keep) as place:
            return 0 if run(place, arguments.rounds) else 1
    except KeyboardInterrupt:
        say("\ninterrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
