"""What is not as it should be in qmail's layout: named with a remedy, left as it is, in nobody's way."""

import os
import pickle
import shutil
import tempfile
from pathlib import Path

import pytest
from recordings import AT, unpack
from stage import NOW, QUEUE, Stage, content, succeeded

from openqmail.core.queue import read, read_body
from openqmail.core.values import HomeError, OpenqmailError, QueueDamaged, TemporaryFailure

NOBODY = 65_534


def with_mail(stage, *numbers):
    """Messages as notqmail has them: one recipient local, one remote, one failed."""
    for number in numbers:
        files = stage.layout.files(number)
        stage.put(files.mess, b"theirs %d\n" % number)
        stage.put(files.info, b"Fs%d@remote\0" % number)
        stage.put(files.local, b"Ta@here\0", NOW + 50)
        stage.put(files.remote, b"Tb@remote\0Dc@remote\0", NOW + 60)
        stage.put(files.bounce, b"<c@remote>:\nno\n\n")


EVERYWHERE = [
    b"",
    b"mess",
    b"mess/1",
    b"info",
    b"info/0",
    b"local",
    b"local/2",
    b"remote",
    b"remote/1",
    b"bounce",
    b"todo",
    b"intd",
    b"pid",
    b"lock",
    b"pool",
    b"held",
]


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("folder", EVERYWHERE)
def test_what_does_not_belong_is_named_with_what_to_do_and_left_alone(folder, kind):
    stage = Stage(1)
    with_mail(stage, 5000)
    path = os.path.join(QUEUE, folder, b"core.bak")
    if kind == "file":
        stage.put(path, b"?")
    else:
        stage.disk.make(path)
    before = stage.files(but=(b"journal",))
    seen = stage.look()
    assert seen.keys() == {5000}
    [told] = stage.reports
    assert path.decode() in told and "remove it" in told
    after = stage.files(but=(b"journal",))
    assert {name: after[name] for name in before} == before
    stage.reports.clear()
    stage.look()
    assert len(stage.reports) == 1, "it is told at every start"


@pytest.mark.parametrize("kind", ["info", "local", "remote", "mess", "bounce"])
def test_a_message_without_one_of_its_files_is_named_or_needs_none(kind):
    stage = Stage(1)
    with_mail(stage, 5000, 5001)
    path = getattr(stage.layout.files(5000), kind)
    stage.disk.unlink(path)
    left = stage.files()
    seen = stage.look()
    assert 5001 in seen and stage.files() == left
    if kind in ("local", "remote", "bounce"):  # as qmail: that list is done with, nobody failed
        assert 5000 in seen and stage.reports == []
    else:
        assert 5000 not in seen and stage.reports
        assert all("5000" in told and ("put" in told) for told in stage.reports)
        assert any(path.decode() in told for told in stage.reports)


def test_a_file_in_the_wrong_folder_of_a_split_is_named_with_the_right_one():
    stage = Stage(1)
    with_mail(stage, 5000)
    stage.disk.rename(stage.layout.files(5000).info, QUEUE + b"/info/0/5000")
    assert stage.look() == {}
    wrong = [told for told in stage.reports if "wrong folder" in told]
    assert len(wrong) == 1 and "/info/0/5000" in wrong[0] and wrong[0].endswith("/info/2")


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("info", b"garbage"),
        ("info", b""),
        ("local", b"Xa@here\0"),
        ("remote", b"Tb@remote"),
        ("local", b"\0"),
    ],
)
def test_a_damaged_file_is_named_when_its_message_is_wanted_and_others_go_on(kind, data):
    stage = Stage(1)
    with_mail(stage, 5000, 5001)
    path = getattr(stage.layout.files(5000), kind)
    stage.disk.unlink(path)
    stage.put(path, data, NOW + 50)

    async def story(store, found):
        assert dict(found).keys() >= {5001}
        if 5000 in dict(found):
            with pytest.raises(QueueDamaged) as caught:
                store.load(5000)
            told = str(caught.value)
        else:
            [told] = [line for line in stage.reports if "5000" in line]
        assert path.decode() in told and "5000" in told and "mend" in told
        assert store.load(5001).envelope.sender == b"s5001@remote"
        await store.record(5001, (), (0, 0), True)
        await store.settle()

    stage.run(story)
    assert stage.disk.contents(path)[0] == data


def test_a_result_is_not_dropped_because_its_message_cannot_be_read_just_then():
    stage = Stage(1)
    with_mail(stage, 5000)
    info = stage.layout.files(5000).info

    async def delivered(store, _):
        await store.record(5000, (succeeded(0), succeeded(1)), (0, 0), True)

    stage.run(delivered, close=False)
    stage.crash()
    stage.disk.overwrite(info, 0, b"?")

    async def nothing(store, found):
        assert not found, "what its files say is out of date"

    for _ in range(3):
        stage.run(nothing)
        assert any("5000" in line and "waits until" in line for line in stage.reports)
    stage.disk.overwrite(info, 0, b"F")
    assert stage.look() == {}


def test_a_result_that_waits_is_not_lost_by_a_crash_of_the_start_that_writes_it_anew():
    for call in range(1, 300):
        stage = Stage(1)
        with_mail(stage, 5000)
        info = stage.layout.files(5000).info

        async def delivered(store, _):
            await store.record(5000, (succeeded(0), succeeded(1)), (0, 0), True)

        stage.run(delivered, close=False)
        stage.crash()
        stage.disk.overwrite(info, 0, b"?")
        stage.cut_at(call)
        stage.look()
        stage.disk.faults.stop_at = None
        stage.crash()
        stage.disk.overwrite(info, 0, b"F")
        assert stage.look() == {}, call


