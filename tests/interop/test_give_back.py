"""A whole queue goes from our service to a real notqmail, and one of its to us: all of it arrives, once.

NOTQMAIL_HOME names an installation (its compiled-in home) on which no qmail-send runs; its queue, control
and users are put aside while a test runs.  Root only, as qmail's parts each have a user of their own.
"""

import contextlib
import hashlib
import os
import pwd
import re
import shutil
import signal
import smtplib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homes import OWNER, Home, Place, Waiting
from sink import Sink

ME = "here.example"
ALICE = f"alice@{ME}"
FAR, OTHER, QUOTED = "dave@shut.example", "gina@shut.example", '"two words"@shut.example'
TOOK, LATER, BAD = "hugo@sink.example", "erin@later.example", "frank@bad.example"
CLOSED = 1
"""A port of 127.0.0.1 at which nobody listens."""
SOON = 20.0
"""Less than the seconds after which our service looks into todo/ by itself."""
QMAILS, QMAILQ, QMAILR = "qmails", "qmailq", "qmailr"
OWNERS = {
    **dict.fromkeys(("info", "local", "remote", "bounce"), QMAILS),
    **dict.fromkeys(("mess", "todo", "intd", "pid", "lock"), QMAILQ),
}
FILES = {"sendmutex": QMAILS, "trigger": QMAILS, "tcpto": QMAILR}
HEAD = re.compile(r"^.* GMT  #(\d+)  (\d+)  <(.*)>  ?(bouncing)?$")
RECIPIENT = re.compile(r"^(  done)?\t(local|remote)\t(.*)$")

Message = tuple[int, str, bool, frozenset[tuple[str, str, bool]]]
"""Size, sender, whether it is bouncing, and of each recipient channel, address, whether it is done."""


