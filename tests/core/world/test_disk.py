"""Every disk keeps its side of the protocol, the real one and the simulated one."""

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from openqmail.core.world import PosixDisk


def test_what_is_appended_is_read_back(place: Any) -> None:
    disk, path = place.disk, place / b"file"
    file = disk.create(path)
    assert file.append([b"one", b"two"]) == 6
    assert file.append([b"three"]) == 5
    file.sync()
    assert (file.size(), file.read_at(3, 100)) == (11, b"twothree")
    file.truncate(3)
    file.append([b"!"])
    file.close()
    again = disk.open(path, write=True)
    again.append([b"?"])
    assert again.read_at(0, 100) == b"one!?"
    again.close()


def test_a_new_file_is_written_in_one_go(place: Any) -> None:
    assert place.disk.write_new(place / b"file", (b"one", b"", b"two")) == 6
    assert place.read(b"file") == b"onetwo"


def test_a_taken_name_is_refused(place: Any) -> None:
    disk, path = place.disk, place / b"file"
    disk.create(path).close()
    for take in (
        lambda: disk.create(path),
        lambda: disk.write_new(path, (b"x",)),
        lambda: disk.mkdir(path),
    ):
        with pytest.raises(FileExistsError):
            take()
    assert place.read(b"file") == b""


def test_what_is_not_there_is_said(place: Any) -> None:
    disk, path = place.disk, place / b"nothing"
    for call in (
        lambda: disk.open(path),
        lambda: disk.stat(path),
        lambda: disk.names(path),
        lambda: disk.scan(path),
        lambda: disk.unlink(path),
        lambda: disk.rmdir(path),
        lambda: disk.rename(path, path + b"2"),
        lambda: disk.create(path + b"/file"),
        lambda: disk.touch(path, 1),
        lambda: disk.chmod(path, 0o600),
        lambda: disk.truncate(path, 0),
        lambda: disk.overwrite(path, 0, b"x"),
        lambda: disk.sync_file(path),
        lambda: disk.sync_folder(path),
        lambda: disk.room(path),
    ):
        with pytest.raises(FileNotFoundError):
            call()


def test_a_file_is_no_folder_and_a_folder_no_file(place: Any) -> None:
    disk = place.disk
    disk.write_new(place / b"file", (b"x",))
    disk.mkdir(place / b"folder")
    for call in (
        lambda: disk.names(place / b"file"),
        lambda: disk.rmdir(place / b"file"),
        lambda: disk.sync_folder(place / b"file"),
        lambda: disk.stat(place / b"file/."),
        lambda: disk.stat(place / b"file/x"),
        lambda: disk.create(place / b"file/x"),
        lambda: disk.rename(place / b"folder", place / b"file"),
    ):
        with pytest.raises(NotADirectoryError):
            call()
    for call in (
        lambda: disk.open(place / b"folder", write=True),
        lambda: disk.unlink(place / b"folder"),
        lambda: disk.rename(place / b"file", place / b"folder"),
    ):
        with pytest.raises(IsADirectoryError):
            call()
    opened = disk.open(place / b"folder")
    with pytest.raises(IsADirectoryError):
        opened.read_at(0, 1)
    opened.close()


def test_new_files_are_private(place: Any) -> None:
    place.disk.create(place / b"a").close()
    place.disk.write_new(place / b"b", (b"x",))
    place.disk.mkdir(place / b"c")
    assert [place.disk.stat(place / name).mode & 0o077 for name in (b"a", b"b", b"c")] == [0, 0, 0]


def test_folders_are_made_listed_synced_and_removed(place: Any) -> None:
    disk, folder = place.disk, place / b"folder"
    disk.mkdir(folder)
    disk.create(folder + b"/a").close()
    disk.mkdir(folder + b"/sub")
    disk.rename(folder + b"/a", folder + b"/b")
    disk.sync_folder(folder)
    assert sorted(disk.names(folder)) == [b"b", b"sub"]
    assert sorted(disk.scan(folder)) == [(b"b", False), (b"sub", True)]
    with pytest.raises(OSError, match=os.strerror(errno.ENOTEMPTY)):
        disk.rmdir(folder)
    disk.unlink(folder + b"/b")
    disk.rmdir(folder + b"/sub")
    assert disk.names(folder) == []
    disk.rmdir(folder)
    assert disk.names(place.folder) == []


def test_a_rename_replaces_what_had_the_name(place: Any) -> None:
    disk = place.disk
    for name in (b"old", b"new"):
        disk.write_new(place / name, (name,))
    disk.rename(place / b"old", place / b"new")
    assert (disk.names(place.folder), place.read(b"new")) == ([b"new"], b"old")


