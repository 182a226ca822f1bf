"""The real disk keeps its side of the protocol."""

import os
from pathlib import Path

import pytest

from openqmail.core.world import PosixDisk, SimulatedClock, SystemClock


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    disk, path = PosixDisk(), os.fsencode(tmp_path / "file")
    file = disk.create(path)
    assert file.append([b"one", b"two"]) == 6
    assert file.append([b"three"]) == 5
    file.sync()
    assert (file.size(), file.read_at(3, 100)) == (11, b"twothree")
    file.truncate(3)
    file.append([b"!"])
    file.close()
    again = disk.open(path)
    assert again.read_at(0, 100) == b"one!"
    again.close()


def test_a_new_file_is_written_in_one_go(tmp_path: Path) -> None:
    disk, path = PosixDisk(), os.fsencode(tmp_path / "file")
    assert disk.write_new(path, (b"one", b"", b"two")) == 6
    assert (tmp_path / "file").read_bytes() == b"onetwo"


def test_a_taken_name_is_refused(tmp_path: Path) -> None:
    disk, path = PosixDisk(), os.fsencode(tmp_path / "file")
    disk.create(path).close()
    with pytest.raises(FileExistsError):
        disk.create(path)
    with pytest.raises(FileExistsError):
        disk.write_new(path, (b"x",))
    assert (tmp_path / "file").read_bytes() == b""


def test_new_files_are_private(tmp_path: Path) -> None:
    disk = PosixDisk()
    disk.create(os.fsencode(tmp_path / "a")).close()
    disk.write_new(os.fsencode(tmp_path / "b"), (b"x",))
    assert [os.stat(tmp_path / name).st_mode & 0o077 for name in "ab"] == [0, 0]


def test_folders_are_made_listed_and_synced(tmp_path: Path) -> None:
    disk, folder = PosixDisk(), os.fsencode(tmp_path / "folder")
    disk.mkdir(folder)
    disk.create(folder + b"/a").close()
    disk.rename(folder + b"/a", folder + b"/b")
    disk.sync_folder(folder)
    assert disk.names(folder) == [b"b"]
    disk.unlink(folder + b"/b")
    assert disk.names(folder) == []


def test_a_file_system_that_reports_errors_can_be_synced_whole(tmp_path: Path) -> None:
    disk, folder = PosixDisk(), os.fsencode(tmp_path)
    found = disk.filesystem(folder)
    if found is None:
        pytest.skip("this folder's file system is not one whose sync as a whole is trusted")
    assert found.device == os.stat(tmp_path).st_dev
    found.sync()
    found.close()


def test_a_virtual_file_system_is_not_synced_whole() -> None:
    assert PosixDisk().filesystem(b"/proc") is None


def test_room_is_told_in_bytes(tmp_path: Path) -> None:
    free, total = PosixDisk().room(os.fsencode(tmp_path))
    assert 0 <= free <= total


def test_simulated_time_passes_only_when_told() -> None:
    clock = SimulatedClock(1000.0)
    assert (clock.now(), clock.monotonic()) == (1000.0, 0.0)
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (1002.5, 2.5)


def test_the_system_clock_tells_seconds_since_the_epoch() -> None:
    assert SystemClock().now() > 1_700_000_000
