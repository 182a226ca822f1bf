"""What a simulated disk promises after a cut, and that it breaks every promise that was not made."""

import contextlib
import errno
import os
import threading
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.world.simulated import PowerCut, SimulatedClock, SimulatedDisk

SEEDS = range(200)
ORDERS = pytest.mark.parametrize("ordered", [True, False])


def disk_with(*folders: bytes, **how: Any) -> SimulatedDisk:
    disk = SimulatedDisk(Random(1), **how)
    for folder in folders:
        disk.make(folder)
    return disk


def read(disk: SimulatedDisk, path: bytes) -> bytes | None:
    try:
        file = disk.open(path)
    except FileNotFoundError:
        return None
    try:
        return file.read_at(0, 1 << 30)
    finally:
        file.close()


def contents(disk: SimulatedDisk, folder: bytes = b"/") -> dict[bytes, Any]:
    """All that can be seen of it."""
    found: dict[bytes, Any] = {}
    for name, is_folder in sorted(disk.scan(folder)):
        path = os.path.join(folder, name)
        found[path] = (disk.stat(path), None if is_folder else read(disk, path))
        if is_folder:
            found |= contents(disk, path)
    return found


def after_cuts(disk: SimulatedDisk, path: bytes) -> set[bytes | None]:
    return {read(disk.after_power_cut(Random(seed)), path) for seed in SEEDS}


def append_and_sync(disk: SimulatedDisk, path: bytes, data: bytes) -> None:
    file = disk.open(path, write=True)
    file.append((data,))
    file.sync()
    file.close()


# --- contents ---------------------------------------------------------------------------


@ORDERS
def test_what_was_synced_survives_every_cut(ordered: bool) -> None:
    disk = disk_with(b"/q", ordered=ordered)
    disk.create(b"/q/f").close()
    append_and_sync(disk, b"/q/f", b"synced")
    disk.sync_folder(b"/q")
    assert after_cuts(disk, b"/q/f") == {b"synced"}


def test_of_what_was_not_synced_anything_may_be_left() -> None:
    disk = disk_with()
    disk.make(b"/f", b"old")
    file = disk.open(b"/f", write=True)
    data = b"x" * 9000
    file.append((data,))
    found = after_cuts(disk, b"/f")
    assert {b"old", b"old" + data} <= found
    assert all(each and each.startswith(b"old") for each in found)
    lengths = {len(each) for each in found if each}
    assert len(lengths) > 5  # cut short anywhere
    assert any(each and b"\0" in each for each in found)  # a hole where a block never came
    assert all(set(each) <= set(b"old" + b"x\0") for each in found if each)
    file.sync()
    assert after_cuts(disk, b"/f") == {b"old" + data}


def test_blocks_are_torn_at_the_borders_of_blocks() -> None:
    disk = disk_with()
    disk.make(b"/f", b"a" * 8192)
    disk.overwrite(b"/f", 0, b"b" * 8192)
    found = after_cuts(disk, b"/f")
    assert {b"a" * 8192, b"b" * 8192} <= found
    torn = [each for each in found if each and each.count(b"ba") + each.count(b"ab") > 1]
    assert torn
    for each in torn:
        assert all(len({*each[at : at + 512]}) == 1 for at in range(0, 8192, 512))


def test_an_overwritten_page_may_be_any_of_its_versions() -> None:
    disk = disk_with()
    disk.make(b"/f", b"D    ")
    disk.overwrite(b"/f", 0, b"T")
    disk.overwrite(b"/f", 0, b"U")
    assert {b"D    ", b"T    ", b"U    "} <= after_cuts(disk, b"/f")
    disk.sync_file(b"/f")
    assert after_cuts(disk, b"/f") == {b"U    "}


def test_a_file_cut_short_may_still_be_long() -> None:
    disk = disk_with()
    disk.make(b"/f", b"123456")
    disk.truncate(b"/f", 2)
    found = after_cuts(disk, b"/f")
    assert {b"12", b"123456"} <= found
    disk.sync_file(b"/f")
    assert after_cuts(disk, b"/f") == {b"12"}


def test_times_and_modes_are_of_before_or_after_until_they_are_synced() -> None:
    disk = disk_with()
    disk.make(b"/f", b"x")
    old = disk.stat(b"/f").mtime
    disk.touch(b"/f", 86400)
    disk.chmod(b"/f", 0o644)

    def seen() -> set[int]:
        return {disk.after_power_cut(Random(seed)).stat(b"/f").mtime for seed in SEEDS}

    assert seen() == {old, 86400}
    file = disk.open(b"/f")
    file.sync()  # content and length only
    assert seen() == {old, 86400}
    disk.sync_file(b"/f")
    assert seen() == {86400}
    assert disk.after_power_cut(Random(1)).stat(b"/f").mode & 0o777 == 0o644


