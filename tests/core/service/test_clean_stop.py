"""What an exit code of 0 is worth: nothing is in the journal, and another qmail may have the queue.
A stop that cannot bring that about says how much stays, exits 111, and `queue settle` does the rest."""

import asyncio
import json
import os
import smtplib

import pytest

from homes import Waiting
from openqmail.core.control.home import Home as HomePaths
from openqmail.core.control.reader import read_settings
from openqmail.core.log import MemoryLog
from openqmail.core.queue import LocalStore
from openqmail.core.queue.journal.recovery import recover
from openqmail.core.service import mta
from openqmail.core.values import Envelope, Recipient
from openqmail.core.world import PosixDisk, SystemClock

FOREVER = 1e9


def send(home, recipient, text="hello"):
    with smtplib.SMTP("127.0.0.1", home.port, timeout=30) as smtp:
        smtp.sendmail("s@c.example", [recipient], f"Subject: {text}\r\n\r\n{text}\r\n")


def journal(home):
    """Messages that only the journal has, and results that only it knows."""
    found = recover(PosixDisk(), os.fsencode(home.path / "queue/journal"))
    return set(found.entries), len(found.kept)


def with_deferred_mail(home, count=3):
    """It runs, and has mail for hosts that are down and for a user whose deliveries do not begin."""
    home.control("smtproutes", ".down.example:[127.0.0.1]:9")
    home.control("concurrencylocal", "0")
    home.start()
    for number in range(count):
        send(home, f"x@d{number}.down.example")
    send(home, "alice@a.example", "new")
    for _ in Waiting("all that can be tried is deferred"):
        if home.tail(100_000).count("deferral") >= count:
            break
    return {one["id"] for one in home.queue()}


def set_modes(folder, mode):
    """Of the folders below one of the queue's."""
    for part in folder.iterdir():
        part.chmod(mode)


def test_a_clean_stop_with_deferred_mail_exits_0_and_leaves_nothing_in_the_journal(home):
    numbers = with_deferred_mail(home)
    assert home.stop() == 0, home.tail()
    assert journal(home) == (set(), 0)
    assert "in the journal" not in home.tail()
    assert {int(file.name) for file in (home.path / "queue/info").glob("*/*")} == numbers
    told = json.loads(home.run("queue", "settle", "--json").stdout)
    assert (told["messages"], told["left"]) == (len(numbers), 0)
    assert {one["id"] for one in home.queue()} == numbers


@pytest.mark.parametrize("folder", ["mess", "info", "remote"])
def test_a_stop_that_cannot_move_the_mail_says_how_much_stays_and_settle_does_the_rest(home, folder):
    home.control("smtproutes", ".down.example:[127.0.0.1]:9")
    home.control("concurrencyremote", "0")
    home.start()
    set_modes(home.path / "queue" / folder, 0o500)
    for number in range(3):
        send(home, f"x@d{number}.down.example", f"text {number}")
    numbers = {one["id"] for one in home.queue()}
    assert len(numbers) == 3
    assert home.stop() == 111
    lines = home.tail().splitlines()
    assert any("3 messages stay in the journal" in line and "queue settle" in line for line in lines[-2:])
    assert journal(home)[0] == numbers

    refused = home.run("queue", "settle", check=False)
    assert refused.returncode == 111 and "3 messages could not be moved" in refused.stderr
    again = home.run("queue", "settle", "--json", check=False)
    told = json.loads(again.stdout)
    assert again.returncode == 111 and (told["messages"], told["left"]) == (3, 3)
    assert journal(home)[0] == numbers == {one["id"] for one in home.queue()}

    set_modes(home.path / "queue" / folder, 0o700)
    assert home.run("queue", "settle").returncode == 0
    assert journal(home) == (set(), 0)
    assert {int(file.name) for file in (home.path / "queue/info").glob("*/*")} == numbers
    texts = {home.run("queue", "show", number).stdout.rpartition("\n\n")[2] for number in numbers}
    assert texts == {f"text {number}\n" for number in range(3)}


def test_a_folder_that_was_replaced_by_a_file_stops_no_stop_and_loses_nothing(home):
    home.control("concurrencylocal", "0")
    home.start()
    send(home, "alice@a.example", "kept")
    [one] = home.queue()
    part = home.path / "queue/info" / str(one["id"] % 23)
    part.rmdir()
    part.write_text("?")
    assert home.stop() == 111
    assert "1 message stays in the journal; 'openqmail queue settle' moves it" in home.tail()
    assert "Traceback" not in home.tail()
    part.unlink()
    part.mkdir(0o700)
    owner = part.parent.stat()
    os.chown(part, owner.st_uid, owner.st_gid)
    assert home.run("queue", "settle").returncode == 0 and journal(home) == (set(), 0)
    home.control("concurrencylocal", "10")
    home.start()
    [mail] = home.wait_mails("alice", 1)
    assert mail.endswith(b"kept\n")
    assert home.stop() == 0


