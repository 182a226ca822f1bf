"""mbox files: what a reader finds, what others' locks and a failing disk do, what a power cut leaves."""

import errno
import fcntl
import mailbox
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Event
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.local.mbox import HELD, LOCKED, REPLACED, Mboxes, awaited, from_line, quoted
from openqmail.core.values import BytesBody, Outcome, QueueDamaged
from openqmail.core.world import PosixDisk, SimulatedClock
from openqmail.core.world.simulated import SimulatedDisk

HEAD = b"Return-Path: <bob@example.test>\nDelivered-To: alice@example.test\n"
NOW = 1795545047.0  # Tue Nov 24 18:30:47 2026 UTC

LINES = st.lists(
    st.sampled_from([b"\n", b"F", b"Fr", b"From", b"From ", b">", b">>", b"x", b" ", b"\0", b"\r"])
).map(b"".join)


class BrokenBody(BytesBody):
    """Its second half cannot be read."""

    def chunks(self):
        yield self.data[: self.size // 2]
        raise QueueDamaged("the disk is gone")


def mboxes(disk):
    return Mboxes(disk, SimulatedClock(NOW))


def put(disk, path, body, sender=b"bob@example.test"):
    return mboxes(disk).append(path, b"./box", sender, HEAD, body)


def plainly(data):
    """Quoting as mbox(5) tells it, a line at a time."""
    lines = data.split(b"\n")
    return b"\n".join(b">" + line if line.lstrip(b">").startswith(b"From ") else line for line in lines)


@given(LINES, st.lists(st.integers(0, 60)))
def test_quoting_does_not_depend_on_where_a_message_is_divided(data, cuts):
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[begin:end] for begin, end in pairwise(places)]
    assert b"".join(quoted(pieces)) == plainly(data)
    assert b"".join(quoted([*pieces[:1], b"", *pieces[1:]])) == plainly(data)


def test_a_line_of_nothing_but_arrows_is_not_kept_in_memory():
    pieces = [b">" * 50_000 for _ in range(40)] + [b"From x\n"]
    told = list(quoted(pieces))
    assert b"".join(told) == b"".join(pieces)
    assert max(map(len, told)) <= HELD + 50_000


@pytest.mark.parametrize(
    ("sender", "shown"),
    [
        (b"", b"MAILER-DAEMON"),
        (b"bob@example.test", b"bob@example.test"),
        (b"two words\tand\nlines\r\0@x", b"two-words-and-lines--@x"),
    ],
)
def test_the_from_line_is_one_line_in_utc(sender, shown):
    assert from_line(sender, NOW) == b"From " + shown + b" Tue Nov 24 18:30:47 2026\n"


def test_a_reader_of_mbox_finds_each_message(tmp_path):
    path = os.fsencode(tmp_path / "box")
    bodies = [b"Subject: one\n\nFrom here on\n", b"Subject: two\n\nno end of line", b"", b"\n\nFrom me\n\n"]
    for body in bodies:
        assert put(PosixDisk(), path, BytesBody(body)) is None
    found = mailbox.mbox(tmp_path / "box", create=False)
    assert len(found) == len(bodies)
    assert [each["Subject"] for each in found] == ["one", "two", None, None]
    assert (tmp_path / "box").stat().st_mode & 0o777 == 0o600


def test_what_was_torn_by_a_crash_does_not_swallow_the_next_message(tmp_path):
    (tmp_path / "box").write_bytes(b"From a Tue Nov 24 18:30:47 2026\nSubject: torn\n\nhal")
    assert put(PosixDisk(), os.fsencode(tmp_path / "box"), BytesBody(b"Subject: next\n\nx\n")) is None
    assert b"\nFrom bob@example.test " in (tmp_path / "box").read_bytes()


def test_a_file_that_another_program_keeps_locked_defers(tmp_path, monkeypatch):
    monkeypatch.setattr("openqmail.core.local.mbox.PATIENCE", 0.05)
    (tmp_path / "box").write_bytes(b"old\n")
    hold = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, tmp_path / "box"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        assert put(PosixDisk(), os.fsencode(tmp_path / "box"), BytesBody(b"x\n")) == LOCKED
        other.stdin.close()
    assert (tmp_path / "box").read_bytes() == b"old\n"
    assert put(PosixDisk(), os.fsencode(tmp_path / "box"), BytesBody(b"x\n")) is None
    with (tmp_path / "box").open() as free:
        fcntl.flock(free, fcntl.LOCK_EX | fcntl.LOCK_NB)  # and is let go afterwards


