"""A disk of 32 MiB that fills up under a running service, and has room again.

A clock that jumps is not tried here: whose clock does, is the simulation's.
"""

import signal
import smtplib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

import loops
from homes import Home, Place, Waiting
from loops import MIB, LoopDisk
from sink import PUTS_OFF, TAKES, Sink
from traffic import HOST, USERS, Books, Clients

SIZE = 32 * MIB
SENDER = f"dave@{TAKES}"


class Scene(NamedTuple):
    disk: LoopDisk
    home: Home
    sink: Sink


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A home on a disk of its own, running; the log and the other host have room elsewhere."""
    if reason := loops.why_not("ext4"):
        pytest.skip(reason)
    with LoopDisk("ext4", SIZE) as disk, Place(under=str(disk.path)) as place, Sink() as sink:
        home = place.home(HOST, *USERS)
        home.log = disk.beside / "log"
        home.control("smtproutes", sink.routes())
        home.control("bouncemaxbytes", "0")  # a bounce has all of its message, and is looked at to its end
        home.start()
        yield Scene(disk, home, sink)


def send(home: Home, recipient: str, text: str) -> int:
    """The code of the reply that decided."""
    with smtplib.SMTP("127.0.0.1", home.port, timeout=30) as smtp:
        try:
            smtp.sendmail(SENDER, [recipient], f"Subject: {text}\r\n\r\n{text}\r\n")
        except smtplib.SMTPResponseException as error:
            return error.smtp_code
        except smtplib.SMTPRecipientsRefused as error:
            return next(code for code, _ in error.recipients.values())
    return 250


def wait_until_taken(home: Home) -> None:
    """Until new mail is accepted, without anybody's help."""
    for _ in Waiting("new mail is accepted again", pause=0.1):
        if send(home, f"alice@{HOST}", "again") == 250:
            return


def wait_deferred(home: Home, count: int) -> None:
    for _ in Waiting(f"{count} messages have been deferred"):
        if sum(one["state"] == "deferred" for one in home.queue()) == count:
            return


def test_at_the_watermark_mail_is_put_off_until_there_is_room_again(scene: Scene) -> None:
    assert send(scene.home, f"alice@{HOST}", "before") == 250
    scene.disk.fill(leave=SIZE // 20)
    for _ in Waiting("the service notices"):
        if (code := send(scene.home, f"alice@{HOST}", "while full")) != 250:
            break
    assert code == 452
    assert scene.home.status()["state"] == "serving"
    scene.disk.clear()
    wait_until_taken(scene.home)
    assert scene.home.stop() == 0


def test_without_a_free_byte_results_and_bounces_of_queued_mail_get_through(scene: Scene) -> None:
    assert send(scene.home, f"taken@{PUTS_OFF}", "one that will be taken") == 250
    wait_deferred(scene.home, 1)
    scene.disk.fill()
    assert scene.disk.free() == 0
    scene.sink.kindness = 1.0
    scene.home.signal(signal.SIGALRM)
    scene.home.wait_empty()
    assert b"one that will be taken" in scene.sink.of(f"taken@{PUTS_OFF}")[0]
    scene.disk.clear()
    wait_until_taken(scene.home)

    scene.sink.kindness = 0.0
    assert send(scene.home, f"refused@{PUTS_OFF}", "one that will be refused") == 250
    wait_deferred(scene.home, 1)
    scene.disk.fill()
    assert scene.disk.free() == 0
    scene.sink.patience = False
    scene.home.signal(signal.SIGALRM)
    for _ in Waiting("the bounce arrives"):
        if bounces := scene.sink.of(SENDER):
            break
    assert b"one that will be refused" in bounces[0]
    assert b"550 5.1.1 never" in bounces[0]
    scene.home.wait_empty()
    assert len(scene.sink.of(SENDER)) == 1
    scene.disk.clear()
    wait_until_taken(scene.home)
    assert scene.home.stop() == 0


@pytest.mark.parametrize("killed", [False, True], ids=["goes on", "is killed"])
def test_nothing_accepted_is_lost_when_mail_fills_the_disk(scene: Scene, killed: bool) -> None:
    scene.disk.fill(leave=SIZE // 4)
    books = Books(scene.home, scene.sink)
    clients = Clients(scene.home, 1)
    for _ in Waiting("the disk has filled up"):
        if clients.refused[452] > 20:
            break
    scene.disk.fill()
    if killed:
        scene.home.kill()
    next_number = clients.stop()
    books.accepted |= clients.accepted
    scene.disk.clear()
    if killed:
        scene.home.start()
    more = Clients(scene.home, next_number)
    for _ in Waiting("mail is accepted again"):
        if len(more.accepted) > 20:
            break
    more.stop()
    books.accepted |= more.accepted
    scene.sink.kindness = 1.0
    account = books.drained()
    assert account.lost == [], scene.home.tail()
    assert account.torn == [], scene.home.tail()
    assert scene.home.stop() == 0