# --- syncs that fail --------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True])
def test_what_a_failed_sync_lost_never_becomes_durable(whole: bool) -> None:
    disk = disk_with()
    disk.make(b"/f", b"old")
    filesystem = disk.filesystem(b"/")
    assert filesystem is not None
    file = disk.open(b"/f", write=True)
    file.append((b"lost",))
    disk.faults.fail_sync(b"/" if whole else b"f")
    with pytest.raises(OSError, match="Input/output"):
        filesystem.sync() if whole else file.sync()
    assert read(disk, b"/f") == b"oldlost"  # it looks well
    with contextlib.suppress(OSError):  # told once to each who has it open
        file.sync()
    with contextlib.suppress(OSError):
        filesystem.sync()
    file.sync()
    filesystem.sync()
    disk.sync_file(b"/f")
    assert after_cuts(disk, b"/f") == {b"old\0\0\0\0"}
    disk.overwrite(b"/f", 3, b"kept")
    disk.sync_file(b"/f")
    assert after_cuts(disk, b"/f") == {b"oldkept"}


def test_a_failed_sync_may_have_reached_the_disk_all_the_same() -> None:
    found = set()
    for seed in SEEDS:
        disk = SimulatedDisk(Random(seed))
        disk.make(b"/f", b"")
        disk.faults.fail_sync(b"f", reached=True)
        with pytest.raises(OSError, match="Input/output"):
            append_and_sync(disk, b"/f", b"12")
        found |= {read(disk.after_power_cut(Random(1)), b"/f")}
    assert {b"", b"1", b"12"} <= found


def test_each_who_has_it_open_is_told_once_of_a_failed_sync() -> None:
    disk = disk_with()
    disk.make(b"/f", b"")
    one, other, whole = disk.open(b"/f", write=True), disk.open(b"/f"), disk.filesystem(b"/")
    assert whole is not None
    one.append((b"x",))
    disk.faults.fail_sync(b"f", error=errno.ENOSPC)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        one.sync()
    for sync in (other.sync, whole.sync):
        with pytest.raises(OSError, match="Input/output"):
            sync()
    for sync in (one.sync, other.sync, whole.sync, disk.open(b"/f").sync):
        sync()


def test_who_opens_a_file_after_an_error_that_nobody_saw_is_told() -> None:
    disk = disk_with()
    disk.make(b"/f", b"")
    file = disk.open(b"/f", write=True)
    file.append((b"x",))
    file.close()
    disk.faults.fail_sync(b"/")
    whole = disk.filesystem(b"/")
    assert whole is not None
    with pytest.raises(OSError, match="Input/output"):
        whole.sync()
    with pytest.raises(OSError, match="Input/output"):
        disk.sync_file(b"/f")
    disk.sync_file(b"/f")


def test_a_failed_sync_of_a_folder_leaves_its_names_unsynced() -> None:
    disk = disk_with(b"/q")
    disk.create(b"/q/f").close()
    disk.faults.fail_sync(b"/q")
    with pytest.raises(OSError, match="Input/output"):
        disk.sync_folder(b"/q")
    assert after_cuts(disk, b"/q/f") == {None, b""}


def test_syncs_fail_by_lot() -> None:
    disk = disk_with(sync_failures=0.5)
    disk.make(b"/f", b"")
    failed = 0
    for _ in range(100):
        try:
            disk.sync_file(b"/f")
        except OSError:
            failed += 1
    assert 0 < failed < 100


# --- names ------------------------------------------------------------------------------


@ORDERS
def test_a_file_renamed_without_a_sync_may_be_anything_or_absent(ordered: bool) -> None:
    disk = disk_with(b"/m/tmp", b"/m/new", ordered=ordered)
    disk.write_new(b"/m/tmp/f", (b"12",))
    disk.rename(b"/m/tmp/f", b"/m/new/f")
    assert after_cuts(disk, b"/m/new/f") == {None, b"", b"1", b"12", b"\0\0"}


@ORDERS
def test_a_rename_is_never_half_done(ordered: bool) -> None:
    disk = disk_with(b"/a", b"/b", ordered=ordered)
    disk.make(b"/a/f", b"file")
    disk.make(b"/b/g", b"other")
    disk.rename(b"/a/f", b"/b/g")
    for seed in SEEDS:
        found = disk.after_power_cut(Random(seed))
        assert (read(found, b"/a/f"), read(found, b"/b/g")) in ((b"file", b"other"), (None, b"file"))
    disk.sync_folder(b"/b")
    assert after_cuts(disk, b"/a/f") == {None}
    assert after_cuts(disk, b"/b/g") == {b"file"}


