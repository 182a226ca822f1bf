"""The verbs of `openqmail queue` on a real home, while its service runs and while it does not."""

import fcntl
import json
import os
import pty
import smtplib
import subprocess
from typing import Any

import pytest

from homes import Home, Waiting, command
from openqmail.core.commands import client, offline
from openqmail.core.control.home import Home as ControlHome
from openqmail.core.control.owner import as_owner


@pytest.fixture
def home(home: Home) -> Home:
    """Whose mail to down.example is deferred."""
    home.control("smtproutes", "down.example:[127.0.0.1]:9")
    home.start()
    return home


def send(home: Home, recipient: str, sender: str = "alice@a.example") -> int:
    """Hands a message in; its number, when it has been tried, or waits for a host that rests."""
    before = {one["id"] for one in home.queue()}
    with smtplib.SMTP("127.0.0.1", home.port, timeout=30) as smtp:
        smtp.sendmail(sender, [recipient], "Subject: hello\r\n\r\nhello\r\n")
    for _ in Waiting("it waits for a later time"):
        found = {one["id"]: one for one in home.queue() if one["id"] not in before}
        if found and all(one["recipients"][0]["next"] is not None for one in found.values()):
            return int(next(iter(found)))
    raise AssertionError


def states(home: Home) -> dict[int, str]:
    return {one["id"]: one["state"] for one in home.queue()}


def attempts(home: Home, number: int) -> int:
    [found] = [one for one in home.queue() if one["id"] == number]
    return int(found["recipients"][0]["attempts"])


def verb(home: Home, *words: object) -> tuple[int, dict[str, Any]]:
    """Exit code and the JSON of a verb."""
    ran = home.run("queue", *words, "--json", check=False)
    return ran.returncode, json.loads(ran.stdout)


def test_hold_release_and_retry_while_the_service_runs(home: Home) -> None:
    first, second = send(home, "x@down.example"), send(home, "y@down.example")
    ran = home.run("queue", "hold", first, second, "--reason", "looks odd")
    assert ran.stdout == "2 messages held\n"
    assert states(home) == {first: "held", second: "held"}
    assert "held: looks odd" in home.run("queue", "list").stdout
    assert home.status()["queue"]["held"] == 2
    assert verb(home, "hold", first) == (
        1,
        {"done": [], "missed": [{"number": first, "why": "is held already"}], "later": []},
    )
    assert home.run("queue", "release", first).stdout == "1 message released\n"
    assert home.run("queue", "release", first, check=False).returncode == 1
    ran = home.run("queue", "retry", first, second, check=False)
    assert (ran.returncode, ran.stdout) == (0, "1 message will be tried now\n")
    assert f"message {second} is held" in ran.stderr
    for _ in Waiting("it is tried again"):
        if attempts(home, first) == 2:
            break
    assert attempts(home, second) == 1
    assert f"message {first} held by the administrator: looks odd" in home.tail()


def test_held_mail_stays_held_over_a_restart_and_is_not_flushed(home: Home) -> None:
    number = send(home, "x@down.example")
    home.run("queue", "hold", number)
    assert home.stop() == 0, home.tail()
    assert states(home) == {number: "held"}
    home.start()
    home.run("queue", "flush")
    assert states(home) == {number: "held"} and attempts(home, number) == 1


def test_delete_while_the_service_runs(home: Home) -> None:
    number = send(home, "x@down.example")
    assert verb(home, "delete", number, "--yes") == (0, {"done": [number], "missed": [], "later": []})
    assert home.queue() == []
    assert verb(home, "delete", number, "--yes") == (
        1,
        {"done": [], "missed": [{"number": number, "why": "is not in the queue"}], "later": []},
    )
    assert f"message {number} deleted by the administrator" in home.tail()
    assert home.mails("alice") == []


def test_bounce_while_the_service_runs(home: Home) -> None:
    number = send(home, "x@down.example")
    home.run("queue", "bounce", number, "--yes", "--text", "Not today.")
    [bounce] = home.wait_mails("alice", 1)
    assert b"\n<x@down.example>:\nNot today.\n" in bounce
    assert b"\nFinal-Recipient: rfc822; x@down.example\n" in bounce
    home.wait_empty()


@pytest.mark.parametrize("running", [True, False])
def test_held_mail_can_be_deleted_and_given_back(home: Home, running: bool) -> None:
    gone, given, left = (send(home, f"x{count}@down.example") for count in range(3))
    home.run("queue", "hold", gone, given, left)
    if not running:
        assert home.stop() == 0, home.tail()
    home.run("queue", "delete", gone, "--yes")
    home.run("queue", "bounce", given, "--yes")
    if not running:
        home.start()
    [bounce] = home.wait_mails("alice", 1)
    assert b"<x1@down.example>:\nThe administrator" in bounce
    home.wait_empty(but=1)
    assert states(home) == {left: "held"}


def test_settle_is_for_a_service_that_is_stopped(home: Home) -> None:
    ran = home.run("queue", "settle", check=False)
    assert ran.returncode == 100 and "end it with TERM" in ran.stderr