def text(name: str, size: int = 300) -> bytes:
    """A message with LF, that ends in a line of its own digits."""
    digits = hashlib.shake_128(name.encode()).hexdigest(size // 2).encode()
    return b"Subject: %s\n\n" % name.encode() + b"".join(
        digits[at : at + 76] + b"\n" for at in range(0, len(digits), 76)
    )


class Notqmail:
    """The installation, with an empty queue."""

    def __init__(self, path: Path) -> None:
        self.path, self.queue, self.log = path, path / "queue", path / "queue.log"

    def program(self, name: str, *arguments: str) -> str:
        ran = subprocess.run(
            [self.path / "bin" / name, *arguments], capture_output=True, text=True, check=True
        )
        assert ran.stderr == ""
        return ran.stdout

    def control(self, **contents: str) -> None:
        for name, content in contents.items():
            (self.path / "control" / name).write_text(content)

    def user(self, name: str, folder: Path) -> None:
        """A user of `nobody`'s, with a Maildir."""
        owner = pwd.getpwnam(OWNER)
        for made in (
            folder,
            folder / "Maildir",
            *(folder / "Maildir" / one for one in ("cur", "new", "tmp")),
        ):
            made.mkdir(mode=0o755)
            os.chown(made, owner.pw_uid, owner.pw_gid)
        line = f"={name}:{OWNER}:{owner.pw_uid}:{owner.pw_gid}:{folder}:::\n.\n"
        (self.path / "users" / "assign").write_text(line)
        self.program("qmail-newu")

    def listed(self) -> dict[int, Message]:
        """What qmail-qread says."""
        found: dict[int, Message] = {}
        number = 0
        for line in self.program("qmail-qread").splitlines():
            if head := HEAD.match(line):
                number = int(head[1])
                found[number] = int(head[2]), head[3], bool(head[4]), frozenset()
            else:
                recipient = RECIPIENT.match(line)
                assert recipient, line
                size, sender, bouncing, before = found[number]
                state = recipient[2], recipient[3], bool(recipient[1])
                found[number] = size, sender, bouncing, before | {state}
        return found

    @contextlib.contextmanager
    def sending(self) -> Iterator[subprocess.Popen[bytes]]:
        """qmail-send and its parts; ended, and complained about, at the end."""
        with self.log.open("wb") as lines:
            path = f"{self.path}/bin:{os.environ['PATH']}"
            send = subprocess.Popen(
                [self.path / "bin/qmail-start", "./Maildir/"], stdout=lines, stderr=lines, env={"PATH": path}
            )
        try:
            for _ in Waiting("qmail-send has begun, and heeds signals"):
                assert send.poll() is None, f"qmail-start ended with {send.returncode}"
                if "status:" in self.said():
                    break
            yield send
        except AssertionError as error:
            error.add_note(self.said()[-4000:])
            raise
        finally:
            send.terminate()
            send.wait(60)
            said = self.said()
            self.log.unlink()
        assert not re.search("alert|warning|trouble|unable|wrong owner", said), said

    def enqueue(self, sender: str, recipients: list[str], message: bytes) -> None:
        """By the real qmail-queue: the message on descriptor 0, the envelope on 1."""
        envelope = f"F{sender}\0" + "".join(f"T{one}\0" for one in recipients) + "\0"
        source, sink = os.pipe()
        os.write(sink, envelope.encode())
        os.close(sink)
        with open(source, "rb") as addresses, (self.path / "body").open("w+b") as body:
            body.write(message)
            body.seek(0)
            ran = subprocess.run([self.path / "bin/qmail-queue"], stdin=body, stdout=addresses, timeout=60)
        (self.path / "body").unlink()
        assert ran.returncode == 0

    def said(self) -> str:
        """The log so far."""
        return self.log.read_text()

    def left(self) -> list[str]:
        """Files of messages that lie in the queue."""
        return files_of_messages(self.queue)


@pytest.fixture
def notqmail(place: Place) -> Iterator[Notqmail]:
    named = os.environ.get("NOTQMAIL_HOME")
    if not named:
        pytest.skip("NOTQMAIL_HOME names no installation of notqmail")
    if os.getuid() != 0:
        pytest.skip("only root can start qmail-send and give it a queue")
    home = Path(named)
    for name in ("bin/qmail-qread", "bin/qmail-start", "bin/qmail-queue", "queue/mess/0"):
        if not (home / name).exists():
            pytest.skip(f"there is no {home / name}")
    with contextlib.ExitStack() as stack:
        for name in ("queue", "control", "users"):
            stack.callback(_back, home / name, home / f"{name}.aside")
            (home / name).rename(home / f"{name}.aside")
            (home / name).mkdir(mode=0o755)
        (home / "queue").rmdir()
        subprocess.run(["cp", "-a", home / "queue.aside", home / "queue"], check=True)
        made = Notqmail(home)
        assert made.left() == [], "the queue of NOTQMAIL_HOME must be empty"
        made.control(me=f"{ME}\n", locals=f"{ME}\n")
        made.user("alice", place.path / "alice")
        yield made


def _back(path: Path, aside: Path) -> None:
    if aside.exists():
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)
        aside.rename(path)


def files_of_messages(queue: Path) -> list[str]:
    kinds = ("mess", "info", "local", "remote", "bounce", "todo", "intd", "pid", "held")
    return [str(file) for kind in kinds for file in (queue / kind).rglob("*") if file.is_file()]


def give_to_qmail(queue: Path) -> None:
    """What the administrator does: the users of qmail's parts, and what their group has to look into."""
    group = pwd.getpwnam(QMAILQ).pw_gid
    os.chown(queue, pwd.getpwnam(QMAILQ).pw_uid, group)
    for kind, owner in OWNERS.items():
        for path in (queue / kind, *(queue / kind).rglob("*")):
            os.chown(path, pwd.getpwnam(FILES.get(path.name, owner)).pw_uid, group)
    for path in (queue, queue / "mess", *(queue / "mess").iterdir(), queue / "todo", queue / "lock"):
        path.chmod(0o750)


def give_to_us(source: Path, home: Home, owner: str) -> None:
    """`chown -R`, as docs/queue.md has it."""
    shutil.rmtree(home.path / "queue")
    subprocess.run(["cp", "-a", source, home.path / "queue"], check=True)
    subprocess.run(["chown", "-R", f"{owner}:", home.path / "queue"], check=True)