def test_names_survive_in_their_order_or_less_kindly_in_none() -> None:
    seen = {}
    for ordered in (True, False):
        disk = disk_with(ordered=ordered)
        for name in (b"/1", b"/2", b"/3"):
            disk.create(name).close()
        found = [disk.after_power_cut(Random(seed)).names(b"/") for seed in SEEDS]
        seen[ordered] = {b"".join(sorted(names)) for names in found}
    assert seen[True] == {b"", b"1", b"12", b"123"}
    assert seen[False] == {b"", b"1", b"2", b"3", b"12", b"13", b"23", b"123"}


def test_changes_of_one_name_keep_their_order_always() -> None:
    disk = disk_with(ordered=False)
    disk.write_new(b"/f", (b"1",))
    disk.sync_file(b"/f")
    disk.rename(b"/f", b"/g")
    disk.write_new(b"/f", (b"2",))
    disk.sync_file(b"/f")
    seen = set()
    for seed in SEEDS:
        found = disk.after_power_cut(Random(seed))
        seen.add((read(found, b"/f"), read(found, b"/g")))
    assert seen == {(None, None), (b"1", None), (None, b"1"), (b"2", b"1")}


def test_a_sync_of_a_file_takes_along_what_was_in_the_journal_before_it() -> None:
    for ordered, expected in ((True, {b""}), (False, {None, b""})):
        disk = disk_with(b"/q", ordered=ordered)
        disk.mkdir(b"/q/1")
        disk.create(b"/q/1/f").close()
        disk.write_new(b"/g", (b"x",))
        disk.create(b"/q/1/later").close()
        disk.sync_file(b"/g")
        assert after_cuts(disk, b"/q/1/f") == expected
        assert after_cuts(disk, b"/q/1/later") == {None, b""}


def test_a_sync_of_content_alone_leaves_a_later_name_in_doubt() -> None:
    """fdatasync needs the journal for a file's size, fsync for all that is about it."""
    disk = disk_with()
    disk.make(b"/old", b"x")
    disk.rename(b"/old", b"/new")
    file = disk.open(b"/new")
    file.sync()
    assert after_cuts(disk, b"/new") == {None, b"x"}
    disk.sync_file(b"/new")
    assert after_cuts(disk, b"/new") == {b"x"}


def test_a_sync_of_a_folder_is_of_that_folder_alone() -> None:
    disk = disk_with(b"/a", b"/b", ordered=False)
    disk.create(b"/a/f").close()
    disk.create(b"/b/f").close()
    disk.mkdir(b"/a/sub")
    disk.create(b"/a/sub/f").close()
    disk.sync_folder(b"/b")
    disk.sync_folder(b"/a/sub")
    assert after_cuts(disk, b"/b/f") == {b""}
    assert after_cuts(disk, b"/a/f") == {None, b""}
    assert after_cuts(disk, b"/a/sub/f") == {None, b""}  # its folder may be lost
    disk.sync_folder(b"/a")
    assert after_cuts(disk, b"/a/sub/f") == {b""}


@ORDERS
def test_a_sync_of_the_whole_makes_all_durable(ordered: bool) -> None:
    disk = disk_with(b"/a", ordered=ordered)
    whole = disk.filesystem(b"/a")
    assert whole is not None
    disk.mkdir(b"/a/b", 0o755)
    disk.write_new(b"/a/b/f", (b"x" * 5000,))
    disk.link(b"/a/b/f", b"/a/g")
    disk.touch(b"/a/g", 5)
    whole.sync()
    expected = contents(disk)
    for seed in SEEDS:
        assert contents(disk.after_power_cut(Random(seed))) == expected


def test_a_link_and_the_name_it_came_from_are_each_for_themselves() -> None:
    disk = disk_with(b"/pool", b"/mess", ordered=False)
    disk.write_new(b"/pool/5", (b"x",))
    disk.sync_file(b"/pool/5")
    disk.sync_folder(b"/pool")
    disk.link(b"/pool/5", b"/mess/5")
    disk.unlink(b"/pool/5")
    disk.sync_folder(b"/pool")
    assert after_cuts(disk, b"/mess/5") == {None, b"x"}
    disk.sync_folder(b"/mess")
    assert after_cuts(disk, b"/mess/5") == {b"x"}
    assert disk.after_power_cut(Random(1)).stat(b"/mess/5").links == 1


# --- numbers, room, ends ----------------------------------------------------------------


