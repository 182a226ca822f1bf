"""A home of root's, whole, with users made for it: who each process is, and whose mail lies where.

Root only; one service for all of it, in the order of the file: its last tests stop it.
"""

import os
import pwd
import signal
import smtplib
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from homes import Waiting
from openqmail.core.control import User, Users
from openqmail.core.control.assign import Assignment, compile_cdb
from sink import Sink
from system_homes import ROLES, SystemHome, system_home

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users and runs as them")

SENDER = "someone@client.example"
CLEAN = "owners and modes are as they should be\n"


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with Sink() as made:
        yield made


@pytest.fixture(scope="module")
def stopped(sink: Sink) -> Iterator[SystemHome]:
    with system_home("alice", "bob", "carol") as home:
        home.control("smtproutes", sink.routes())
        home.control("checkrcpt", "0")  # a user has one worker, which delivers
        home.write("alice", ".qmail-on", f"&{home.address('bob')}\n&far@sink.example\n")
        yield home


@pytest.fixture(scope="module")
def served(stopped: SystemHome) -> SystemHome:
    assert stopped.run("check").stdout.endswith(CLEAN), "before it runs"
    stopped.start()
    return stopped


@pytest.fixture
def home(served: SystemHome) -> Iterator[SystemHome]:
    """With empty Maildirs and an empty queue."""
    for who in served.people:
        for file in (served.maildir(who) / "new").iterdir():
            file.unlink()
    yield served
    if left := served.queue():
        served.run("queue", "delete", "--yes", *(one["id"] for one in left), check=False)


def send(home: SystemHome, *recipients: str, body: str = "hello", sender: str = SENDER) -> None:
    text = f"Subject: {body[:20]}\r\n\r\n{body}\r\n"
    with smtplib.SMTP("127.0.0.1", home.port, "client.example", 20) as client:
        assert client.sendmail(sender, recipients, text) == {}


def size(home: SystemHome) -> int:
    """Of its log, for `logged`."""
    return home.log.stat().st_size


def logged(home: SystemHome, what: str, before: int) -> None:
    """Waits until the log says this behind the byte `before`."""
    for _ in Waiting(f"the log says {what!r}\n{home.tail()}"):
        if what.encode() in home.log.read_bytes()[before:]:
            return


def facts(pid: int) -> dict[str, list[str]]:
    """/proc/PID/status"""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


# --- who they are -------------------------------------------------------------------------


def assert_is(pid: int, who: pwd.struct_passwd) -> None:
    found = facts(pid)
    assert found["Uid"] == [str(who.pw_uid)] * 4
    assert found["Gid"] == [str(who.pw_gid)] * 4
    assert found["Groups"] == [str(who.pw_gid)]
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(found[name][0], 16) == 0, name


