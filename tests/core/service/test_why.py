"""`openqmail why` beside a running service: what happened to messages, what rests; and in a home of
root's, where users' files are looked at as the users."""

import json
import os
import signal
import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from homes import Home, Waiting, free_port
from sink import Sink
from system_homes import SystemHome, system_home
from system_users import name_of

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a home of root's")


def send(home: Home, *recipients: str, sender: str = "s@a.example") -> int:
    """The number of a message to them."""
    with smtplib.SMTP("127.0.0.1", home.port, timeout=30) as smtp:
        smtp.ehlo()
        smtp.mail(sender)
        for one in recipients:
            assert smtp.rcpt(one)[0] == 250
        code, text = smtp.data(b"Subject: x\r\n\r\nx\r\n")
        assert code == 250
        return int(text.split()[-1])


def why(home: Home, *words: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(home.run("why", *words, "--json", check=False).stdout)
    return found


def wait_for(home: Home, number: int, event: str, **facts: Any) -> dict[str, Any]:
    """Until the record has it."""
    for _ in Waiting(f"the record of {number} has {event} {facts}", pause=0.05):
        found = why(home, "--message", number)
        for life in found["lives"]:
            for one in life:
                if one["event"] == event and facts.items() <= one.items():
                    return found
    raise AssertionError


def events(found: dict[str, Any]) -> list[str]:
    return [one["event"] for one in found["lives"][-1]]


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as made:
        yield made


def test_a_delivered_message_and_its_forward(home: Home) -> None:
    home.start()
    number = send(home, "postmaster@a.example")
    found = wait_for(home, number, "end")
    assert events(found) == ["accepted", "starting", "made", "delivery", "end"]
    accepted, starting, made, delivery, _ = found["lives"][0]
    assert accepted["sender"] == "s@a.example"
    assert accepted["uid"] == home.path.stat().st_uid
    assert (starting["channel"], starting["recipient"]) == ("local", "postmaster@a.example")
    assert delivery["outcome"] == "success"
    child = wait_for(home, made["child"], "end")["lives"][0]
    assert (child[0]["made"], child[0]["parent"]) == ("forward", number)
    assert found["queue"] is None
    ran = home.run("why", "--message", number)
    assert f"a forward was made of it: message {made['child']}" in ran.stdout
    assert ran.stdout.endswith("now: not in the queue\n")


def test_a_bounce_a_deferral_and_what_an_administrator_does(home: Home, sink: Sink) -> None:
    home.control("smtproutes", sink.routes())
    home.start()
    number = send(home, "x@later.example", "y@bad.example", "alice@a.example")
    found = wait_for(home, number, "delivery", outcome="deferral")
    home.run("queue", "hold", number, "--reason", "odd")
    assert why(home, "--message", number)["queue"]["held"] == "odd"
    home.run("queue", "release", number)
    home.run("queue", "bounce", number, "--yes")
    found = wait_for(home, number, "made", made="bounce")
    texts = " ".join(one.get("text", "") for one in found["lives"][0])
    for words in (
        "nobody of that name",
        "not now",
        "held by the administrator: odd",
        "released",
        "given back",
    ):
        assert words in texts
    bounce = next(one["child"] for one in found["lives"][0] if one["event"] == "made")
    first = wait_for(home, bounce, "accepted")["lives"][0][0]
    assert (first["made"], first["parent"], first["sender"]) == ("bounce", number, "")


def test_why_a_name_could_not_be_looked_up_stands_in_the_log_and_in_the_record(home: Home) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]  # where nobody listens in a moment
    home.control("resolvers", f"127.0.0.1:{port}\n")
    home.start()
    number = send(home, "x@far.example")
    found = wait_for(home, number, "warning")
    told = next(one["text"] for one in found["lives"][-1] if one["event"] == "warning")
    asked = f"looking up MX of far.example failed: 127.0.0.1:{port} cannot be asked: Connection refused"
    assert told == f"msg {number}: mail for far.example waits: {asked}"
    assert f"warning: {told}" in home.tail()
    assert asked in home.run("why", "--message", number).stdout