def test_the_lowest_free_number_comes_again_at_once() -> None:
    disk = disk_with()
    for name in (b"/a", b"/b", b"/c"):
        disk.create(name).close()
    number = disk.stat(b"/a").inode
    disk.unlink(b"/b")
    disk.unlink(b"/a")
    disk.create(b"/d").close()
    assert disk.stat(b"/d").inode == number
    again = disk.after_kill()
    again.create(b"/e").close()
    assert again.stat(b"/e").inode == number + 1


def test_a_number_is_not_used_while_a_name_or_a_process_has_it() -> None:
    disk = disk_with()
    file = disk.create(b"/a")
    number = file.facts().inode
    disk.link(b"/a", b"/b")
    disk.unlink(b"/a")
    disk.rename(b"/b", b"/c")
    disk.create(b"/d").close()
    disk.unlink(b"/c")
    disk.create(b"/e").close()
    file.close()
    disk.create(b"/f").close()
    assert disk.stat(b"/f").inode == number
    assert number not in (disk.stat(b"/d").inode, disk.stat(b"/e").inode)


@ORDERS
def test_no_cut_leaves_one_number_to_two_files(ordered: bool) -> None:
    disk = disk_with(ordered=ordered)
    disk.create(b"/a").close()
    disk.rename(b"/a", b"/b")
    disk.unlink(b"/b")
    disk.create(b"/c").close()
    for seed in SEEDS:
        assert len(disk.after_power_cut(Random(seed)).names(b"/")) <= 1


def test_a_full_disk_takes_what_fits_and_says_so() -> None:
    disk = disk_with(capacity=10)
    assert disk.write_new(b"/a", (b"123456",)) == 6
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        disk.write_new(b"/b", (b"123456",))
    assert (read(disk, b"/b"), disk.room(b"/")) == (b"1234", (0, 10))
    disk.overwrite(b"/a", 0, b"new")  # takes no room
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        disk.overwrite(b"/a", 5, b"xy")
    assert read(disk, b"/a") == b"new45x"
    disk.unlink(b"/b")
    disk.truncate(b"/a", 2)
    assert disk.room(b"/") == disk.after_kill().room(b"/") == (8, 10)
    disk.capacity = 100
    assert disk.room(b"/") == (98, 100)


def test_a_stopped_disk_does_nothing_any_more() -> None:
    disk = disk_with()
    told: list[PowerCut] = []
    disk.faults.on_power_cut = told.append
    file = disk.create(b"/f")
    disk.faults.stop_at = disk.faults.calls + 2
    file.append((b"one",))
    for call in (
        lambda: file.append((b"two",)),
        file.sync,
        lambda: disk.unlink(b"/f"),
        lambda: disk.names(b"/"),
        lambda: disk.rename(b"/f", b"/g"),
    ):
        with pytest.raises(PowerCut):
            call()
    file.close()
    found = read(disk.after_kill(), b"/f")
    assert found is not None
    assert b"onetwo".startswith(found)
    assert len(found) >= 3
    assert len(told) == 1
    assert not isinstance(told[0], Exception)


def test_a_kill_in_the_middle_of_a_write_leaves_a_part_of_it() -> None:
    found = set()
    for seed in SEEDS:
        disk = SimulatedDisk(Random(seed))
        disk.faults.stop_at = 2
        with pytest.raises(PowerCut):
            disk.write_new(b"/f", (b"12",))
        found.add(read(disk.after_kill(), b"/f"))
    assert found == {b"", b"1", b"12"}


@ORDERS
def test_after_a_kill_all_is_there_and_no_more_durable_than_before(ordered: bool) -> None:
    disk = disk_with(b"/q", ordered=ordered)
    disk.write_new(b"/q/f", (b"12",))
    disk.link(b"/q/f", b"/q/g")
    killed = disk.after_kill()
    assert contents(killed) == contents(disk)
    assert {None, b"", b"12"} <= after_cuts(killed, b"/q/f")
    killed.sync_file(b"/q/f")
    killed.sync_folder(b"/q")
    assert after_cuts(killed, b"/q/f") == after_cuts(killed, b"/q/g") == {b"12"}
    assert {None, b"", b"12"} <= after_cuts(disk, b"/q/f")  # the disk it came from is as it was


def test_a_flipped_bit_is_found_by_all_later_readers() -> None:
    disk = disk_with()
    disk.make(b"/f", b"abc")
    disk.flip(b"/f", 1, 2)
    assert read(disk, b"/f") == read(disk.after_power_cut(Random(1)), b"/f") == b"afc"


def test_a_whole_sync_may_be_denied() -> None:
    assert disk_with(whole=False).filesystem(b"/") is None


