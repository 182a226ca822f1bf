"""`openqmail queue` where something is wrong: it is named, in one form, with a remedy and an exit code."""

import asyncio
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from homes import command
from openqmail.core.control import Home
from openqmail.core.queue import Change, LocalStore
from openqmail.core.values import Envelope, OpenqmailError, Outcome, Recipient
from openqmail.core.world import PosixDisk, SystemClock

Run = Callable[..., Any]
AGAIN = int(time.time()) + 86_400
DENIED = "cannot be read: permission denied; mend its owner and mode"


def store_of(made: Path) -> LocalStore:
    return LocalStore(
        PosixDisk(),
        SystemClock(),
        os.fsencode(made / "queue"),
        lambda error: None,
        route=lambda address: ("remote", address),
    )


@pytest.fixture
def numbers(made: Path) -> list[int]:
    """Deferred mail from a, b and c in qmail's files."""

    async def fill() -> list[int]:
        store = store_of(made)
        store.open()
        numbers = []
        for name in (b"a", b"b", b"c"):
            envelope = Envelope(name + b"@a.example", (Recipient(b"x@down.example"),))
            numbers.append((await store.submit(envelope, b"Subject: %s\n\nhello\n" % name)).id.number)
            later = (Change(0, Outcome.DEFERRAL, b"busy\n"),)
            await store.record(numbers[-1], later, (AGAIN, AGAIN), False)
        await store.settle()
        await store.close()
        return numbers

    numbers = asyncio.run(fill())
    give(made / "queue", *Home(str(made)).owner)
    return numbers


