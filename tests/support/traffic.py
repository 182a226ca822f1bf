"""Mixed mail with ids, who sends it, and where each accepted one must be found again.

A message is told by its number alone: who gets it, how large it is, what it says, so that it can
be compared byte for byte wherever it lies.  Local users have Maildirs, `sink.Sink` is the other
host; there are large bodies, several recipients, deferrals and bounces.  Programs are not among
them: a line of dot-qmail that names one puts mail off so far.
"""

import hashlib
import re
import signal
import smtplib
import threading
from collections import Counter
from typing import NamedTuple

from homes import Home, Waiting
from sink import PUTS_OFF, REFUSES, TAKES, Sink

HOST = "a.example"
USERS = ("alice", "bob", "carol")
SENDER = f"carol@{HOST}"
"""Gets the bounces."""

_ALICE, _BOB, _FAR = f"alice@{HOST}", f"bob@{HOST}", f"dave@{TAKES}"
_LATER, _BAD = f"erin@{PUTS_OFF}", f"frank@{REFUSES}"
PATTERNS = (
    (_ALICE,),
    (_BOB,),
    (_FAR,),
    (_ALICE, _BOB),
    (_LATER,),
    (_ALICE, _FAR),
    (_BOB,),
    (_BAD,),
    (_FAR,),
    (_BOB, _FAR, _LATER),
    (_ALICE, _BAD),
)
LARGE = 19
"""One message of so many is larger than what stays in memory."""
SIZE_OF_LARGE = 128 * 1024
_ID = re.compile(rb"^X-Id: (\d+)\n", re.MULTILINE)


def recipients(number: int) -> tuple[str, ...]:
    return PATTERNS[number % len(PATTERNS)]