def test_the_record_outlives_the_service_and_a_restart_goes_on_with_it(home: Home, sink: Sink) -> None:
    home.control("smtproutes", sink.routes())
    home.start()
    number = send(home, "x@later.example")
    wait_for(home, number, "delivery", outcome="deferral")
    assert home.stop() == 0
    found = why(home, "--message", number)
    assert events(found) == ["accepted", "starting", "delivery"]
    assert found["queue"]["recipients"][0]["state"] == "todo"
    sink.kindness = 1.0
    home.start()
    home.run("queue", "retry", number)
    found = wait_for(home, number, "end")
    assert events(found)[:3] == ["accepted", "starting", "delivery"]
    assert len(found["lives"]) == 1
    assert "history" not in home.tail()  # the queue does not take its folder for a stray one


def test_a_clean_stop_leaves_nothing_out(home: Home) -> None:
    home.start()
    number = send(home, "alice@a.example")
    home.wait_mails("alice", 1)
    assert home.stop() == 0
    assert events(why(home, "--message", number)) == ["accepted", "starting", "delivery", "end"]


def test_no_days_keep_nothing_from_a_reload_on(home: Home) -> None:
    home.start()
    number = send(home, "alice@a.example")
    wait_for(home, number, "end")
    home.control("historydays", "0")
    home.signal(signal.SIGHUP)
    for _ in Waiting("what was kept is gone"):
        if not list((home.path / "queue/history").iterdir()):
            break
    send(home, "alice@a.example")
    home.wait_mails("alice", 2)
    assert home.stop() == 0
    assert list((home.path / "queue/history").iterdir()) == []
    ran = home.run("why", "--message", number, check=False)
    assert ran.returncode == 1 and "historydays" in ran.stdout


def test_a_record_that_cannot_be_written_holds_no_mail_up(home: Home) -> None:
    folder = home.path / "queue/history"
    folder.symlink_to("/nowhere/at/all")
    home.start()
    for count in range(1, 4):
        send(home, "alice@a.example")
        home.wait_mails("alice", count)
    for _ in Waiting("the alert"):
        if "alert: the record of what happens to messages has a gap" in home.tail():
            break
    assert home.stop() == 0
    assert home.tail(100_000).count("has a gap") == 1


def test_a_destination_that_rests_is_told(home: Home) -> None:
    port = free_port()
    home.control("smtproutes", f"dead.example:[127.0.0.1]:{port}")
    home.start()
    found = why(home, "x@dead.example")
    assert found["outcome"] == "success" and found["destination"] is None
    for one in "abc":
        send(home, f"{one}@dead.example")
    for _ in Waiting("the destination rests", pause=0.05):
        found = why(home, "x@dead.example")
        if found["outcome"] == "deferral":
            break
    assert found["destination"]["resting_until"]
    assert "left alone until" in found["steps"][-1]["text"]
    number = send(home, "late@dead.example")
    present = why(home, "--message", number)["queue"]["recipients"][0]
    assert present["destination"]["name"] == "dead.example" and present["attempts"] == 0
    told = home.run("why", "--message", number).stdout
    assert "dead.example is left alone until" in told and "since it failed 2 times: Sorry, I wasn't" in told
    assert "destination dead.example rests: seconds " in home.tail()
    first = next(one["id"] for one in home.queue() if one["recipients"][0]["attempts"])
    assert f"no connection: 127.0.0.1 port {port}: connection refused" in (
        home.run("why", "--message", first).stdout
    )
    ran = home.run("why", "x@dead.example", check=False)
    assert ran.returncode == 111
    assert home.run("why", "x@other.example", check=False).stdout.count("destination: nothing") == 1