@contextmanager
def answering(made: Path, answer: object) -> Iterator[None]:
    """A service that answers this to whatever is asked, once."""
    path = made / "run" / "admin"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        os.chown(path, *Home(str(made)).owner)
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, connection.makefile("rb") as lines:
                lines.readline()
                connection.sendall(json.dumps(answer).encode() + b"\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def give(folder: Path, uid: int, gid: int) -> None:
    for above, names, files in os.walk(folder):
        for name in [".", *names, *files]:
            os.chown(os.path.join(above, name), uid, gid)


def file(made: Path, kind: str, number: int) -> Path:
    return made / "queue" / kind / str(number % 23) / str(number)


@pytest.mark.parametrize("kind", ["info", "mess", "remote"])
def test_a_message_that_may_not_be_read_is_named_and_the_others_are_listed_and_shown(
    run: Run, made: Path, numbers: list[int], kind: str
) -> None:
    path = file(made, kind, numbers[1])
    path.chmod(0)
    ran = run("--home", made, "queue", "list")
    assert ran.code == 111 and ran.out.count("#") == 2 and "from <b@" not in ran.out
    assert ran.err.startswith(f"openqmail: message {numbers[1]} is left out: {path} {DENIED}")
    assert len(ran.err.splitlines()) == 1
    ran = run("--home", made, "queue", "show", *numbers)
    assert ran.code == 111 and "Subject: a" in ran.out and "Subject: c" in ran.out
    assert ran.err.startswith(f"openqmail: {path} {DENIED}") and len(ran.err.splitlines()) == 1
    ran = run("--home", made, "queue", "hold", *numbers)
    assert ran.code == 111 and ran.out == "2 messages held\n"
    assert ran.err.startswith(f"openqmail: message {numbers[1]} is left as it is: {path} {DENIED}")


def test_a_text_that_may_not_be_read_is_not_said_to_be_missing_by_a_service(run: Run, made: Path) -> None:
    with answering(made, {"ok": False, "error": f"/q/mess/17/17 {DENIED}"}):
        assert run("--home", made, "queue", "show", 17) == (111, "", f"openqmail: /q/mess/17/17 {DENIED}\n")


def test_what_is_missing_among_others_is_named_and_is_no_failure(
    run: Run, made: Path, numbers: list[int]
) -> None:
    ran = run("--home", made, "queue", "show", numbers[0], 999, f"#{numbers[2]}")
    assert ran.code == 0 and ran.out == "Subject: a\n\nhello\nSubject: c\n\nhello\n"
    assert ran.err == "openqmail: there is no message 999 in the queue; 'queue list' shows them\n"
    assert run("--home", made, "queue", "show", 999).code == 1
    assert run("--home", made, "queue", "show", "##9").code == 100


def test_a_list_without_its_journal_is_refused_as_a_start_is(
    run: Run, made: Path, numbers: list[int]
) -> None:
    shutil.rmtree(made / "queue/journal")
    ran = run("--home", made, "queue", "list")
    assert (ran.code, ran.out) == (100, "")
    assert f"{made}/queue/journal has no segment" in ran.err and "--salvage" in ran.err
    assert run("--home", made, "queue", "flush") == ran
    assert run("--home", made, "queue", "show", numbers[0]) == ran


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_queue_that_was_not_given_to_the_homes_owner_is_named(
    run: Run, made: Path, numbers: list[int]
) -> None:
    give(made / "queue", 0, 0)
    for words in (("list",), ("flush",), ("show", 17), ("hold", 17)):
        ran = run("--home", made, "queue", *words)
        assert (ran.code, ran.out) == (100, ""), words
        assert ran.err.startswith(f"openqmail: {made}/queue") and ran.err.endswith(f" {DENIED}\n"), ran.err


def test_mail_that_was_taken_over_is_listed_with_its_next_attempt(
    run: Run, made: Path, numbers: list[int]
) -> None:
    info = file(made, "info", numbers[0])
    info.write_bytes(info.read_bytes().partition(b"\0")[0] + b"\0")  # as another qmail has it
    out = run("--home", made, "queue", "list").out
    when = time.strftime("%d %b %Y %H:%M:%S UTC", time.gmtime(AGAIN))
    assert f"x@down.example  (next {when})\n" in out
    assert out.count(f"x@down.example  (1 attempt, next {when})\n") == 2


@pytest.mark.parametrize(
    ("missed", "code"), [({"why": "is held already"}, 1), ({"why": "is busy", "passes": True}, 111)]
)
def test_what_passes_by_itself_is_later(run: Run, made: Path, missed: Any, code: int) -> None:
    with answering(made, {"ok": True, "missed": [{"number": 17, **missed}]}):
        ran = run("--home", made, "queue", "hold", 17)
    assert ran == (code, "", f"openqmail: message 17 {missed['why']}\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_question_about_one_message_has_its_number(
    run: Run, made: Path, numbers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, question in (
        ("delete", f"Delete message {numbers[0]} from <a@a.example>, telling nobody? [y/N] "),
        ("bounce", f"Give message {numbers[0]} back to <a@a.example>? [y/N] "),
    ):
        monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
        ran = run("--home", made, "queue", words, numbers[0])
        assert ran.code == 1 and ran.err.startswith(question)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("words", [("list",), ("list", "--json"), ("show", 0)])
def test_a_full_disk_behind_the_output_is_one_sentence(
    made: Path, numbers: list[int], words: tuple[object, ...]
) -> None:
    told = [str(word or numbers[0]) for word in words]
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            [*command(), "--home", str(made), "queue", *told],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
        )
    assert ran.returncode == 111
    assert ran.stderr == (
        "openqmail: what was to be printed cannot be written: no space left on device; ask again\n"
    )


def test_a_queue_that_is_not_mounted_is_no_empty_queue(run: Run, made: Path, numbers: list[int]) -> None:
    """What stands there in its place is what a mount point is: a folder, perhaps with a lost+found."""
    (made / "queue").rename(made / "elsewhere")
    (made / "queue").mkdir(0o700)
    give(made / "queue", *Home(str(made)).owner)
    for words in (["check"], ["queue", "list"], ["queue", "settle"]):
        ran = run("--home", made, *words)
        assert ran.code == 100, words
        assert f"{made}/queue" in ran.out + ran.err and "is its file system mounted?" in ran.out + ran.err
    begin = ran.err.rpartition("an empty queue: ")[2]
    assert list((made / "queue").iterdir()) == []
    (made / "queue").rmdir()
    (made / "elsewhere").rename(made / "queue")
    assert len(run("--home", made, "queue", "list", "--json").out.splitlines()) == len(numbers)
    for part in (made / "queue").iterdir():
        shutil.rmtree(part)
    subprocess.run(begin, shell=True, check=True)
    assert run("--home", made, "queue", "settle").code == 0
    assert "owners and modes are as they should be" in run("--home", made, "check").out


@pytest.mark.parametrize("whole", [True, False])
def test_a_queue_that_was_put_into_the_queue_is_not_said_to_be_for_removal(
    run: Run, made: Path, numbers: list[int], whole: bool
) -> None:
    """As `mv old/queue home/queue/` does where the home's own was not removed before."""
    outer, inner = made / "queue.new", made / "queue.new" / "queue"
    outer.mkdir(0o700)
    if whole:
        shutil.copytree(made / "queue", outer, dirs_exist_ok=True, copy_function=lambda *paths: None)
    (made / "queue").rename(inner)
    outer.rename(made / "queue")
    give(made / "queue", *Home(str(made)).owner)
    ran = run("--home", made, "check")
    assert ran.code == 100 and f"{made}/queue/queue" in ran.out
    assert "looks like another queue" in ran.out and "remove" not in ran.out
    subprocess.run(ran.out.splitlines()[0].rpartition("then: ")[2], shell=True, check=True)
    assert "owners and modes are as they should be" in run("--home", made, "check").out
    listed = run("--home", made, "queue", "list", "--json").out.splitlines()
    assert {json.loads(line)["id"] for line in listed} == set(numbers)


def test_what_nobody_tried_is_not_deferred_to_the_list_nor_to_the_totals(
    run: Run, made: Path, numbers: list[int]
) -> None:
    """The totals are those that `status` has; wherever the mail lies they count as the list does."""

    async def fill() -> list[int]:
        store = store_of(made)
        store.open()
        two = tuple(Recipient(b"%s@down.example" % name) for name in (b"x", b"y"))
        envelope, counts = Envelope(b"d@a.example", two), []
        await store.submit(envelope, b"untried\n")
        begun = (await store.submit(envelope, b"one has it\n")).id.number
        await store.record(begun, (Change(0, Outcome.SUCCESS, b""),), (0, 0), False)
        counts.append(store.totals().deferred)
        await store.settle()
        counts.append(store.totals().deferred)
        await store.close()
        return counts

    async def reopened() -> int:
        store = store_of(made)
        store.open()
        await store.close()
        return store.totals().deferred

    counts = [*asyncio.run(fill()), asyncio.run(reopened())]
    give(made / "queue", *Home(str(made)).owner)
    listed = run("--home", made, "queue", "list").out
    deferred = len(numbers) + 1
    assert "5 messages, 6 recipients waiting, 4 deferred" in listed
    assert counts == [deferred] * 3


def test_messages_that_cannot_be_read_are_counted_while_they_cannot(made: Path, numbers: list[int]) -> None:
    path = file(made, "remote", numbers[0])
    whole = path.read_bytes()

    async def story() -> list[int]:
        store, counts = store_of(made), []
        store.open()
        for content in (whole, b"", whole):
            path.write_bytes(content)
            try:
                store.load(numbers[0])
            except OpenqmailError:
                counts.append(-1)
            counts.append(store.totals().unreadable)
        path.write_bytes(b"")
        await store.close()
        store = store_of(made)
        store.open()
        counts.append(store.totals().unreadable)
        await store.close()
        return counts

    assert asyncio.run(story()) == [0, -1, 1, 0, 1]
