"""A plan is remembered for a home without a `.qmail` file, and never for longer than that is so."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openqmail.core.control import User
from openqmail.core.local import LocalDeliveries
from openqmail.core.local.plans import Plans
from openqmail.core.values import Outcome
from openqmail.core.world import SimulatedClock

DEFAULT = b"did 1+0+0\n"
NONE = b"did 0+0+0\n"


class One:
    """A directory that holds one user."""

    def __init__(self, rig: Any, dash: bytes = b"", ext: bytes = b"") -> None:
        self._user = User(b"alice", os.getuid(), os.getgid(), os.fsencode(rig.alice), dash, ext)

    def find(self, local: bytes) -> User | None:
        return self._user


def settled(rig: Any) -> SimulatedClock:
    """A clock by which the home has not changed for long; the next change has another time stamp."""
    other = rig.root / "other"
    while True:
        other.touch()
        if os.stat(other).st_ctime_ns > os.stat(rig.alice).st_ctime_ns:
            return SimulatedClock(time.time() + 10)


def plans(rig: Any, users: Any, clock: SimulatedClock) -> Plans:
    made = Plans(users, os.fsencode(rig.root / "alias"), rig.disk, clock)
    made.reconfigure(b"./Maildir/\n")
    return made


def before_and_after(rig: Any, change: Callable[[], object]) -> list[bytes]:
    """What two deliveries say, the home long settled at the first, `change` between them."""
    rig.clock = settled(rig)

    async def story(local: LocalDeliveries) -> list[bytes]:
        texts = []
        for happens in (lambda: None, lambda: None, change):
            happens()
            texts.append((await local.deliver(rig.job())).result.text)
        return texts[1:]

    return rig.run(story)


def test_a_home_without_a_file_is_remembered(rig: Any) -> None:
    made = plans(rig, One(rig), settled(rig))
    assert made.task(b"alice@a") is made.task(b"alice@a")


def test_a_home_that_has_just_changed_is_not_remembered(rig: Any) -> None:
    changed = os.stat(rig.alice).st_ctime
    made = plans(rig, One(rig), SimulatedClock(changed + 1))
    assert made.task(b"alice@a") is not made.task(b"alice@a")


def test_a_file_is_read_each_time(rig: Any) -> None:
    (rig.alice / ".qmail").write_bytes(b"./Maildir/\n")
    made = plans(rig, One(rig), settled(rig))
    assert made.task(b"alice@a") is not made.task(b"alice@a")


def test_a_file_that_comes_counts_at_once(rig: Any) -> None:
    assert before_and_after(rig, lambda: (rig.alice / ".qmail").write_bytes(b"#\n")) == [DEFAULT, NONE]


def test_a_file_that_comes_with_an_old_date_counts_at_once(rig: Any) -> None:
    old = os.stat(rig.alice)

    def unpack() -> None:
        (rig.alice / ".qmail").write_bytes(b"#\n")
        os.utime(rig.alice, ns=(old.st_atime_ns, old.st_mtime_ns))

    assert before_and_after(rig, unpack) == [DEFAULT, NONE]
    assert os.stat(rig.alice).st_mtime_ns == old.st_mtime_ns


def test_a_file_that_comes_behind_a_symbolic_link_counts_at_once(rig: Any) -> None:
    (rig.alice / ".qmail").symlink_to(rig.root / "elsewhere")
    assert before_and_after(rig, lambda: (rig.root / "elsewhere").write_bytes(b"#\n")) == [DEFAULT, NONE]


def test_a_file_that_comes_in_a_folder_of_the_home_counts_at_once(rig: Any) -> None:
    (rig.alice / ".qmailx").mkdir()
    made = plans(rig, One(rig, ext=b"x/y"), settled(rig))
    assert len(made.task(b"alice@a").boxes) == 1
    (rig.alice / ".qmailx" / "y").write_bytes(b"#\n")
    assert made.task(b"alice@a").boxes == ()


@pytest.mark.parametrize("mode", [0o757, 0o1755])
def test_an_unsafe_home_defers_at_once(rig: Any, mode: int) -> None:
    _, text = before_and_after(rig, lambda: rig.alice.chmod(mode))
    assert b"ome directory is " in text


def test_a_home_that_is_gone_or_another_is_noticed(rig: Any) -> None:
    _, text = before_and_after(rig, lambda: os.rename(rig.alice, rig.root / "away"))
    assert text.startswith(b"Unable to switch to ")

    other: Path = rig.root / "other-home"
    rig.make_maildir(rig.alice / "Maildir")
    rig.make_maildir(other / "Maildir")
    (other / ".qmail").write_bytes(b"#\n")

    def exchange() -> None:
        os.rename(rig.alice, rig.root / "away2")
        os.rename(other, rig.alice)

    assert before_and_after(rig, exchange) == [DEFAULT, NONE]


def test_another_default_counts_at_once(rig: Any) -> None:
    rig.clock = settled(rig)

    async def story(local: LocalDeliveries) -> list[bytes]:
        first = await local.deliver(rig.job())
        local.reconfigure(msgspec.structs.replace(rig.settings, defaultdelivery=b"#\n"))
        second = await local.deliver(rig.job())
        assert first.result.outcome is second.result.outcome is Outcome.SUCCESS
        return [first.result.text, second.result.text]

    assert rig.run(story) == [DEFAULT, NONE]


def test_a_qmail_file_of_which_nothing_can_be_told_is_not_taken_for_none(rig, monkeypatch):
    """A disk that answers with an error has not said that there is no such file."""
    real = rig.disk.stat

    def failing(path):
        if path.endswith(b"/.qmail"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return real(path)

    (rig.alice / ".qmail").write_text("./other/\n")
    monkeypatch.setattr(rig.disk, "stat", failing)
    task = plans(rig, One(rig), settled(rig)).task(b"alice@a.example")
    assert [box.shown for box in task.boxes] == [b"./other/"]
