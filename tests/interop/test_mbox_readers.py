"""Mail programs of Debian read the mbox that we wrote, while more mail comes."""

import smtplib
import subprocess
from collections.abc import Callable, Iterator

import pytest

from homes import Home, Place, Waiting


@pytest.fixture
def served() -> Iterator[Home]:
    with Place() as place:
        home = place.home("a.example", "alice")
        home.control("defaultdelivery", "./Mailbox")
        home.start()
        yield home
        assert home.stop() == 0


def send(home: Home, *bodies: str) -> None:
    with smtplib.SMTP("127.0.0.1", home.port) as client:
        for body in bodies:
            client.sendmail("bob@a.example", ["alice@a.example"], body)


def test_a_mail_program_counts_and_shows_them(served: Home, program: Callable[[str], str]) -> None:
    send(
        served,
        "Subject: one\r\n\r\nFrom here on\r\n",
        "Subject: two\r\n\r\nx\r\n.\r\n",
        "Subject: three\r\n\r\n",
    )
    served.wait_empty()
    box = served.maildir("alice").parent / "Mailbox"
    for _ in Waiting("three mails are in the mbox"):
        if box.read_bytes().count(b"\nDelivered-To: alice@a.example\n") == 3:
            break
    command = [program("s-nail"), "-n", "-R", "-H", "-f", str(box)]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    assert [word for word in ("one", "two", "three") if word in listed] == ["one", "two", "three"]
    assert len(listed.splitlines()) == 3
