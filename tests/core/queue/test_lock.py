"""qmail-send's lock and its bell."""

import asyncio
import os
import stat
import subprocess
import sys

import pytest

from openqmail.core.queue import SendMutex, Trigger
from openqmail.core.values import HomeError


@pytest.fixture
def queue(tmp_path):
    (tmp_path / "lock").mkdir()
    return os.fsencode(tmp_path)


def pulled(queue, ring):
    """What `ring(trigger path)` made the bell do: how often it was heard."""

    async def run():
        heard = asyncio.Event()
        trigger = Trigger(queue, asyncio.get_running_loop(), heard.set)
        try:
            ring(os.path.join(queue, b"lock", b"trigger"))
            await asyncio.wait_for(heard.wait(), 30)
        finally:
            trigger.close()

    asyncio.run(run())


def test_a_byte_in_the_fifo_wakes(queue):
    def ring(path):
        bell = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        os.write(bell, b"\0")
        os.close(bell)

    pulled(queue, ring)
    pulled(queue, ring)


def test_a_fifo_that_is_missing_is_made_so_that_anybody_can_ring(queue):
    path = os.path.join(queue, b"lock", b"trigger")

    def ring(_):
        mode = os.lstat(path).st_mode
        assert stat.S_ISFIFO(mode) and mode & 0o777 == 0o622
        subprocess.run(["/bin/sh", "-c", 'printf x > "$0"', os.fsdecode(path)], check=True)

    pulled(queue, ring)


def test_a_bell_that_is_no_fifo_is_refused_with_a_sentence(queue):
    path = os.path.join(queue, b"lock", b"trigger")
    with open(path, "wb"):
        pass
    with pytest.raises(HomeError) as caught:
        pulled(queue, lambda path: None)
    assert os.fsdecode(path) in str(caught.value)
    os.unlink(path)
    os.mkdir(path)
    with pytest.raises(HomeError, match="trigger"):
        pulled(queue, lambda path: None)


def test_a_second_holder_is_refused_with_a_sentence_and_the_lock_comes_free(queue):
    mutex = SendMutex(queue)
    with pytest.raises(HomeError) as caught:
        SendMutex(queue)
    sentence = str(caught.value)
    assert "lock/sendmutex" in sentence and "qmail-send" in sentence and "stop it" in sentence
    mutex.close()
    SendMutex(queue).close()


HOLD = """
import fcntl, sys
lock = open(sys.argv[1], "a")
fcntl.flock(lock, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_qmail_send_that_runs_keeps_us_out_until_it_ends(queue):
    path = os.path.join(os.fsdecode(queue), "lock", "sendmutex")
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(HomeError, match="is locked"):
            SendMutex(queue)
    finally:
        other.communicate()
    SendMutex(queue).close()


def test_a_folder_with_nothing_of_a_queue_is_refused_and_stays_as_it_is(tmp_path):
    (tmp_path / "lost+found").mkdir()
    with pytest.raises(HomeError) as caught:
        SendMutex(os.fsencode(tmp_path))
    assert str(tmp_path) in str(caught.value) and "is its file system mounted?" in str(caught.value)
    assert os.listdir(tmp_path) == ["lost+found"]


def test_where_a_queue_is_begun_the_layout_is_made_and_locked(tmp_path):
    (tmp_path / "pid").mkdir()
    queue = os.fsencode(tmp_path)
    mutex = SendMutex(queue)
    with pytest.raises(HomeError, match="is locked"):
        SendMutex(queue)
    mutex.close()