class LockedDisk(PosixDisk):
    """Somebody else has `box` locked until he lets go."""

    def __init__(self):
        self.waited_for, self.let_go = Event(), Event()

    def open_mbox(self, path):
        file = super().open_mbox(path)
        return LockedFile(file, self) if path.endswith(b"/box") else file


class LockedFile:
    def __init__(self, file, disk):
        self._file, self._disk = file, disk

    def __getattr__(self, name):
        return getattr(self._file, name)

    def lock(self, seconds):
        if seconds:
            self._disk.waited_for.set()
            assert self._disk.let_go.wait(60)
        return self._disk.let_go.is_set() and self._file.lock(seconds)


def test_the_lock_of_another_is_waited_for_half_a_minute_and_then_the_message_is_put_off(
    tmp_path, monkeypatch
):
    now = [1000.0]

    def sleep(seconds):
        assert 0 < seconds <= 1
        now[0] += seconds

    world = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr("openqmail.core.world.posix_disk.time", world)
    with (tmp_path / "box").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        result = put(PosixDisk(), os.fsencode(tmp_path / "box"), BytesBody(b"x\n"))
    assert result.outcome is Outcome.DEFERRAL and b"locked for 30 seconds" in result.text
    assert 30.0 <= now[0] - 1000.0 <= 31.0
    assert (tmp_path / "box").read_bytes() == b""


def test_only_one_message_waits_for_a_locked_mbox(tmp_path):
    disk = LockedDisk()
    boxes = mboxes(disk)

    def append(name):
        return boxes.append(
            os.fsencode(tmp_path / name), b"./box", b"bob@example.test", HEAD, BytesBody(b"x\n")
        )

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(append, "box")
        assert disk.waited_for.wait(60)
        assert [append("box") for _ in range(30)] == [awaited(b"./box")] * 30
        assert append("other") is None
        disk.let_go.set()
        assert first.result(60) is None
    assert append("box") is None
    assert len(mailbox.mbox(tmp_path / "box", create=False)) == 2


def test_messages_that_come_together_do_not_defer_each_other(tmp_path):
    boxes, path = mboxes(PosixDisk()), os.fsencode(tmp_path / "box")

    def append(_):
        return boxes.append(path, b"./box", b"bob@example.test", HEAD, BytesBody(b"x\n"))

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(append, range(40))) == {None}
    assert len(mailbox.mbox(tmp_path / "box", create=False)) == 40


class ChangingDisk(PosixDisk):
    """While a delivery waits for the lock, somebody does something to the mbox."""

    def __init__(self, *changes):
        self._changes = iter(changes)

    def open_mbox(self, path):
        return ChangingFile(super().open_mbox(path), next(self._changes, lambda: None))


class ChangingFile(LockedFile):
    def lock(self, seconds):
        self._disk()
        return self._file.lock(seconds)


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("gone", [False, True])
def test_an_mbox_that_is_replaced_while_its_lock_is_waited_for_gets_the_message(tmp_path, gone, link):
    box = tmp_path / "box"
    if link:
        box.symlink_to("real")
        box = tmp_path / "real"
    box.write_bytes(b"old\n")

    def replace():
        box.rename(tmp_path / "before")
        if not gone:
            box.write_bytes(b"new\n")

    assert put(ChangingDisk(replace), os.fsencode(tmp_path / "box"), BytesBody(b"Subject: x\n\ny\n")) is None
    assert (tmp_path / "before").read_bytes() == b"old\n"
    whole = from_line(b"bob@example.test", NOW) + HEAD + b"Subject: x\n\ny\n\n"
    assert box.read_bytes() == (b"" if gone else b"new\n") + whole


def test_an_mbox_that_is_replaced_again_and_again_defers(tmp_path):
    box = tmp_path / "box"
    disk = ChangingDisk(*[lambda: box.rename(tmp_path / "before")] * 100)
    assert put(disk, os.fsencode(box), BytesBody(b"x\n")) == REPLACED
    assert (tmp_path / "before").read_bytes() == b""


def test_a_symbolic_link_that_leads_elsewhere_meanwhile_is_followed(tmp_path):
    (tmp_path / "box").symlink_to("one")

    def lead():
        (tmp_path / "box").unlink()
        (tmp_path / "box").symlink_to("two")

    assert put(ChangingDisk(lead), os.fsencode(tmp_path / "box"), BytesBody(b"x\n")) is None
    assert (tmp_path / "one").read_bytes() == b""
    assert len(mailbox.mbox(tmp_path / "two", create=False)) == 1