def send(home: Home, sender: str, recipients: list[str], message: bytes) -> None:
    with smtplib.SMTP("127.0.0.1", home.port, "client.example", 20) as client:
        assert client.sendmail(sender, recipients, message.replace(b"\n", b"\r\n")) == {}


def routes(sink: Sink, shut: int) -> str:
    """To the sink, and what goes to shut.example to the port `shut`."""
    return f"shut.example:[127.0.0.1]:{shut}\n:[127.0.0.1]:{sink.port}\n"


def wait_for(what: str, true: Callable[[], bool], seconds: float = 60.0, pause: float = 0.1) -> None:
    for _ in Waiting(what, seconds, pause):
        if true():
            return


def bodies(mails: list[bytes], message: bytes) -> int:
    """How many mails end with it."""
    return sum(mail.endswith(message) for mail in mails)


def bounces_and_mails(found: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Those that tell of the failed recipient, and the others."""
    about = b"\n<%s>:\n" % BAD.encode()
    return [mail for mail in found if about in mail], [mail for mail in found if about not in mail]


def maildir(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in (folder / "Maildir" / "new").iterdir()]


def what_we_say(home: Home) -> dict[int, Message]:
    """`queue list`, in the form of `Notqmail.listed`; the message that names BAD is bouncing."""
    return {
        one["id"]: (
            one["size"],
            one["sender"],
            any(recipient["address"] == BAD for recipient in one["recipients"]),
            frozenset(
                (recipient["channel"], recipient["address"].replace('"', ""), recipient["state"] != "todo")
                for recipient in one["recipients"]
            ),
        )
        for one in home.queue()
    }


def tried(home: Home) -> bool:
    """Whether each remote recipient has been tried."""
    return all(
        recipient["attempts"] > 0 or recipient["state"] != "todo" or recipient["address"].endswith(ME)
        for one in home.queue()
        for recipient in one["recipients"]
    )


SMALL, MANY, LARGE, HELD, NULL, MINE = (
    text("small"),
    text("many"),
    text("large", 3_000_000),
    text("held"),
    text("null"),
    text("mine", 5000),
)
SENT = (
    ("other@there.example", [FAR], SMALL),
    (ALICE, [ALICE, FAR, OTHER, TOOK, LATER, BAD, QUOTED], MANY),
    ("other@there.example", [ALICE, FAR, LATER], LARGE),
    ("other@there.example", [FAR, OTHER], HELD),
    ("", [FAR], NULL),
    ("other@there.example", [ALICE], MINE),
)


def test_a_real_qmail_reads_and_delivers_what_our_service_left(place: Place, notqmail: Notqmail) -> None:
    home = place.home(ME, "alice")
    with Sink() as sink:
        home.control("smtproutes", routes(sink, CLOSED))
        home.control("concurrencylocal", "0")
        home.start()
        for sender, recipients, message in SENT:
            send(home, sender, recipients, message)
        wait_for("each was tried", lambda: tried(home))
        [held] = [
            one["id"] for one in home.queue() if {to["address"] for to in one["recipients"]} == {FAR, OTHER}
        ]
        home.run("queue", "hold", held)
        assert home.run("queue", "release", held).returncode == 0
        wait_for("what was released has been tried", lambda: tried(home))
        assert home.stop() == 0, home.tail()
        ours = what_we_say(home)
        assert len(ours) == len(SENT)

        shutil.rmtree(notqmail.queue)
        subprocess.run(["cp", "-a", home.path / "queue", notqmail.queue], check=True)
        give_to_qmail(notqmail.queue)
        assert notqmail.listed() == ours
        assert notqmail.program("qmail-qstat").splitlines() == [
            f"messages in queue: {len(SENT)}",
            "messages in queue but not yet preprocessed: 0",
        ]

        sink.kindness = 1.0
        notqmail.control(smtproutes=routes(sink, sink.port))
        with notqmail.sending() as process:
            for _ in Waiting("qmail-send has delivered it all", 60, 0.5):
                process.send_signal(signal.SIGALRM)
                if not notqmail.left():
                    break
        here = maildir(place.path / "alice")
        bounces, mails = bounces_and_mails(here)
        assert [bodies(mails, one) for one in (MANY, LARGE, MINE)] == [1, 1, 1] and len(mails) == 3
        assert bodies(bounces, MANY) == len(bounces) == 1
        wanted = [(one, message) for _, to, message in SENT for one in to if one not in (ALICE, BAD)]
        assert len(sink.taken) == len(wanted)
        for recipient, message in wanted:
            assert bodies(sink.of(recipient), message) == 1, recipient


def test_what_a_real_qmail_left_is_delivered_by_our_service(place: Place, notqmail: Notqmail) -> None:
    home = place.home(ME, "alice")
    with Sink() as sink:
        notqmail.control(smtproutes=routes(sink, CLOSED))
        for sender, recipients, message in SENT[:3]:
            notqmail.enqueue(sender, [one.replace('"', "") for one in recipients], message)
        with notqmail.sending():
            wait_for("qmail-send has tried each", lambda: notqmail.said().count("starting delivery") >= 11)
            wait_for("no attempt runs", lambda: notqmail.said().rstrip().endswith("local 0/10 remote 0/20"))
        assert len(notqmail.listed()) == 3
        deferred = maildir(place.path / "alice")
        notqmail.enqueue("other@there.example", [ALICE, FAR], HELD)
        give_to_us(notqmail.queue, home, OWNER)

        sink.kindness = 1.0
        home.control("smtproutes", routes(sink, sink.port))
        home.start()
        home.run("queue", "flush")
        home.wait_empty()
        assert [bodies(deferred, one) for one in (MANY, LARGE)] == [1, 1]
        bounces, mails = bounces_and_mails(home.mails("alice"))
        assert bodies(mails, HELD) == len(mails) == 1
        assert bodies(bounces, MANY) == len(bounces) == 1
        wanted = [(one, message) for _, to, message in SENT[:3] for one in to if one not in (ALICE, BAD)]
        for recipient, message in (*wanted, (FAR, HELD)):
            assert bodies(sink.of(recipient), message) == 1, recipient
        assert len(sink.taken) == len(wanted) + 1
        assert home.stop() == 0, home.tail()
        assert files_of_messages(home.path / "queue") == []


def test_a_real_qmail_queue_puts_mail_into_our_queue_while_we_serve(place: Place, notqmail: Notqmail) -> None:
    home = place.home(ME, "alice", options=("--owner", QMAILQ))
    give_to_us(notqmail.queue, home, QMAILQ)
    shutil.rmtree(notqmail.queue)
    notqmail.queue.symlink_to(home.path / "queue")
    with Sink() as sink:
        home.control("smtproutes", routes(sink, sink.port))
        home.start()
        for turn in range(1, 4):  # each is taken in because the trigger was pulled
            notqmail.enqueue(ALICE, [ALICE, TOOK], text(f"turn {turn}"))
            home.wait_mails("alice", turn, SOON)
        notqmail.enqueue(ALICE, [ALICE, FAR, BAD], LARGE)
        for turn in range(40):  # numbers of theirs and of ours do not meet
            notqmail.enqueue("", [ALICE], text(f"theirs {turn}"))
            send(home, "", [ALICE], text(f"ours {turn}"))
        here = home.wait_mails("alice", 3 + 2 + 80)
        home.wait_empty()
        bounces, mails = bounces_and_mails(here)
        assert bodies(mails, LARGE) == bodies(sink.of(FAR), LARGE) == 1
        for turn in range(40):
            assert bodies(mails, text(f"theirs {turn}")) == bodies(mails, text(f"ours {turn}")) == 1
        assert len(mails) == 3 + 1 + 80 and len(sink.taken) == 3 + 1
        assert bodies(bounces, LARGE) == len(bounces) == 1
        assert home.stop() == 0, home.tail()
        assert notqmail.left() == []