def test_facts_say_what_a_file_is(place: Any) -> None:
    disk, path = place.disk, place / b"file"
    disk.write_new(path, (b"12345",), 0o640)
    facts = disk.stat(path)
    assert (facts.size, facts.links, stat.S_ISREG(facts.mode)) == (5, 1, True)
    assert stat.S_IMODE(facts.mode) & 0o750 == 0o640
    assert (facts.uid, facts.device) == (os.getuid(), disk.stat(place.folder + b"/.").device)
    file = disk.open(path)
    assert file.facts() == facts
    file.close()
    assert stat.S_ISDIR(disk.stat(place.folder).mode)


def test_times_and_modes_are_set(place: Any) -> None:
    disk, path = place.disk, place / b"file"
    disk.write_new(path, (b"x",))
    before = disk.stat(path)
    disk.touch(path, 1_234_567_890)
    disk.chmod(path, 0o644)
    disk.sync_file(path)
    facts = disk.stat(path)
    assert (facts.mtime, stat.S_IMODE(facts.mode), facts.inode) == (1_234_567_890, 0o644, before.inode)
    disk.overwrite(path, 0, b"y")
    assert disk.stat(path).mtime > 1_234_567_890


def test_a_file_is_overwritten_in_place_and_cut(place: Any) -> None:
    disk, path = place.disk, place / b"file"
    disk.write_new(path, (b"abcdef",))
    disk.overwrite(path, 2, b"XY")
    assert place.read(b"file") == b"abXYef"
    disk.overwrite(path, 8, b"!")
    assert place.read(b"file") == b"abXYef\0\0!"
    disk.truncate(path, 3)
    disk.truncate(path, 5)
    assert place.read(b"file") == b"abX\0\0"


def test_a_file_of_two_names_is_one(place: Any) -> None:
    disk = place.disk
    disk.write_new(place / b"a", (b"x",))
    place.link(b"a", b"b")
    assert disk.stat(place / b"a") == disk.stat(place / b"b")
    assert disk.stat(place / b"a").links == 2
    disk.overwrite(place / b"b", 0, b"y")
    disk.unlink(place / b"b")
    assert (place.read(b"a"), disk.stat(place / b"a").links) == (b"y", 1)
    with pytest.raises(FileExistsError):
        place.link(b"a", b"a")


def test_a_removed_file_stays_readable_for_who_has_it_open(place: Any) -> None:
    disk = place.disk
    file = disk.create(place / b"a")
    file.append((b"x",))
    disk.unlink(place / b"a")
    number = file.facts().inode
    disk.create(place / b"b").close()
    assert file.read_at(0, 10) == b"x"
    assert disk.stat(place / b"b").inode != number
    file.close()


def test_a_folder_changes_with_its_names(place: Any) -> None:
    """Who remembers a folder by `changed` notices what comes into it."""
    disk = place.disk
    before = disk.stat(place.folder + b"/.").changed
    while disk.stat(place.folder).changed == before:  # the kernel's time stamps are coarse
        disk.create(place / b"a").close()
        disk.unlink(place / b"a")
    assert disk.stat(place.folder).changed > before


def test_a_whole_file_system_is_synced(place: Any) -> None:
    found = place.disk.filesystem(place.folder)
    if found is None:
        pytest.skip("this folder's file system is not one whose sync as a whole is trusted")
    assert found.device == place.disk.stat(place.folder).device
    found.sync()
    found.close()


def test_a_virtual_file_system_is_not_synced_whole() -> None:
    assert PosixDisk().filesystem(b"/proc") is None


def test_a_fifo_is_opened_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    file = PosixDisk().open(os.fsencode(tmp_path / "fifo"))
    assert stat.S_ISFIFO(file.facts().mode)
    file.close()


def test_a_symbolic_link_is_told_from_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    disk, link = PosixDisk(), os.fsencode(tmp_path / "link")
    assert stat.S_ISLNK(disk.stat(link).mode)
    assert disk.stat(link + b"/.") == disk.stat(os.fsencode(tmp_path / "folder"))
    assert (b"link", False) in disk.scan(os.fsencode(tmp_path))


def test_a_path_is_resolved_whether_it_is_there_or_not(place: Any) -> None:
    there = place.disk.resolve(place.folder)
    place.disk.mkdir(place / b"folder")
    assert place.disk.resolve(place / b"folder/../folder/./nothing/file") == there + b"/folder/nothing/file"


def test_a_path_is_resolved_through_symbolic_links(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("link/nothing")
    there = os.path.realpath(os.fsencode(tmp_path))
    assert PosixDisk().resolve(os.fsencode(tmp_path / "dangling")) == there + b"/folder/nothing"


def test_room_is_told_in_bytes(place: Any) -> None:
    free, total = place.disk.room(place.folder)
    assert 0 <= free <= total