def assert_closed(pid: int) -> None:
    """No core dumps; not dumpable: its files in /proc are root's, whoever it is."""
    assert os.stat(f"/proc/{pid}/mem").st_uid == 0
    (core,) = [one for one in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file" in one]
    assert core.split()[-3:-1] == ["0", "0"]


@pytest.mark.parametrize("role", ROLES)
def test_each_process_is_its_user_and_no_more(role: str, served: SystemHome) -> None:
    pid = served.pids()[role]
    assert_is(pid, served.account(role))
    assert_closed(pid)
    assert facts(pid)["NoNewPrivs"] == ["1"]


def test_the_spawner_is_root_and_leaves_no_core(served: SystemHome) -> None:
    pid = served.pids()["local"]
    assert facts(pid)["Uid"] == ["0"] * 4
    assert_closed(pid)


def test_a_worker_is_the_user_whose_mail_it_delivers(home: SystemHome) -> None:
    send(home, home.address("alice"), home.address("bob"))
    home.wait_mails("alice", 1)
    home.wait_mails("bob", 1)
    workers = home.workers()
    for who in ("alice", "bob"):
        entry = home.people[who]
        assert_is(workers[entry.pw_uid], entry)
        assert_closed(workers[entry.pw_uid])
        assert facts(workers[entry.pw_uid])["NoNewPrivs"] == ["0"], "programs of users may be setuid"


def test_status_names_each_with_its_uid(served: SystemHome) -> None:
    found = {one["name"]: one["uid"] for one in served.status()["processes"] if one["name"] != "worker"}
    assert found == {"supervisor": 0, "local": 0, **{role: served.account(role).pw_uid for role in ROLES}}


# --- mail ---------------------------------------------------------------------------------


def test_mail_lies_in_the_users_homes_as_theirs_alone(home: SystemHome) -> None:
    home.write("bob", ".qmail-list", "./Maildir/\n")
    send(home, home.address("alice"), home.address("bob", "list"), body="for two")
    for who in ("alice", "bob"):
        assert b"\n\nfor two\n" in home.wait_mails(who, 1)[0]
        entry = home.people[who]
        (file,) = (home.maildir(who) / "new").iterdir()
        found = file.stat()
        assert (found.st_uid, found.st_gid) == (entry.pw_uid, entry.pw_gid)
        assert stat.S_IMODE(found.st_mode) == 0o600


def test_neither_user_is_obeyed_in_the_others_home(home: SystemHome) -> None:
    """What a `.qmail` file names is reached as its user."""
    home.write("alice", ".qmail-theft", f"{home.maildir('bob')}/\n")
    before = size(home)
    send(home, home.address("alice", "theft"))
    logged(home, "deferral: Unable_to_chdir_to_maildir", before)
    assert home.mails("bob") == []


def test_a_forward_and_a_bounce_go_their_way(home: SystemHome, sink: Sink) -> None:
    taken = len(sink.of("far@sink.example"))
    send(home, home.address("alice", "on"), body="forwarded")
    assert b"forwarded" in home.wait_mails("bob", 1)[0]
    for _ in Waiting("the sink has it"):
        if len(sink.of("far@sink.example")) > taken:
            break
    send(home, home.address("bob", "nowhere"), sender=home.address("carol"), body="comes back")
    bounces = b"".join(home.wait_mails("carol", 1))
    assert b"no mailbox here by that name" in bounces
    assert b"comes back" in bounces


def test_mail_for_the_unknown_is_aliass(home: SystemHome) -> None:
    alias = home.account("alias")
    folder = home.path / "alias"
    (folder / ".qmail-default").write_text("./Mailbox.d/\n")
    for name in ("Mailbox.d", "Mailbox.d/tmp", "Mailbox.d/new", "Mailbox.d/cur"):
        (folder / name).mkdir(mode=0o700)
        os.chown(folder / name, alias.pw_uid, alias.pw_gid)
    send(home, f"stranger@{home.me}", body="whose")
    for _ in Waiting(f"alias has it\n{home.tail()}"):
        if files := list((folder / "Mailbox.d" / "new").iterdir()):
            break
    (folder / ".qmail-default").unlink()
    assert files[0].stat().st_uid == alias.pw_uid
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    assert_is(home.workers()[alias.pw_uid], alias)


def test_postmasters_mail_goes_to_the_first_user(home: SystemHome) -> None:
    send(home, f"postmaster@{home.me}", body="to whom it may concern")
    assert b"concern" in home.wait_mails("alice", 1)[0]


def test_a_large_message_crosses_as_a_descriptor(home: SystemHome) -> None:
    line = "0123456789" * 7
    body = "\r\n".join([line] * ((1 << 20) // 72))
    send(home, home.address("alice"), home.address("bob"), body=body)
    for who in ("alice", "bob"):
        (mail,) = home.wait_mails(who, 1)
        assert mail.count(line.encode() + b"\n") == (1 << 20) // 72
        (file,) = (home.maildir(who) / "new").iterdir()
        assert file.stat().st_uid == home.people[who].pw_uid


# --- what waits ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["unreadable", "missing", "another's"])
def test_a_home_that_cannot_be_had_defers(how: str, home: SystemHome) -> None:
    entry = home.people["carol"]
    folder, aside = Path(entry.pw_dir), Path(entry.pw_dir + ".aside")
    before = size(home)
    if how == "unreadable":
        folder.chmod(0)
    elif how == "missing":
        folder.rename(aside)
    else:
        os.chown(folder, 0, 0)
        folder.chmod(0o700)
    try:
        send(home, home.address("carol"), body="patience")
        logged(home, "deferral: Unable_to_switch_to_", before)
        (waiting,) = home.queue()
        assert waiting["recipients"][0]["state"] == "todo"
    finally:
        if how == "missing":
            aside.rename(folder)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        folder.chmod(0o755)
    assert home.mails("carol") == []
    home.signal(signal.SIGALRM)
    assert b"patience" in home.wait_mails("carol", 1)[0]


def test_root_gets_no_mail_whatever_users_cdb_says(home: SystemHome) -> None:
    cdb = home.path / "users" / "cdb"
    before, mark = cdb.read_bytes(), size(home)
    trap = home.room / "root"
    for name in ("", "Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"):
        (trap / name).mkdir(mode=0o700)
    cdb.with_name("new").write_bytes(
        compile_cdb([Assignment(b"toor", False, User(b"root", 0, 0, os.fsencode(trap), b"", b""))])
    )
    cdb.with_name("new").chmod(0o644)
    cdb.with_name("new").rename(cdb)
    assert Users(str(cdb)).find(b"toor") is not None
    try:
        send(home, f"toor@{home.me}")
        logged(home, "deferral: Not_allowed_to_perform_deliveries_as_root./", mark)
        (waiting,) = home.queue()
        home.run("queue", "delete", "--yes", waiting["id"])
    finally:
        cdb.with_name("new").write_bytes(before)
        cdb.with_name("new").chmod(0o644)
        cdb.with_name("new").rename(cdb)
    assert list((trap / "Maildir" / "new").iterdir()) == []


def test_what_another_host_puts_off_is_held_released_and_deleted_by_root(
    home: SystemHome, sink: Sink
) -> None:
    home.write("alice", ".qmail-later", "&far@later.example\n")
    before = size(home)
    send(home, home.address("alice", "later"), body="not yet")
    logged(home, "deferral: ", before)
    (waiting,) = home.queue()
    number = waiting["id"]
    home.run("queue", "hold", number)
    assert home.status()["queue"]["held"] == 1
    assert "not yet" in home.run("queue", "show", number).stdout
    home.run("queue", "release", number)
    assert home.status()["queue"]["held"] == 0
    sink.kindness = 1.0
    home.run("queue", "retry", number)
    for _ in Waiting("the sink has it"):
        if any(b"not yet" in one for one in sink.of("far@later.example")):
            break
    sink.kindness = 0.0
    home.wait_empty()
    before = size(home)
    send(home, home.address("alice", "later"), body="never")
    logged(home, "deferral: ", before)
    (waiting,) = home.queue()
    home.run("queue", "delete", "--yes", waiting["id"])


# --- the end ------------------------------------------------------------------------------


def foreign(home: SystemHome) -> list[str]:
    """What of the queue does not belong to `send`."""
    mine = home.account("send").pw_uid
    return [str(one) for one in (home.path / "queue").rglob("*") if one.lstat().st_uid != mine]


def test_check_has_nothing_to_say_while_it_runs(home: SystemHome) -> None:
    assert home.run("check").stdout.endswith(CLEAN)


def test_it_ends_when_it_is_told_and_the_queue_is_sends(served: SystemHome, sink: Sink) -> None:
    before = size(served)
    send(served, served.address("alice", "later"), body="stays")
    logged(served, "deferral: ", before)
    pids = served.pids().values()
    assert served.stop() == 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert foreign(served) == []
    assert served.run("check").stdout.endswith(CLEAN), "after it ran"


def test_roots_verbs_on_a_queue_that_nobody_serves_leave_it_sends(served: SystemHome) -> None:
    if served.process is not None:
        pytest.skip("the service was not stopped by the test before")
    (waiting,) = served.queue()
    number = waiting["id"]
    assert "stays" in served.run("queue", "show", number).stdout
    for verb in ("hold", "release", "retry"):
        served.run("queue", verb, number)
        assert foreign(served) == [], verb
    served.run("queue", "settle")
    served.run("queue", "delete", "--yes", number)
    assert foreign(served) == []
    assert served.run("check").stdout.endswith(CLEAN)


def test_a_second_start_goes_on_with_it(served: SystemHome) -> None:
    if served.process is not None:
        pytest.skip("the service was not stopped by the test before")
    served.start()
    send(served, served.address("carol"), body="again")
    assert b"again" in served.wait_mails("carol", 1)[-1]
    assert served.stop() == 0
    assert foreign(served) == []