def test_the_verbs_while_no_service_runs(home: Home) -> None:
    numbers = [send(home, f"x{count}@down.example") for count in range(4)]
    assert home.stop() == 0, home.tail()
    tried, gone, given, kept = numbers  # the host rests after two
    assert home.run("queue", "delete", gone, "--yes").stdout == "1 message deleted\n"
    ran = home.run("queue", "bounce", given, "--yes")
    assert ran.stdout == "1 message will be given back when the service starts\n"
    home.run("queue", "hold", kept, "--reason", "x")
    assert verb(home, "release", tried)[0] == 1
    home.run("queue", "retry", tried)
    assert states(home) == {given: "bouncing", kept: "held", tried: "deferred"}
    home.start()
    [bounce] = home.wait_mails("alice", 1)
    assert b"<x2@down.example>:\nThe administrator gave this message back. (#5.0.0)\n" in bounce
    for _ in Waiting("the one to retry is tried"):
        if attempts(home, tried) == 2:
            break
    for _ in Waiting("the bounce has left the queue"):
        if states(home) == {kept: "held", tried: "deferred"}:
            break


def test_flush_and_settle_while_no_service_runs(home: Home) -> None:
    number = send(home, "x@down.example")
    home.kill()
    ran = home.run("queue", "settle")
    assert ran.stdout == "1 message in qmail's own files\n"
    assert home.run("queue", "settle", "--json").stdout == '{"messages":1,"held":0,"left":0}\n'
    assert "1 message that waited will be tried when the service starts" in home.run("queue", "flush").stdout
    assert b"Subject: hello" in home.run("queue", "show", number).stdout.encode()
    home.start()
    for _ in Waiting("it is tried at the start"):
        if attempts(home, number) == 2:
            break


def test_a_queue_with_held_mail_is_not_said_to_be_fit_for_another_qmail(home: Home) -> None:
    """Which would not see it."""
    kept, freed = (send(home, f"x{count}@down.example") for count in range(2))
    home.run("queue", "hold", kept, freed)
    assert home.stop() == 0, home.tail()
    ran = home.run("queue", "settle", check=False)
    assert (ran.returncode, ran.stdout) == (100, "0 messages in qmail's own files\n")
    assert ran.stderr.startswith("openqmail: 2 messages are held, which no other qmail sees; release them ")
    home.run("queue", "release", freed)
    ran = home.run("queue", "settle", "--json", check=False)
    assert (ran.returncode, json.loads(ran.stdout)) == (100, {"messages": 2, "held": 1, "left": 0})
    assert ran.stderr.startswith("openqmail: 1 message is held, ") and ran.stderr.count("\n") == 1
    home.run("queue", "release", kept)
    assert home.run("queue", "settle").stdout == "2 messages in qmail's own files\n"


def test_a_home_that_somebody_else_works_on_is_left_alone(home: Home) -> None:
    number = send(home, "x@down.example")
    assert home.stop() == 0, home.tail()
    with (home.path / "run/lock").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for words in (("hold", number), ("delete", number, "--yes"), ("flush",), ("settle",)):
            ran = home.run("queue", *words, check=False)
            assert ran.returncode == 111, words
            assert "try again" in ran.stderr and len(ran.stderr.splitlines()) == 1
        assert states(home) == {number: "deferred"}, "looking needs no lock"


def test_nothing_is_destroyed_unasked(home: Home) -> None:
    number = send(home, "x@down.example")
    for name in ("delete", "bounce"):
        ran = home.run("queue", name, number, check=False)
        assert ran.returncode == 100 and "add --yes" in ran.stderr
    assert states(home) == {number: "deferred"}


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("\n", 1), ("y\n", 0)])
def test_on_a_terminal_it_asks_naming_count_and_senders(home: Home, answer: str, code: int) -> None:
    numbers = [send(home, "x@down.example"), send(home, "y@down.example", "bob@a.example")]
    master, slave = pty.openpty()
    os.write(master, answer.encode())
    ran = subprocess.run(
        [*command(), "--home", str(home.path), "queue", "delete", *map(str, [*numbers, 999])],
        stdin=slave,
        capture_output=True,
        text=True,
        timeout=30,
    )
    os.close(master)
    os.close(slave)
    assert ran.returncode == code
    question = "Delete 2 messages from <alice@a.example>, <bob@a.example>, telling nobody? [y/N] "
    assert ran.stderr.startswith(question)
    assert ("message 999 is not in the queue" in ran.stderr) == (code == 0)
    assert len(home.queue()) == (0 if code == 0 else 2)


@pytest.mark.parametrize("running", [True, False])
def test_what_was_agreed_to_is_done_to_no_message_that_came_later_under_the_number(
    home: Home, running: bool
) -> None:
    """Between the question and the answer the message that was asked about has ended."""
    number = send(home, "x@down.example")
    queue: Any = client
    if not running:
        home.stop()
        queue = offline
    there = ControlHome(home.path)
    with as_owner(there):
        lines = b"".join(queue.messages(there, [number])).splitlines()
        acted = queue.act(there, "delete", [number], ["0f" * 24])
        assert [one.number for one in acted.missed] == [number] and not acted.done
        assert queue.act(there, "delete", [number], [json.loads(lines[0])["key"]]).done == (number,)
    assert not home.queue()


def test_more_numbers_than_one_request_takes(home: Home) -> None:
    number = send(home, "x@down.example")
    code, acted = verb(home, "retry", *range(10**12, 10**12 + 2500), number)
    assert code == 0 and acted["done"] == [number] and len(acted["missed"]) == 2500
