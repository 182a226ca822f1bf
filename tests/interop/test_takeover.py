"""A queue that we have settled is a real notqmail's: its qmail-qread lists it, its qmail-send goes on.

NOTQMAIL_HOME names an installation (its compiled-in home) that no qmail-send runs on.  Its queue is put
aside while a test runs; root only, as qmail's parts each have a user of their own.
"""

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homes import Waiting
from openqmail.core.dsn.qmail import report
from openqmail.core.queue import Change, LocalStore, SendMutex, Stored, Trigger
from openqmail.core.values import Envelope, Outcome, Recipient
from openqmail.core.world import PosixDisk, SystemClock

LOCAL = b"someone@here.example"
REMOTE = b"else@there.example"
GONE = b"gone@there.example"
TEXT = b"Subject: taken over\n\nbody\n"
QREAD = re.compile(rb"^.* GMT  #(\d+)  (\d+)  <(.*)> +(?:bouncing)?\n", re.MULTILINE)


@pytest.fixture
def notqmail() -> Iterator[Path]:
    """The home of a real one, with an empty queue."""
    named = os.environ.get("NOTQMAIL_HOME")
    if not named:
        pytest.skip("NOTQMAIL_HOME names no installation of notqmail")
    if os.getuid() != 0:
        pytest.skip("only root can start qmail-send and give it a queue")
    home = Path(named)
    for name in ("bin/qmail-qread", "bin/qmail-start", "bin/qmail-queue", "queue/mess/0"):
        if not (home / name).exists():
            pytest.skip(f"there is no {home / name}")
    aside = home / "queue.aside"
    with contextlib.ExitStack() as stack:
        (home / "queue").rename(aside)
        stack.callback(aside.rename, home / "queue")
        stack.callback(lambda: shutil.rmtree(home / "queue", ignore_errors=True))
        subprocess.run(["cp", "-a", aside, home / "queue"], check=True)
        for folder, _, names in os.walk(home / "queue"):
            for name in names:
                if not folder.endswith("/lock"):
                    os.unlink(os.path.join(folder, name))
        control = home / "control"
        if not (control / "me").exists():
            control.mkdir(exist_ok=True)
            stack.callback((control / "me").unlink)
            (control / "me").write_text("here.example\n")
        for name, content in (("locals", "here.example\n"), ("smtproutes", ":[127.0.0.1]:1\n")):
            stack.enter_context(_instead(control / name, content))
        yield home


@contextlib.contextmanager
def _instead(path: Path, content: str) -> Iterator[None]:
    before = path.read_bytes() if path.exists() else None
    path.write_text(content)
    path.chmod(0o644)
    try:
        yield
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)


def route(address: bytes) -> tuple[str, bytes]:
    return ("local" if address.endswith(b"@here.example") else "remote"), address


def owners(queue: Path) -> dict[str, tuple[int, int]]:
    """Who owns each kind of folder, and so the files in it."""
    found = {}
    for path in queue.iterdir():
        facts = path.stat()
        found[path.name] = facts.st_uid, facts.st_gid
    return found


def settled_by_us(home: Path) -> list[Stored]:
    """Mail that we accepted, tried, and left in qmail's layout; given to qmail's users again."""
    queue = home / "queue"
    whose = owners(queue)
    now = int(time.time())

    async def run() -> list[Stored]:
        mutex = SendMutex(os.fsencode(queue))
        store = LocalStore(PosixDisk(), SystemClock(), os.fsencode(queue), pytest.fail, route=route)
        assert list(store.open()) == []
        recipients = tuple(Recipient(one) for one in (LOCAL, REMOTE, GONE))
        first = await store.submit(Envelope(b"sender@there.example", recipients), TEXT)
        changes = (
            Change(0, Outcome.DEFERRAL, b"busy\n"),
            Change(1, Outcome.DEFERRAL, b"busy\n"),
            Change(2, Outcome.FAILURE, report(GONE, b"no such user\n")),
        )
        await store.record(first.id.number, changes, (now - 10, now - 10), False)
        second = await store.submit(Envelope(b"", (Recipient(REMOTE),)), TEXT * 100)
        await store.record(second.id.number, (), (0, now - 10), False)
        assert await store.settle() == 0
        stored = [store.load(one.id.number) for one in (first, second)]
        await store.close()
        mutex.close()
        return stored

    stored = asyncio.run(run())
    give(queue, whose)
    return stored