# --- in this process, with a store that never gets done -------------------------------------------


class Listening(MemoryLog):
    """Tells when it is said that the service serves."""

    def __init__(self):
        super().__init__()
        self.serving = asyncio.Event()

    def __call__(self, event):
        super().__call__(event)
        if b" serving " in event.line():
            self.serving.set()


class Played:
    """An `Mta` of a home, told to end while mail waits in its journal."""

    def __init__(self, home):
        home.control("concurrencylocal", "0")
        self.paths, self.log = HomePaths(str(home.path)), Listening()

    async def serve(self, story):
        """The exit code, after `story(mta)` while it serves."""
        settings = read_settings(self.paths)
        service = mta.Mta(self.paths, settings, PosixDisk(), SystemClock(), self.log, False)
        served = asyncio.create_task(service.serve())
        try:
            async with asyncio.timeout(60):
                serving = asyncio.create_task(self.log.serving.wait())
                await asyncio.wait((served, serving), return_when=asyncio.FIRST_COMPLETED)
                assert serving.done(), served.exception()
                envelope = Envelope(b"s@c.example", (Recipient(b"alice@a.example"),))
                for _ in range(2):
                    await service._queueing.sender.submit(envelope, b"Subject: x\n\nx\n")
                await story(service)
                return await served
        finally:
            served.cancel()

    def said(self):
        return b"\n".join(self.log.lines()).decode()


@pytest.fixture
def stuck(monkeypatch):
    """Settling begins, and never ends; set when it has begun."""
    begun = asyncio.Event()

    async def settle(store):
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(LocalStore, "settle", settle)
    return begun


def test_twenty_seconds_are_what_a_stop_takes_at_most():
    assert mta.DRAIN == 20.0


def test_a_settling_that_never_ends_is_broken_off_at_the_deadline(home, monkeypatch, stuck):
    monkeypatch.setattr(mta, "DRAIN", 0.05)
    played = Played(home)

    async def story(service):
        service.terminate()

    assert asyncio.run(played.serve(story)) == 111
    assert "2 messages stay in the journal" in played.said()
    assert len(journal(home)[0]) == 2


def test_a_second_term_does_not_wait_for_the_moves(home, monkeypatch, stuck):
    monkeypatch.setattr(mta, "DRAIN", FOREVER)
    played = Played(home)

    async def story(service):
        service.terminate()
        await stuck.wait()
        service.terminate()

    assert asyncio.run(played.serve(story)) == 111
    assert "2 messages stay in the journal" in played.said()
    assert len(journal(home)[0]) == 2


def test_a_second_term_before_the_moves_does_not_say_that_all_is_moved(home, monkeypatch, stuck):
    monkeypatch.setattr(mta, "DRAIN", FOREVER)
    played = Played(home)

    async def story(service):
        service.terminate()
        service.terminate()

    assert asyncio.run(played.serve(story)) == 111, "with 0 another qmail would be given the queue"
    assert "2 messages stay in the journal" in played.said()
    assert not stuck.is_set() and len(journal(home)[0]) == 2


def test_what_could_not_be_moved_in_time_is_moved_after_the_next_start(home, monkeypatch):
    monkeypatch.setattr(mta, "DRAIN", 0.0)
    played = Played(home)

    async def story(service):
        service.terminate()

    assert asyncio.run(played.serve(story)) == 111
    monkeypatch.setattr(mta, "DRAIN", FOREVER)
    again = Played(home)
    assert asyncio.run(again.serve(story)) == 0
    assert journal(home) == (set(), 0)
    assert len([*(home.path / "queue/info").glob("*/*")]) == 4


def test_a_start_where_the_queue_is_not_mounted_is_refused_and_makes_nothing(home):
    with_deferred_mail(home, 1)
    assert home.stop() == 0, home.tail()
    place, elsewhere = home.path / "queue", home.path / "elsewhere"
    place.rename(elsewhere)
    place.mkdir(0o700)
    os.chown(place, elsewhere.stat().st_uid, elsewhere.stat().st_gid)
    home.spawn()
    assert home.process.wait(60) == 100
    assert f"{place} has nothing of a queue in it" in home.tail() and "mounted?" in home.tail()
    assert list(place.iterdir()) == []
    place.rmdir()
    elsewhere.rename(place)
    home.start()
    assert home.status()["queue"]["messages"] == 2
