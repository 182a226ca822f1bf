"""A repeated delivery knows what an earlier attempt left, in every state it can be in."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openqmail.core.values import Outcome

WHOLE = b"Return-Path: <bob@example.test>\nDelivered-To: alice@example.test\nSubject: x\n\nHello.\n"


def delivered(rig: Any) -> Path:
    """The file of a first attempt."""
    rig.deliver(rig.job())
    (name,) = rig.names("new")
    return rig.maildir / "new" / name


def again(rig: Any, **change: Any) -> None:
    report = rig.deliver(rig.job(again=True, **change))
    assert report.result.outcome is Outcome.SUCCESS


def test_nothing_there_is_written(rig: Any) -> None:
    again(rig)
    assert rig.new() == [WHOLE]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_complete_file_in_new_is_written_anew_as_its_sync_may_have_failed(rig: Any, streamed: bool) -> None:
    file = delivered(rig)
    with file.open("rb") as before:  # held, so that its inode is not given out again
        again(rig, body=rig.streamed(b"Subject: x\n\nHello.\n") if streamed else b"Subject: x\n\nHello.\n")
        assert os.stat(file).st_ino != os.fstat(before.fileno()).st_ino
    assert rig.new() == [WHOLE]
    assert len(rig.disk.files) == 1
    assert rig.disk.folders == [os.fsencode(rig.maildir / "new")]


@pytest.mark.parametrize("left", [b"", WHOLE[:-1], b"x" * len(WHOLE), WHOLE + b"more"])
def test_anything_else_in_new_is_written_anew_and_synced(rig: Any, left: bytes) -> None:
    file = delivered(rig)
    file.write_bytes(left)
    again(rig)
    assert rig.new() == [WHOLE]
    assert len(rig.disk.files) == 1
    assert rig.disk.folders == [os.fsencode(rig.maildir / "new")]
    assert rig.names("tmp") == []


def test_a_complete_file_that_was_read_is_written_over_with_itself(rig: Any) -> None:
    file = delivered(rig)
    moved = rig.maildir / "cur" / (file.name + ":2,S")
    os.rename(file, moved)
    inode = os.stat(moved).st_ino
    again(rig)
    assert rig.new() == []
    assert rig.names("cur") == [moved.name]
    assert (os.stat(moved).st_ino, moved.read_bytes()) == (inode, WHOLE)
    assert rig.disk.files == [os.fsencode(moved)]
    assert rig.disk.folders == [os.fsencode(rig.maildir / "cur")]


def test_something_different_in_cur_stays_and_a_second_copy_comes(rig: Any) -> None:
    file = delivered(rig)
    moved = rig.maildir / "cur" / (file.name + ":2,S")
    os.rename(file, moved)
    moved.write_bytes(b"")
    again(rig)
    assert moved.read_bytes() == b""
    assert rig.new() == [WHOLE]
    again(rig)  # and the copy is recognised in its turn
    assert rig.new() == [WHOLE]
    assert len(rig.names("cur")) == 1


def test_a_deleted_file_is_written_again(rig: Any) -> None:
    delivered(rig).unlink()
    again(rig)
    assert rig.new() == [WHOLE]


def test_a_file_with_the_name_of_another_host_is_recognised(rig: Any) -> None:
    delivered(rig)
    rig.settings = msgspec.structs.replace(rig.settings, me=b"renamed.test")
    again(rig)
    assert rig.new() == [WHOLE]


def test_a_torn_file_with_the_name_of_another_host_is_replaced(rig: Any) -> None:
    delivered(rig).write_bytes(b"")
    rig.settings = msgspec.structs.replace(rig.settings, me=b"renamed.test")
    again(rig)
    assert rig.new() == [WHOLE]


def test_leftovers_in_tmp_are_cleared_and_those_of_others_are_not(rig: Any) -> None:
    stem = ".".join(delivered(rig).name.split(".")[:2])
    (rig.maildir / "new" / rig.names("new")[0]).unlink()
    for name in (f"{stem}-5-1.mx.example.test", f"{stem}-5-99.mx.example.test", "1700000000.Qother-1.mx"):
        (rig.maildir / "tmp" / name).write_bytes(b"half")
    again(rig)
    assert rig.new() == [WHOLE]
    assert rig.names("tmp") == ["1700000000.Qother-1.mx"]


def test_a_leftover_of_the_very_name_does_not_stop_a_first_attempt(rig: Any) -> None:
    file = delivered(rig)
    stem = ".".join(file.name.split(".")[:2])
    file.unlink()
    (rig.maildir / "tmp" / f"{stem}-{os.getpid()}-1.mx.example.test").write_bytes(b"half")
    assert delivered(rig).read_bytes() == WHOLE
    assert rig.names("tmp") == []


def test_the_second_of_two_maildirs_failed_and_the_first_is_not_repeated(rig: Any) -> None:
    (rig.alice / ".qmail").write_bytes(b"./Maildir/\n./Second/\n")
    report = rig.deliver(rig.job())
    assert report.result.outcome is Outcome.DEFERRAL
    assert report.written == ()
    rig.make_maildir(rig.alice / "Second")
    again(rig)
    assert rig.new() == [WHOLE]
    assert len(os.listdir(rig.alice / "Second" / "new")) == 1


def test_another_recipient_of_the_same_message_has_its_own_file(rig: Any) -> None:
    delivered(rig)
    (rig.alice / ".qmail-x").write_bytes(b"./Maildir/\n")
    again(rig, recipient=b"alice-x@example.test")
    assert len(rig.new()) == 2