def test_calls_are_counted_by_kind() -> None:
    disk = disk_with()
    disk.write_new(b"/f", (b"x",))
    disk.sync_file(b"/f")
    assert (disk.faults.calls, dict(disk.faults.counts)) == (3, {"create": 1, "append": 1, "sync": 1})


def test_times_are_of_the_clock() -> None:
    clock = SimulatedClock(1000.0)
    disk = SimulatedDisk(Random(1), clock)
    disk.create(b"/f").close()
    clock.advance(5)
    disk.overwrite(b"/f", 0, b"x")
    assert disk.stat(b"/f").mtime == 1005


def test_threads_do_not_disturb_each_other() -> None:
    disk = disk_with()
    disk.make(b"/log", b"")

    def work(at: int) -> None:
        for number in range(50):
            path = b"/%d-%d" % (at, number)
            disk.write_new(path, (b"x",))
            file = disk.open(b"/log", write=True)
            file.append((b"line\n",))
            file.close()
            if number % 2:
                disk.unlink(path)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(disk, b"/log") == b"line\n" * 200
    numbers = [disk.stat(b"/" + name).inode for name in disk.names(b"/")]
    assert len(numbers) == len(set(numbers)) == 101


# --- any history ------------------------------------------------------------------------

NAMES = st.sampled_from([b"/a", b"/b", b"/d/a", b"/d/b", b"/e/a"])
FOLDERS = st.sampled_from([b"/", b"/d", b"/e"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write_new"), NAMES, st.binary(max_size=3).map(lambda data: (data,))),
        st.tuples(st.just("overwrite"), NAMES, st.integers(0, 5), st.binary(max_size=3)),
        st.tuples(st.just("truncate"), NAMES, st.integers(0, 5)),
        st.tuples(st.just("rename"), NAMES, NAMES),
        st.tuples(st.just("link"), NAMES, NAMES),
        st.tuples(st.just("unlink"), NAMES),
        st.tuples(st.just("mkdir"), FOLDERS),
        st.tuples(st.just("rmdir"), FOLDERS),
        st.tuples(st.just("sync_file"), NAMES),
        st.tuples(st.just("sync_folder"), FOLDERS),
        st.tuples(st.just("touch"), NAMES, st.integers(0, 9)),
    ),
    max_size=25,
)


def play(steps: list[Any], seed: int, ordered: bool) -> SimulatedDisk:
    disk = SimulatedDisk(Random(seed), capacity=12, ordered=ordered, sync_failures=0.1)
    for name, *arguments in steps:
        with contextlib.suppress(OSError):
            getattr(disk, name)(*arguments)
    return disk


@given(STEPS, st.integers(0, 1 << 16), st.booleans())
def test_the_same_history_and_seed_give_the_same_disk(steps: list[Any], seed: int, ordered: bool) -> None:
    one, other = play(steps, seed, ordered), play(steps, seed, ordered)
    assert contents(one) == contents(other)
    assert contents(one.after_power_cut(Random(seed))) == contents(other.after_power_cut(Random(seed)))


@given(STEPS, st.integers(0, 1 << 16), st.booleans())
def test_every_disk_that_is_found_is_sound(steps: list[Any], seed: int, ordered: bool) -> None:
    """One number a file, links and room as the names say, and a second cut changes nothing."""
    disk = play(steps, seed, ordered)
    for found in (disk, disk.after_kill(), disk.after_power_cut(Random(seed))):
        seen = contents(found)
        files = [(path, facts) for path, (facts, content) in seen.items() if content is not None]
        for _, facts in files:
            assert facts.links == sum(other.inode == facts.inode for _, other in files)
            same = {other.changed for _, other in files if other.inode == facts.inode}
            assert len(same) == 1  # no two files have one number
        folders = [facts.inode for facts, content in seen.values() if content is None]
        assert len(folders) == len(set(folders))
        assert not {facts.inode for _, facts in files} & {*folders}
        used = {facts.inode: facts.size for _, facts in files}
        assert found.room(b"/")[0] == max(12 - sum(used.values()), 0)
    cut = disk.after_power_cut(Random(seed))
    assert contents(cut.after_power_cut(Random(seed + 1))) == contents(cut)


@given(STEPS, st.integers(0, 1 << 16), st.booleans())
def test_after_a_kill_all_is_as_it_was(steps: list[Any], seed: int, ordered: bool) -> None:
    disk = play(steps, seed, ordered)
    killed = disk.after_kill()
    assert contents(killed) == contents(disk)
    # It can lose exactly what the disk itself could have lost.
    assert contents(killed.after_power_cut(Random(seed))) == contents(disk.after_power_cut(Random(seed)))
