"""When a delivered file is a fact: by its file system, or file by file, and when it is not."""

import os
from pathlib import Path
from typing import Any

from openqmail.core.local import LocalDeliveries
from openqmail.core.ports import LocalReport, Written
from openqmail.core.values import Outcome
from openqmail.core.world import PosixDisk


def only(rig: Any, part: str = "new") -> Path:
    (name,) = rig.names(part)
    return rig.maildir / part / name


def test_one_sync_covers_all_files_of_a_file_system(rig: Any) -> None:
    (rig.alice / ".qmail").write_bytes(b"./Maildir/\n./Maildir/\n")
    assert rig.deliver_and_sync(rig.job()) == (True, True)
    assert rig.disk.whole == 1
    assert rig.disk.files == rig.disk.folders == []


def test_the_real_disk_does_the_same(rig: Any) -> None:
    rig.disk = PosixDisk()
    assert rig.deliver_and_sync(rig.job()) == (True,)


def test_without_a_trusted_sync_each_file_and_its_folder_is_synced(rig: Any) -> None:
    rig.disk.trusted = False
    assert rig.deliver_and_sync(rig.job()) == (True,)
    assert rig.disk.whole == 0
    assert rig.disk.files == [os.fsencode(only(rig))]
    assert rig.disk.folders == [os.fsencode(rig.maildir / "new")]


def test_a_file_that_its_reader_moved_is_synced_where_it_is(rig: Any) -> None:
    rig.disk.trusted = False

    def read() -> None:
        file = only(rig)
        os.rename(file, rig.maildir / "cur" / (file.name + ":2,RS"))

    assert rig.deliver_and_sync(rig.job(), read) == (True,)
    assert rig.disk.files == [os.fsencode(only(rig, "cur"))]
    assert os.fsencode(rig.maildir / "cur") in rig.disk.folders


def test_a_file_that_its_reader_deleted_is_done(rig: Any) -> None:
    rig.disk.trusted = False
    assert rig.deliver_and_sync(rig.job(), lambda: only(rig).unlink()) == (True,)


def test_a_maildir_that_is_gone_proves_nothing(rig: Any) -> None:
    for trusted in (True, False):
        rig.disk.trusted = trusted
        away = rig.alice / f"Away{trusted}"
        assert rig.deliver_and_sync(rig.job(), lambda: os.rename(rig.maildir, away)) == (False,)  # noqa: B023
        rig.make_maildir(rig.maildir)


def test_a_file_that_cannot_be_synced_is_not_durable(rig: Any) -> None:
    rig.disk.trusted = False
    rig.disk.file_fails = True
    assert rig.deliver_and_sync(rig.job()) == (False,)


def test_after_a_failed_sync_the_file_in_memory_is_not_believed(rig: Any) -> None:
    async def story(local: LocalDeliveries) -> LocalReport:
        first = await local.deliver(rig.job())
        rig.disk.fails = True
        assert await local.sync(first.written) == (False,)
        before = os.stat(only(rig)).st_ino
        assert rig.disk.files == []
        report = await local.deliver(rig.job(again=True))
        assert os.stat(only(rig)).st_ino != before
        return report

    report = rig.run(story)
    assert report.result.outcome is Outcome.SUCCESS
    assert report.written == ()  # it is a fact already
    assert len(rig.disk.files) == 1
    assert rig.disk.folders == [os.fsencode(rig.maildir / "new")]


def test_a_slow_or_failed_sync_makes_the_file_system_sync_singly_for_a_minute(rig: Any) -> None:
    async def story(local: LocalDeliveries) -> list[int]:
        seen = []
        for fails, takes in ((False, 6.0), (True, 0.0)):
            written = (await local.deliver(rig.job())).written
            rig.disk.fails, rig.disk.takes = fails, takes
            assert await local.sync(written) == (not fails,)
            rig.disk.fails, rig.disk.takes = False, 0.0
            for seconds in (0, 59, 2):
                rig.clock.advance(seconds)
                before = rig.disk.whole
                assert await local.sync(written) == (True,)
                seen.append(rig.disk.whole - before)
        return seen

    assert rig.run(story) == [0, 0, 1, 0, 0, 1]


def test_a_folder_that_was_never_met_is_synced_singly(rig: Any) -> None:
    """Its file system was not open when the file was written: an earlier process wrote it."""
    rig.deliver(rig.job())
    file = Written(os.fsencode(only(rig)), os.stat(only(rig)).st_size)

    async def story(local: LocalDeliveries) -> tuple[bool, ...]:
        return await local.sync((file,))

    assert rig.run(story) == (True,)
    assert rig.disk.whole == 0
    assert rig.disk.files == [file.path]


def test_an_empty_list_is_synced_at_once(rig: Any) -> None:
    async def story(local: LocalDeliveries) -> tuple[bool, ...]:
        return await local.sync(())

    assert rig.run(story) == ()