def give(queue: Path, whose: dict[str, tuple[int, int]]) -> None:
    """`chown` as the guide to giving a queue back has it."""
    for kind, (uid, gid) in whose.items():
        if kind == "lock":
            continue
        for folder, folders, names in os.walk(queue / kind):
            for name in (*folders, *names):
                os.chown(os.path.join(folder, name), uid, gid)


def test_qmail_qread_lists_what_we_left(notqmail: Path) -> None:
    first, second = settled_by_us(notqmail)
    listed = subprocess.run([notqmail / "bin/qmail-qread"], capture_output=True, check=True)
    assert listed.stderr == b""
    heads = {int(number): (int(size), sender) for number, size, sender in QREAD.findall(listed.stdout)}
    assert heads == {
        first.id.number: (len(TEXT), b"sender@there.example"),
        second.id.number: (len(TEXT) * 100, b""),
    }
    assert b"\tlocal\t" + LOCAL in listed.stdout
    assert listed.stdout.count(b"\tremote\t" + REMOTE) == 2
    assert b"done\tremote\t" + GONE in listed.stdout.replace(b"  done", b"done")
    assert b"warning" not in listed.stdout


def test_qmail_send_goes_on_with_what_we_left_and_we_go_on_with_what_it_leaves(notqmail: Path) -> None:
    first, second = settled_by_us(notqmail)
    log = notqmail / "queue.log"
    wanted = (
        b"msg %d to local %s" % (first.id.number, LOCAL),
        b"msg %d to remote %s" % (first.id.number, REMOTE),
        b"msg %d to remote %s" % (second.id.number, REMOTE),
    )
    with log.open("wb") as lines:
        send = subprocess.Popen(
            [notqmail / "bin/qmail-start", "./Maildir/"],
            stdout=lines,
            env={"PATH": f"{notqmail}/bin:{os.environ['PATH']}"},
        )
    try:
        for _ in Waiting("qmail-send has tried everything"):
            said = log.read_bytes()
            deliveries = said.count(b"deferral:") + said.count(b"failure:") + said.count(b"success:")
            if all(one in said for one in wanted) and deliveries >= 3:
                break
        with pytest.raises(Exception, match="qmail-send runs"):
            SendMutex(os.fsencode(notqmail / "queue"))
    finally:
        send.send_signal(signal.SIGTERM)
        send.wait(60)
        _wait_until_unlocked(notqmail / "queue" / "lock" / "sendmutex")
        said = log.read_bytes()
        log.unlink()
    assert b"alert" not in said and b"warning" not in said and b"trouble" not in said
    assert b"to remote " + GONE not in said, "what had failed is not tried again"

    async def back() -> dict[int, Stored]:
        store = LocalStore(
            PosixDisk(), SystemClock(), os.fsencode(notqmail / "queue"), pytest.fail, route=route
        )
        store.open()
        came: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        store.arrivals(lambda stored: came.done() or came.set_result(stored))
        trigger = Trigger(os.fsencode(notqmail / "queue"), asyncio.get_running_loop(), store.look)
        envelope = b"Fnew@there.example\0T%s\0\0" % LOCAL
        queued = await asyncio.to_thread(_qmail_queue, notqmail, envelope)
        assert queued == 0
        assert (await asyncio.wait_for(came, 60)).envelope.sender == b"new@there.example"
        trigger.close()
        stored = {number: store.load(number) for number in store.numbers()}
        await store.close()
        return stored

    left = asyncio.run(back())
    assert left[second.id.number].id == second.id, "what we knew beyond qmail is still there"
    [remote] = [one for one in left[first.id.number].envelope.recipients if one.address == REMOTE]
    assert remote and left[first.id.number].bounce.startswith(report(GONE, b"no such user\n"))


def _qmail_queue(home: Path, envelope: bytes) -> int:
    """Runs the real one: the message on descriptor 0, the envelope on 1."""
    message, first = os.pipe()
    addresses, second = os.pipe()
    os.write(first, TEXT)
    os.write(second, envelope)
    os.close(first)
    os.close(second)
    try:
        return subprocess.run(
            [home / "bin/qmail-queue"], stdin=message, stdout=addresses, timeout=60
        ).returncode
    finally:
        os.close(message)
        os.close(addresses)


def _wait_until_unlocked(path: Path) -> None:
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
