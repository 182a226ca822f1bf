"""Any split, big-todo or not; and half a layout is refused by name."""

import asyncio
import os
import shutil
import stat
import subprocess

import pytest
from stage import NOW, QUEUE, Stage, content, deferred, to, until_moved

from openqmail.core.queue.layout import paths
from openqmail.core.values import HomeError
from openqmail.core.world import PosixDisk


@pytest.mark.parametrize("split", [1, 7, 23, 101])
def test_whatever_conf_split_somebody_chose_is_found_and_kept_to(split):
    stage = Stage(1, split=split)

    async def story(store, _):
        numbers = [(await store.submit(to(b"a@here"), b"x\n")).id.number for _ in range(5)]
        for number in numbers:
            await store.record(number, (deferred(0),), (NOW + 60, 0), False)
        await until_moved(store)
        return numbers

    numbers = stage.run(story)
    files = stage.files()
    for kind in (b"mess", b"info", b"local"):
        assert {name for name in files if name.startswith(kind)} == {
            b"%s/%d/%d" % (kind, number % split, number) for number in numbers
        }
    assert stage.look().keys() == set(numbers)


@pytest.mark.parametrize("todo_split", [23, 7])
def test_todo_and_intd_that_are_split_too_are_found_and_read(todo_split):
    stage = Stage(1, split=23)
    for kind in (b"todo", b"intd"):
        for part in range(todo_split):
            stage.disk.make(QUEUE + b"/%s/%d" % (kind, part))
    part = b"%d/5000" % (5000 % todo_split)
    stage.put(stage.layout.mess(5000), b"theirs\n")
    for kind in (b"intd", b"todo"):
        stage.put(QUEUE + b"/" + kind + b"/" + part, b"u1\0p2\0Fs@remote\0Ta@here\0")

    async def story(store, _):
        came = asyncio.get_running_loop().create_future()
        store.arrivals(came.set_result)
        stored = await asyncio.wait_for(came, 60)
        assert stored.id.number == 5000 and content(store, 5000) == b"theirs\n"

    stage.run(story)
    assert stage.reports == []
    assert not any(name.startswith((b"todo", b"intd")) for name in stage.files())


@pytest.mark.parametrize(
    "missing", [b"bounce", b"intd", b"todo", b"pid", b"local", b"mess/2", b"info/0", b"remote/1", b"mess"]
)
def test_half_a_layout_is_refused_with_what_is_missing_and_how_to_make_it(missing):
    stage = Stage(1)
    stage.put(stage.layout.mess(4), b"x\n")
    stage.put(stage.layout.files(4).info, b"Fs@remote\0")

    def remove(folder):
        for name, is_folder in stage.disk.scan(folder):
            path = os.path.join(folder, name)
            if is_folder:
                remove(path)
                stage.disk.rmdir(path)
            else:
                stage.disk.unlink(path)

    remove(QUEUE + b"/" + missing)
    stage.disk.rmdir(QUEUE + b"/" + missing)
    before = stage.files()
    with pytest.raises(HomeError) as caught:
        stage.look()
    path = f"{QUEUE.decode()}/{missing.decode()}"
    assert path in str(caught.value) and "install -d" in str(caught.value) and "missing" in str(caught.value)
    assert stage.files() == before


def test_todo_split_and_intd_not_is_refused():
    stage = Stage(1)
    stage.disk.make(QUEUE + b"/todo/0/0", b"u1\0p2\0Fs@example\0Tr@remote\0")
    with pytest.raises(HomeError, match="intd/0 is missing"):
        stage.look()


def test_a_folder_that_is_lost_with_what_was_in_it_is_one_error_whose_remedy_mends_it(tmp_path):
    disk, queue = PosixDisk(), os.fsencode(tmp_path)
    made = paths.make(disk, queue, 3)
    shutil.rmtree(tmp_path / "mess")
    with pytest.raises(HomeError, match="mess is missing, and 3 more folders; ") as caught:
        paths.find(disk, queue)
    subprocess.run(str(caught.value).partition("or: ")[2], shell=True, check=True)
    assert paths.find(disk, queue) == made
    assert {stat.S_IMODE(one.stat().st_mode) for one in (tmp_path / "mess", tmp_path / "mess/2")} == {0o750}


def test_a_stray_empty_folder_does_not_change_the_split():
    stage = Stage(1)
    for stray in (b"/mess/99", b"/todo/4"):
        stage.disk.make(QUEUE + stray)
    assert stage.look() == {}
    assert any("/mess/99" in line for line in stage.reports)


def test_an_empty_layout_is_qmails():
    names = set(paths.folders())
    assert len(names) == 9 + 4 * 23
    assert {b"mess/22", b"info/0", b"todo", b"intd", b"bounce", b"pid", b"lock"} <= names


def test_the_recorded_empty_queue_has_the_folders_that_we_make(vectors, tmp_path):
    from recordings import unpack

    theirs = unpack(vectors, "empty", tmp_path)
    found = {
        os.path.relpath(os.path.join(above, name), theirs)
        for above, folders, _ in os.walk(theirs)
        for name in folders
    }
    assert found == set(paths.folders())


def test_a_first_start_that_was_cut_anywhere_can_be_done_again():
    call, cut = 0, True
    while cut:
        call += 1
        stage = Stage(call)
        for name, is_folder in stage.disk.scan(QUEUE):
            path = os.path.join(QUEUE, name)
            assert is_folder
            for below, is_folder_too in stage.disk.scan(path):
                (stage.disk.rmdir if is_folder_too else stage.disk.unlink)(os.path.join(path, below))
            stage.disk.rmdir(path)
        stage.disk.sync_folder(QUEUE)
        stage.cut_at(call)
        stage.look()
        cut = stage.is_cut
        stage.crash(call if call % 2 else None)
        assert stage.look() == {}, f"call {call}"
        call += 6