def text(number: int) -> bytes:
    """The whole message, with LF."""
    size = 100 + number * 7919 % 5000
    if number % LARGE == LARGE - 1:
        size += SIZE_OF_LARGE * (1 + number // LARGE % 4)
    body = hashlib.shake_128(str(number).encode()).hexdigest(size // 2).encode()
    lines = b"\n".join(body[at : at + 76] for at in range(0, len(body), 76)) + b"\n"
    digest = hashlib.sha256(lines).hexdigest().encode()
    return b"Subject: traffic\nX-Id: %d\nX-Digest: %s\n\n%s" % (number, digest, lines)


def number_of(message: bytes) -> int | None:
    found = _ID.search(message)
    return int(found[1]) if found else None


class Clients:
    """Some clients that send until `stop`, one message after the other, each only once.

    What was answered with 250 is in `accepted`; whatever else comes, it was not accepted."""

    def __init__(self, home: Home, first: int, clients: int = 4) -> None:
        self._home, self._next = home, first
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.accepted: set[int] = set()
        self.refused: Counter[int] = Counter()  # code of a reply -> how often
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _client(self) -> None:
        connection: smtplib.SMTP | None = None
        while not self._stop.is_set():
            with self._lock:
                number, self._next = self._next, self._next + 1
            try:
                connection = connection or smtplib.SMTP("127.0.0.1", self._home.port, "client.example", 20)
                if refused := connection.sendmail(SENDER, recipients(number), wire(number)):
                    raise smtplib.SMTPRecipientsRefused(refused)
                self.accepted.add(number)
            except smtplib.SMTPResponseException as error:
                self.refused[error.smtp_code] += 1
                self._stop.wait(0.005)
            except smtplib.SMTPRecipientsRefused as error:
                self.refused.update(code for code, _ in error.recipients.values())
            except (OSError, AttributeError):  # AttributeError: smtplib, of a peer that has gone meanwhile
                if connection:
                    connection.close()
                connection = None
                self._stop.wait(0.01)
        if connection:
            connection.close()

    def stop(self) -> int:
        """Ends them; the first number that was not used."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self._next


def wire(number: int) -> bytes:
    return text(number).replace(b"\n", b"\r\n")


class Account(NamedTuple):
    """One look at everything.  `lost` and `torn` must be empty.

    `waiting`: recipients that are queued, those of later.example left out.  `repeats_here`,
    `repeats_sent`: copies beyond the first, in Maildirs and at the sink."""

    lost: list[str]
    torn: list[str]
    waiting: int
    queued: int
    repeats_here: int
    repeats_sent: int


class Books:
    """What was accepted, held against what is there."""

    def __init__(self, home: Home, sink: Sink) -> None:
        self._home, self._sink = home, sink
        self.accepted: set[int] = set()
        self._known: dict[int, tuple[int, bytes]] = {}

    def look(self) -> Account:
        """The queue is read first: what is not in it any more must be where it was sent."""
        queued, torn = self._queued()
        here, bounced, torn_here = self._delivered()
        sent, torn_there = self._sent()
        missing = [
            f"{number} to {address}"
            for number in sorted(self.accepted)
            for address in recipients(number)
            if not {(number, address), (number, "")} & queued
            and not (number in bounced if address == _BAD else here[number, address] + sent[number, address])
        ]
        return Account(
            missing,
            torn + torn_here + torn_there,
            sum(not address.endswith(PUTS_OFF) for _, address in queued),
            len(queued),
            sum(count - 1 for count in here.values()),
            sum(count - 1 for count in sent.values()),
        )

    def settled(self, seconds: float = 20.0) -> Account:
        """Looks until nothing waits but what later.example puts off, or for as long as is bearable."""
        return self._look_until(False, seconds)

    def drained(self, seconds: float = 60.0) -> Account:
        """The same until the queue is empty; later.example must be kind by now."""
        return self._look_until(True, seconds)

    def _look_until(self, empty: bool, seconds: float) -> Account:
        account = self.look()
        try:
            for _ in Waiting("the mail has settled", seconds, 0.05):
                if not (account.lost or account.torn or (account.queued if empty else account.waiting)):
                    break
                if empty:
                    self._home.signal(signal.SIGALRM)
                account = self.look()
        except AssertionError:
            if account.queued if empty else account.waiting:
                stuck = f"{account.queued} recipients are queued although nothing holds them up"
                return account._replace(lost=[*account.lost, stuck])
        return account

    # --- where mail lies ---------------------------------------------------------------

    def _whole(self, message: bytes, number: int) -> bool:
        """Whether a message ends with the text that it must have."""
        if number not in self._known:
            right = text(number)
            self._known[number] = (len(right), hashlib.sha256(right).digest())
        length, digest = self._known[number]
        return len(message) >= length and hashlib.sha256(message[-length:]).digest() == digest

    def _queued(self) -> tuple[set[tuple[int, str]], list[str]]:
        """(number, recipient) of all that is still to do; ("" for the recipient of a bounce)."""
        for _ in Waiting("the queue can be read"):
            listed = self._home.queue()
            shown = b""
            if listed:
                ran = self._home.run("queue", "show", *(one["id"] for one in listed), check=False)
                shown = ran.stdout.encode()
            if len(shown) == sum(one["size"] for one in listed):
                break  # else one ended between the two
        found: set[tuple[int, str]] = set()
        torn: list[str] = []
        at = 0
        for one in listed:
            message = shown[at : at + one["size"]]
            at += one["size"]
            number = number_of(message)
            if number is None or not (self._whole(message, number) or text(number) in message):
                torn.append(f"message {one['id']} in the queue: {message[:200]!r}")
                continue
            for recipient in one["recipients"]:
                if recipient["state"] == "todo":
                    found.add((number, recipient["address"] if one["sender"] else ""))
        return found, torn

    def _delivered(self) -> tuple[Counter[tuple[int, str]], set[int], list[str]]:
        """What lies in Maildirs: (number, recipient), the numbers of the bounced, the torn."""
        here: Counter[tuple[int, str]] = Counter()
        bounced: set[int] = set()
        torn: list[str] = []
        for user in USERS:
            for file in (self._home.maildir(user) / "new").iterdir():
                message = file.read_bytes()
                number = number_of(message)
                if number is not None and user == "carol" and text(number) in message:
                    bounced.add(number)
                elif number is not None and self._whole(message, number):
                    here[number, f"{user}@{HOST}"] += 1
                else:
                    torn.append(f"{file}: {len(message)} bytes: {message[:200]!r}")
        return here, bounced, torn

    def _sent(self) -> tuple[Counter[tuple[int, str]], list[str]]:
        """What the sink has taken."""
        sent: Counter[tuple[int, str]] = Counter()
        torn: list[str] = []
        for address, message in list(self._sink.taken):
            number = number_of(message)
            if number is None or not self._whole(message, number):
                torn.append(f"at the sink for {address}: {message[:200]!r}")
            else:
                sent[number, address] += 1
        return sent, torn