def test_many_strange_files_are_counted_not_listed():
    stage = Stage(1)
    for number in range(150):
        stage.put(QUEUE + b"/bounce/strange-%d" % number, b"?")
    stage.look()
    assert len(stage.reports) == 101 and "50 more" in stage.reports[-1]


# --- owners and modes, on the real disk, as somebody who is not root -------------------------


@pytest.fixture
def as_nobody(vectors):
    """`as_nobody(spoil, act)`: what `act(stage)` gives on a recorded queue that root has spoiled."""
    if os.getuid() != 0:
        pytest.skip("only root can give files away and become nobody")
    home = tempfile.mkdtemp(prefix="openqmail-queue-", dir="/var/tmp")
    queue = unpack(vectors, "stopped", Path(home))
    for above, folders, names in os.walk(home.encode()):
        for name in (b".", *folders, *names):
            os.chown(os.path.join(above, name), NOBODY, NOBODY)

    def run(spoil, act):
        spoil(queue)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                found = act(Stage(1, real=queue, split=23, now=AT))
            except BaseException as error:
                found = error
            os.write(writing, pickle.dumps(found))
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            data = pipe.read()
        os.waitpid(child, 0)
        found = pickle.loads(data)
        if isinstance(found, BaseException):
            raise found
        return found

    yield run
    shutil.rmtree(home)


def looked(stage):
    """What a start said and found, and what happened to each message that was wanted."""

    async def story(store, found):
        what = {}
        for number in store.numbers():
            try:
                what[number] = store.load(number).envelope.sender, len(content(store, number))
            except OpenqmailError as error:
                what[number] = error
        return what

    seen = stage.run(story)
    return seen, stage.reports


A, B = 1705080, 1705092


def own(path):
    return lambda queue: os.chown(os.path.join(queue, path), 0, 0)


def close(path):
    return lambda queue: os.chmod(os.path.join(queue, path), 0)


@pytest.mark.parametrize("spoil", [own, close], ids=["owner", "mode"])
@pytest.mark.parametrize("name", [b"local/21/%d" % A, b"remote/21/%d" % A])
def test_a_list_that_may_not_be_read_is_named_at_the_start_and_its_message_waits(as_nobody, spoil, name):
    seen, reports = as_nobody(spoil(name), looked)
    is_named(name, seen, reports)


def is_named(name, seen, reports):
    """At the start, and when the message is wanted; the other one goes on."""
    why = f"{name.decode()} cannot be read: permission denied; mend its owner and mode, then start again"
    assert seen.keys() == {A, B} and seen[B] == (b"sender@remote.test", 255)
    assert isinstance(seen[A], TemporaryFailure) and str(seen[A]).endswith(why)
    assert reports == [f"{seen[A]}; message {A} waits"]


@pytest.mark.parametrize("spoil", [own, close], ids=["owner", "mode"])
def test_an_info_that_may_not_be_read_is_named_at_the_start_and_its_message_waits(as_nobody, spoil):
    name = b"info/21/%d" % A
    seen, reports = as_nobody(spoil(name), looked)
    is_named(name, seen, reports)


def test_a_text_that_may_not_be_read_is_named_at_the_start_and_its_message_waits(as_nobody):
    name = b"mess/21/%d" % A
    seen, reports = as_nobody(close(name), looked)
    is_named(name, seen, reports)


@pytest.mark.parametrize("name", [b"info/21/%d" % A, b"mess/21/%d" % A, b"remote/21/%d" % A])
def test_what_may_not_be_read_is_named_while_no_service_runs(as_nobody, name):
    def act(stage):
        missed = []
        there = [one.id.number for one in read(stage.queue, missed=lambda *what: missed.append(what))]
        with pytest.raises(TemporaryFailure) as caught:
            read_body(stage.queue, A)
        return there, missed, str(caught.value)

    there, missed, told = as_nobody(close(name), act)
    assert there == [B] and missed == [(A, told)]
    assert f"/{name.decode()} cannot be read: permission denied; mend its owner and mode" in told


@pytest.mark.parametrize("kind", ["info", "mess", "remote"])
def test_what_may_not_be_read_any_more_is_named_when_it_is_wanted(as_nobody, kind):
    name = b"%s/21/%d" % (kind.encode(), A)

    def act(stage):
        async def story(store, _):
            close(name)(stage.queue)
            with pytest.raises(TemporaryFailure) as caught:
                store.load(A) if kind != "mess" else store.body(A)
            return str(caught.value)

        return stage.run(story)

    told = as_nobody(lambda queue: None, act)
    assert told.endswith(f"/{name.decode()} cannot be read: permission denied; mend its owner and mode")


@pytest.mark.parametrize("spoil", [own, close], ids=["owner", "mode"])
@pytest.mark.parametrize(
    "folder", [b"info/21", b"mess/3", b"local", b"todo", b"intd", b"bounce", b"pid", b"lock"]
)
def test_a_folder_that_may_not_be_read_stops_the_start_and_is_named(as_nobody, spoil, folder):
    def both(queue):
        spoil(folder)(queue)
        if spoil is own:
            os.chmod(os.path.join(queue, folder), 0o700)

    with pytest.raises(HomeError) as caught:
        as_nobody(both, looked)
    assert f"/queue/{folder.decode()} cannot be read: permission denied; mend its owner and mode" in str(
        caught.value
    )


def test_a_queue_that_is_roots_is_refused_by_name(as_nobody):
    def all_of_it(queue):
        for above, folders, names in os.walk(queue):
            for name in (b".", *folders, *names):
                os.chown(os.path.join(above, name), 0, 0)

    with pytest.raises(HomeError) as caught:
        as_nobody(all_of_it, looked)
    assert "/queue" in str(caught.value) and "owner" in str(caught.value)