def test_what_is_no_file_defers_and_says_so(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    wanted = {"fifo": b"not a regular file", "folder": b"is a directory", "no/box": b"file does not exist"}
    for name, why in wanted.items():
        result = put(PosixDisk(), os.fsencode(tmp_path / name), BytesBody(b"x\n"))
        assert result.outcome is Outcome.DEFERRAL
        assert result.text == b"Unable to open ./box: %s. (#4.2.1)\n" % why


def test_a_body_that_cannot_be_read_whole_leaves_nothing(tmp_path):
    (tmp_path / "box").write_bytes(b"old\n")
    result = put(PosixDisk(), os.fsencode(tmp_path / "box"), BrokenBody(b"x" * 1000))
    assert result.outcome is Outcome.DEFERRAL
    assert (tmp_path / "box").read_bytes() == b"old\n"


def simulated(content, ordered=True):
    disk = SimulatedDisk(random.Random(0), ordered=ordered)
    disk.mkdir(b"/home")
    if content is not None:
        disk.make(b"/home/box", content)
        disk.sync_file(b"/home/box")
    disk.sync_folder(b"/")
    disk.sync_folder(b"/home")
    return disk


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("content", [None, b"", b"old\n"])
def test_what_was_said_to_be_there_outlives_a_power_cut(content, ordered):
    whole = (content or b"") + from_line(b"bob@example.test", NOW) + HEAD + b"Subject: x\n\ny\n\n"
    for seed in range(50):
        disk = simulated(content, ordered)
        assert put(disk, b"/home/box", BytesBody(b"Subject: x\n\ny\n")) is None
        found, _ = disk.after_power_cut(random.Random(seed)).contents(b"/home/box")
        assert found == whole


def test_what_is_said_after_a_kill_that_left_a_new_mbox_outlives_a_power_cut():
    for seed in range(50):
        killed = simulated(None, ordered=False)
        killed.create(b"/home/box").append([b"From x\n\nhal"])
        disk = killed.after_kill()
        assert put(disk, b"/home/box", BytesBody(b"Subject: x\n\ny\n")) is None
        found, _ = disk.after_power_cut(random.Random(seed)).contents(b"/home/box")
        assert found.endswith(HEAD + b"Subject: x\n\ny\n\n")


class NotingDisk(PosixDisk):
    def __init__(self):
        self.folders = []

    def sync_folder(self, folder):
        self.folders.append(os.fsdecode(folder))
        super().sync_folder(folder)


@pytest.mark.parametrize("dangling", [False, True])
def test_behind_a_symbolic_link_the_folder_of_the_file_is_synced(tmp_path, dangling):
    (tmp_path / "spool").mkdir()
    (tmp_path / "box").symlink_to("spool/alice")
    if not dangling:
        (tmp_path / "spool" / "alice").touch()
    disk = NotingDisk()
    assert put(disk, os.fsencode(tmp_path / "box"), BytesBody(b"x\n")) is None
    assert disk.folders == [os.path.realpath(tmp_path / "spool")]
    assert len(mailbox.mbox(tmp_path / "spool" / "alice", create=False)) == 1


def test_a_folder_that_may_not_be_listed_keeps_no_mail_from_an_mbox_that_has_some():
    disk = simulated(b"old\n")
    disk.faults.fail_sync(b"/home", error=errno.EACCES)
    assert put(disk, b"/home/box", BytesBody(b"x\n")) is None
    disk = simulated(None)
    disk.faults.fail_sync(b"/home", error=errno.EACCES)
    assert put(disk, b"/home/box", BytesBody(b"x\n")).outcome is Outcome.DEFERRAL


@pytest.mark.parametrize("content", [None, b"old\n"])
@pytest.mark.parametrize("where", [b"/box", b"/home"])
def test_a_sync_that_fails_leaves_the_file_as_it_was(where, content):
    disk = simulated(content)
    disk.faults.fail_sync(where)
    result = put(disk, b"/home/box", BytesBody(b"x\n"))
    assert result.outcome is Outcome.DEFERRAL
    assert result.text == b"Unable to write ./box: input/output error. (#4.3.0)\n"
    assert disk.contents(b"/home/box")[0] == (content or b"")


def test_a_full_disk_leaves_the_file_as_it_was():
    disk = simulated(b"old\n")
    disk.capacity = 1000
    result = put(disk, b"/home/box", BytesBody(b"x" * 5000))
    assert result.text == b"Unable to write ./box: no space left on device. (#4.3.0)\n"
    assert disk.contents(b"/home/box")[0] == b"old\n"