def test_what_the_service_has_not_taken_yet_is_told(home: Home) -> None:
    home.start()
    file = home.path / "control/defaultdelivery"
    taken = json.loads(home.run("status", "--json").stdout)["settings"]
    assert not [one for one in why(home, "alice@a.example")["steps"] if "not yet taken" in one["text"]]
    for _ in Waiting("a change that is surely younger"):
        file.write_text("./Maildir/\n")
        if file.stat().st_ctime > taken + 1:
            break
    steps = why(home, "alice@a.example")["steps"]
    assert {
        "what": "control/defaultdelivery",
        "text": "is not yet taken by the service: send it a HUP",
    } in steps
    home.signal(signal.SIGHUP)
    for _ in Waiting("it is taken"):
        steps = why(home, "alice@a.example")["steps"]
        if not [one for one in steps if "not yet taken" in one["text"]]:
            break


def test_what_the_service_has_not_taken_yet_is_told_by_a_queue_process_that_came_after_it(home: Home) -> None:
    """It has the settings of its supervisor, who read them before."""
    home.start()
    file, before = home.path / "control/locals", home.status()
    for _ in Waiting("a change that is surely younger"):
        file.write_text("a.example\nnew.example\n")
        if file.stat().st_ctime > before["settings"] + 1:
            break
    [old] = [one["pid"] for one in before["processes"] if one["name"] == "send"]
    os.kill(old, signal.SIGKILL)
    for _ in Waiting("another is there"):
        told = home.run("status", "--json", check=False).stdout
        now = json.loads(told) if told else before
        if old not in [one["pid"] for one in now["processes"]]:
            break
    assert now["settings"] == before["settings"]
    steps = why(home, "x@new.example")["steps"]
    assert [one["what"] for one in steps if "not yet taken" in one["text"]] == ["control/locals"]


@pytest.fixture
def system() -> Iterator[SystemHome]:
    with system_home("alice", "bob") as made:
        yield made


@ROOT
def test_in_a_home_of_roots_users_files_are_looked_at_as_the_user(system: SystemHome, tmp_path: Path) -> None:
    home, alice = system, system.people["alice"]
    found = why(home, home.address("alice"))
    assert found["outcome"] == "success"
    assert f"uid {alice.pw_uid}" in found["steps"][1]["text"]
    secret = tmp_path / "secret"
    secret.write_text("&told@secret.example\n")
    secret.chmod(0o600)
    tmp_path.chmod(0o755)
    link = Path(alice.pw_dir) / ".qmail-x"
    link.symlink_to(secret)  # root could read it; she cannot
    found = why(home, home.address("alice", "x"))
    assert found["outcome"] == "deferral"
    assert "secret.example" not in json.dumps(found)
    home.write("alice", ".qmail-y", "&far@c.example\n")
    found = why(home, home.address("alice", "y"))
    assert any("far@c.example" in one["text"] for one in found["steps"] if one["what"] == "forward")
    os.mkfifo(Path(alice.pw_dir) / ".qmail-z")
    assert why(home, home.address("alice", "z"))["outcome"] == "failure"


@ROOT
def test_in_a_home_of_roots_the_record_is_sends(system: SystemHome, sink: Sink) -> None:
    home = system
    home.control("smtproutes", sink.routes())
    home.start()
    number = send(home, home.address("alice"), "x@sink.example")
    found = wait_for(home, number, "end")
    assert events(found).count("delivery") == 2
    folder = home.path / "queue/history"
    send_uid = home.account("send").pw_uid
    for path in (folder, *folder.iterdir()):
        assert path.stat().st_uid == send_uid
        assert path.stat().st_mode & 0o077 == 0
    assert home.run("check", check=False).returncode == 0
    assert why(home, "x@sink.example")["outcome"] == "success"
    assert why(home, f"{name_of('bob')}@a.example")["outcome"] == "success"
    assert home.stop() == 0
    assert home.run("check", check=False).returncode == 0
    assert events(why(home, "--message", number))[-1] == "end"
