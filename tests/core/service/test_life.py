"""The life of a service as an administrator sees it: start, serve, reload, flush, drain, refuse."""

import os
import pwd
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import threading
from itertools import chain
from pathlib import Path

import pytest

import system_users
from homes import OWNER, Home, Place, Waiting, command, openqmail
from openqmail.core.control.home import Home as Service
from openqmail.core.control.strangers import roots_alone
from openqmail.core.values import HomeError
from system_homes import system_home


def send(home: Home, recipient: str, text: str = "hello", sender: str = "s@c.example") -> None:
    with smtplib.SMTP("127.0.0.1", home.port, timeout=30) as smtp:
        smtp.sendmail(sender, [recipient], f"Subject: {text}\r\n\r\n{text}\r\n")


def wait_log(home: Home, text: str) -> None:
    for _ in Waiting(f"the log of {home.me} says {text!r}"):
        if text in home.tail(100_000):
            return


def test_run_says_on_one_line_that_it_serves_and_status_agrees(home: Home) -> None:
    assert home.run("status", check=False).returncode == 100
    home.start()
    [line] = home.tail().splitlines()
    assert f"serving {home.path}: smtp 127.0.0.1:{home.port}" in line
    assert home.run("status").returncode == 0
    status = home.status()
    assert (status["v"], status["state"]) == (1, "serving")
    assert status["listen"] == [{"service": "smtp", "address": f"127.0.0.1:{home.port}"}]
    assert status["pid"] == int((home.path / "run/lock").read_text())
    processes = {one["name"]: one for one in status["processes"]}
    assert set(processes) == {"supervisor", "gate", "local", "remote", "send", "smtpd"}
    assert processes["supervisor"]["pid"] == status["pid"]
    assert all(one["rss"] > 1_000_000 and one["generation"] == 1 for one in processes.values())
    sums = dict.fromkeys(("messages", "recipients", "deferred", "held", "bytes", "unreadable"), 0)
    assert status["queue"] == {**sums, "full": False}
    assert home.stop() == 0
    assert home.run("status", check=False).returncode == 100
    assert "status: exiting" in home.tail()


def test_a_second_run_is_refused_naming_the_first(home: Home) -> None:
    home.start()
    pid = home.status()["pid"]
    refused = home.run("run", check=False)
    assert refused.returncode == 100
    assert f"process {pid}" in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert home.status()["state"] == "serving"


def test_a_port_in_use_is_one_sentence(home: Home) -> None:
    with socket.create_server(("127.0.0.1", home.port)):
        refused = home.run("run", check=False)
    assert refused.returncode == 100
    assert f"127.0.0.1:{home.port}" in refused.stderr and "control/listen" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_broken_control_file_stops_the_start_with_its_line(home: Home) -> None:
    home.control("rules", "127.:allow\nnonsense")
    refused = home.run("run", check=False)
    assert refused.returncode == 100 and "control/rules, line 2" in refused.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_root_becomes_the_owner_of_the_home(home: Home) -> None:
    home.start()
    assert {one["uid"] for one in home.status()["processes"]} == {pwd.getpwnam(OWNER).pw_uid}
    send(home, "alice@a.example")
    home.wait_mails("alice", 1)
    [file] = [*(home.maildir("alice") / "new").iterdir()]
    assert file.stat().st_uid == pwd.getpwnam(OWNER).pw_uid


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_nothing_of_root_stays_with_the_service(home: Home) -> None:
    home.spawn(groups=[0, 4, 27])
    home.wait_serving()
    owner = pwd.getpwnam(OWNER)
    tasks = [Path(f"/proc/{one['pid']}/task").iterdir() for one in home.status()["processes"]]
    for task in chain.from_iterable(tasks):
        lines = (task / "status").read_text().splitlines()
        facts = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        assert facts["Uid"] == [str(owner.pw_uid)] * 4
        assert facts["Gid"] == [str(owner.pw_gid)] * 4
        assert {*map(int, facts["Groups"])} == {*os.getgrouplist(OWNER, owner.pw_gid)}
        assert not {"0", "4", "27"} & {*facts["Groups"]}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a home away")
def test_a_home_of_roots_whose_processes_have_no_users_is_refused_with_the_remedy() -> None:
    with system_users.room() as room, Place(under=str(room)) as place:
        home = place.home("a.example", "alice")
        os.chown(place.path, 0, 0)
        home.control("accounts", "send nobody-has-this-name")
        for folder, _, files in os.walk(home.path):
            for name in (folder, *(os.path.join(folder, file) for file in files)):
                os.chown(name, 0, 0)
        refused = home.run("run", check=False)
        assert refused.returncode == 100 and "nobody-has-this-name" in refused.stderr
        checked = home.run("control", "check", check=False)
        assert checked.returncode == 100 and "nobody-has-this-name" in checked.stdout


def for_all_to_write(path: Path) -> None:
    path.chmod(0o777)


def another_s(path: Path) -> None:
    os.chown(path, pwd.getpwnam(OWNER).pw_uid, -1)


@pytest.mark.skipif(os.getuid() != 0, reason="only root serves a home of root's")
def test_root_serves_no_home_that_another_could_change() -> None:
    places = (".", "control", "control/me", "users", "users/cdb", "run", "..")
    damages = [(for_all_to_write, where) for where in places]
    damages += [(another_s, where) for where in places if where != "."]
    with system_home("alice") as home:
        for damage, where in damages:
            path = Path(os.path.normpath(home.path / where))
            before = path.stat()
            damage(path)
            refused = home.run("run", check=False)
            assert (refused.returncode, str(path) in refused.stderr) == (100, True), (where, refused)
            assert "openqmail check" in refused.stderr
            os.chown(path, 0, -1)
            path.chmod(before.st_mode & 0o7777)
        home.start()
        for_all_to_write(home.path / "control/me")
        home.signal(signal.SIGHUP)
        wait_log(home, f"the settings stay as they were: {home.path}: others may write to")


@pytest.mark.skipif(os.getuid() != 0, reason="only root serves a home of root's")
def test_root_serves_no_home_whose_logins_keys_or_pins_another_could_change() -> None:
    files = ("control/certs/b.example.pem", "control/tlshosts/b.example.pem", "control/notlshosts/c.example")
    secrets = ("users/smtpauth", "control/clientcert.pem", "control/credentials")
    with system_home("alice") as home:
        for name in (*files, *secrets):
            path = home.path / name
            path.parent.mkdir(mode=0o755, exist_ok=True)
            path.touch(0o600)
        served = Service(str(home.path))
        for role, name in (("gate", "users/smtpauth"), ("remote", "control/credentials")):
            os.chown(home.path / name, home.account(role).pw_uid, -1)
        roots_alone(served)  # a secret may be its one reader's
        for name in (*files, *(os.path.dirname(one) for one in files), *secrets):
            path = home.path / name
            before = path.stat()
            for damage in (for_all_to_write, another_s):
                damage(path)
                with pytest.raises(HomeError, match=re.escape(str(path))):
                    roots_alone(served)
                os.chown(path, before.st_uid, -1)
                path.chmod(before.st_mode & 0o7777)
        for_all_to_write(home.path / "control/tlshosts")
        refused = home.run("run", check=False)
        assert (refused.returncode, "control/tlshosts" in refused.stderr) == (100, True), refused


@pytest.mark.parametrize("part", ["mess", "."])
def test_a_queue_that_is_missing_stops_the_start_and_the_remedy_mends_it(home: Home, part: str) -> None:
    queue = home.path / "queue"
    shutil.rmtree(queue / part)
    refused = home.run("run", check=False)
    assert refused.returncode == 100
    assert f"{queue / part} is missing" in refused.stderr
    remedy = refused.stderr.rpartition("or: ")[2]
    assert "openqmail init" not in refused.stderr and "status: exiting" not in refused.stderr
    assert remedy.strip() in home.run("check", check=False).stdout
    subprocess.run(remedy, shell=True, check=True)
    home.start()
    send(home, "alice@a.example")
    home.wait_mails("alice", 1)


def test_a_disk_that_takes_nothing_is_for_later_and_named(home: Home) -> None:
    """As a full one is; what may pass must not keep a supervisor from starting it again."""
    run = ["prlimit", "--fsize=0", *command(), "--home", str(home.path), "run"]
    refused = subprocess.run(run, capture_output=True, text=True)
    assert refused.returncode == 111
    assert f"{home.path}/run/lock cannot be written: " in refused.stderr and "make room" in refused.stderr


def test_a_service_that_is_not_installed_is_one_sentence(home: Home) -> None:
    home.control("listen", f"smtpx 127.0.0.1:{home.port}")
    refused = home.run("run", check=False)
    assert refused.returncode == 100
    [line] = refused.stderr.splitlines()
    assert "smtpx" in line


def test_hup_takes_new_settings_whole_or_not_at_all(home: Home) -> None:
    home.start()
    home.control("locals", "a.example\nnew.example")
    home.control("rcpthosts", "broken domain!\n")
    home.signal(signal.SIGHUP)
    wait_log(home, "the settings stay as they were: control/rcpthosts, line 1")
    send(home, "alice@new.example")  # control/locals, which is well, was not taken alone
    wait_log(home, "to remote alice@new.example")
    home.control("rcpthosts", "a.example\nnew.example")
    home.signal(signal.SIGHUP)
    wait_log(home, "took the new settings")
    send(home, "alice@new.example")
    assert home.wait_mails("alice", 1)
    assert home.stop() == 0


def test_hup_brings_the_gate_new_limits(home: Home) -> None:
    home.control("rules", "127.:allow")  # who may relay is not counted
    home.start()
    assert greeting(home)[:3] == b"220"
    for limit, code in (("1", b"421"), ("0", b"220")):
        home.control("connectionsperhour", limit)
        home.signal(signal.SIGHUP)
        for _ in Waiting(f"a limit of {limit} is in force", pause=0.05):
            if greeting(home)[:3] == code:
                break


def greeting(home: Home) -> bytes:
    with socket.create_connection(("127.0.0.1", home.port), 10) as peer, peer.makefile("rb") as file:
        return file.readline()


def test_hup_opens_and_closes_listeners(home: Home) -> None:
    from homes import free_port

    home.start()
    port, before = free_port(), home.port
    home.control("listen", f"smtp 127.0.0.1:{port}")
    home.signal(signal.SIGHUP)
    wait_log(home, "took the new settings")
    home.port = port
    send(home, "alice@a.example")
    home.wait_mails("alice", 1)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", before), 5)


def test_a_deferred_message_is_listed_and_tried_at_alrm_and_at_flush(home: Home) -> None:
    home.control("smtproutes", "down.example:[127.0.0.1]:9")
    home.start()
    send(home, "x@down.example")
    wait_log(home, "deferral")
    [message] = home.queue()
    [recipient] = message["recipients"]
    assert (message["state"], message["sender"]) == ("deferred", "s@c.example")
    assert (recipient["address"], recipient["channel"], recipient["state"]) == (
        "x@down.example",
        "remote",
        "todo",
    )
    assert recipient["attempts"] == 1 and recipient["next"] > message["born"]
    home.signal(signal.SIGALRM)
    for _ in Waiting("ALRM tries it again"):
        if home.queue()[0]["recipients"][0]["attempts"] == 2:
            break
    assert "1 message" in home.run("queue", "flush").stdout
    for _ in Waiting("flush tries it again"):
        if home.queue()[0]["recipients"][0]["attempts"] == 3:
            break
    assert b"Subject: hello" in home.run("queue", "show", str(message["id"])).stdout.encode()
    assert home.stop() == 0
    [again] = home.queue()
    assert again["key"] == message["key"]


def test_a_clean_stop_leaves_everything_in_qmails_layout(home: Home) -> None:
    home.control("smtproutes", "down.example:[127.0.0.1]:9")
    home.control("concurrencylocal", "0")
    home.start()
    send(home, "x@down.example")
    send(home, "alice@a.example", "new ones too")
    wait_log(home, "deferral")
    assert home.stop() == 0, home.tail()
    numbers = {str(one["id"]) for one in home.queue()}
    queue = home.path / "queue"
    assert len(numbers) == 2
    for folder in ("mess", "info"):
        assert {file.name for file in (queue / folder).glob("*/*")} == numbers
    [local] = (queue / "local").glob("*/*")
    [remote] = (queue / "remote").glob("*/*")
    assert local.read_bytes() == b"Talice@a.example\0" and remote.read_bytes() == b"Tx@down.example\0"
    home.control("concurrencylocal", "10")
    home.start()
    [mail] = home.wait_mails("alice", 1)
    assert b"new ones too" in mail


def test_term_lets_a_message_under_way_finish(home: Home) -> None:
    home.start()
    peer = socket.create_connection(("127.0.0.1", home.port), 10)
    file = peer.makefile("rwb")
    file.readline()
    file.write(b"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<alice@a.example>\r\nDATA\r\n")
    file.flush()
    assert [file.readline()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]
    home.signal(signal.SIGTERM)
    wait_for_refusal(home)
    file.write(b"last one\r\n.\r\n")
    file.flush()
    assert file.readline()[:3] == b"250"
    assert file.readline()[:3] == b"421"
    assert home.process is not None and home.process.wait(30) == 0
    assert b"last one" in home.mails("alice")[0]


def test_a_ctrl_c_that_all_processes_get_is_one_term(home: Home) -> None:
    home.start()
    peer = socket.create_connection(("127.0.0.1", home.port), 10)
    file = peer.makefile("rwb")
    file.readline()
    file.write(b"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<alice@a.example>\r\nDATA\r\n")
    file.flush()
    assert [file.readline()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]
    assert home.process is not None
    os.killpg(home.process.pid, signal.SIGINT)
    wait_for_refusal(home)
    file.write(b"last one\r\n.\r\n")
    file.flush()
    assert file.readline()[:3] == b"250"
    assert home.process.wait(30) == 0
    assert b"last one" in home.mails("alice")[0]


def wait_for_refusal(home: Home) -> None:
    for _ in Waiting("the listener is closed"):
        try:
            socket.create_connection(("127.0.0.1", home.port), 5).close()
        except OSError:
            return


def test_a_kill_loses_nothing_that_was_accepted(home: Home) -> None:
    home.control("concurrencylocal", "0")
    home.start()
    for count in range(20):
        send(home, "alice@a.example", f"mail {count}")
    home.kill()
    assert len(home.queue()) == 20
    home.control("concurrencylocal", "10")
    home.start()
    mails = home.wait_mails("alice", 20)
    assert {mail.rpartition(b"\n\n")[2] for mail in mails} == {b"mail %d\n" % count for count in range(20)}
    home.wait_empty()
    assert len(home.mails("alice")) == 20


def test_a_large_message_survives_a_kill(home: Home) -> None:
    home.control("concurrencylocal", "0")
    home.start()
    line = "x" * 70
    text = "\r\n".join(line + str(count) for count in range(40_000))
    send(home, "alice@a.example", text=text[:10], sender="s@c.example")
    with smtplib.SMTP("127.0.0.1", home.port, timeout=30) as smtp:
        smtp.sendmail("s@c.example", ["alice@a.example"], "Subject: big\r\n\r\n" + text + "\r\n")
    home.kill()
    home.control("concurrencylocal", "10")
    home.start()
    mails = home.wait_mails("alice", 2)
    big = max(mails, key=len)
    assert big.partition(b"\n\n")[2] == text.replace("\r\n", "\n").encode() + b"\n"
    home.wait_empty()
    for _ in Waiting("its file is gone"):
        bodies = [*(home.path / "queue/mess").rglob("*"), *(home.path / "queue/pool").rglob("*")]
        if not [file for file in bodies if file.is_file() and file.stat().st_size]:
            break


def test_mail_between_two_homes(place: Place) -> None:
    second = place.home("b.example", "bob")
    first = place.home("a.example", "alice")
    first.control("smtproutes", f"b.example:[127.0.0.1]:{second.port}")
    second.start()
    first.start()
    send(first, "bob@b.example", "over there", sender="alice@a.example")
    [mail] = second.wait_mails("bob", 1)
    assert mail.startswith(b"Return-Path: <alice@a.example>\nDelivered-To: bob@b.example\nReceived: ")
    second.control("smtproutes", f"a.example:[127.0.0.1]:{first.port}")
    second.signal(signal.SIGHUP)
    wait_log(second, "took the new settings")
    send(first, "nobody@b.example", "no such", sender="alice@a.example")
    [bounce] = first.wait_mails("alice", 1)
    assert b"<nobody@b.example>" in bounce


def test_a_bounce_and_a_double_bounce(home: Home) -> None:
    home.control("checkrcpt", "0")
    home.start()
    send(home, "nobody@a.example", sender="alice@a.example")
    [bounce] = home.wait_mails("alice", 1)
    assert b"Return-Path: <>\n" in bounce and b"<nobody@a.example>:\nSorry, no mailbox here" in bounce
    send(home, "nobody@a.example", sender="also-nobody@a.example")
    for _ in Waiting("the double bounce reaches postmaster, who is alice"):
        if len(mails := home.mails("alice")) == 2:
            break
    double = max(mails, key=len)
    assert b"Return-Path: <#@[]>\n" in double and b"the bounce bounced" in double
    home.wait_empty()


def test_a_triple_bounce_is_discarded_with_a_line_in_the_log(home: Home) -> None:
    home.control("checkrcpt", "0")
    home.control("doublebounceto", "nobody-at-all")
    home.start()
    send(home, "nobody@a.example", sender="also-nobody@a.example")
    wait_log(home, "triple bounce: discarding bounce/")
    home.wait_empty()
    assert home.mails("alice") == []


def test_clients_at_once_are_served_together(home: Home) -> None:
    home.start()
    threads = [threading.Thread(target=send, args=(home, "alice@a.example", f"t{n}")) for n in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(home.wait_mails("alice", 30)) == 30


def test_run_without_a_home_says_what_to_do(place: Place) -> None:
    refused = openqmail("--home", place.path / "nowhere", "run", check=False)
    assert refused.returncode == 100 and "openqmail init" in refused.stderr


def test_a_service_that_is_told_to_end_takes_no_new_settings(home: Home) -> None:
    home.start()
    with socket.create_connection(("127.0.0.1", home.port), 10) as peer:
        file = peer.makefile("rwb")
        file.readline()
        file.write(b"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<alice@a.example>\r\nDATA\r\n")
        file.flush()
        assert [file.readline()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]
        home.signal(signal.SIGTERM)
        wait_for_refusal(home)
        home.signal(signal.SIGHUP)
        assert home.status()["state"] == "draining"
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", home.port), 5)
        home.signal(signal.SIGTERM)  # again: at once, although a message is under way
        assert home.process is not None and home.process.wait(15) == 0
    assert "took the new settings" not in home.tail()


def test_mail_waits_while_the_users_are_missing(home: Home) -> None:
    home.control("checkrcpt", "0")
    cdb = home.path / "users/cdb"
    content = cdb.read_bytes()
    cdb.unlink()
    assert "users/cdb" in home.run("control", "check", check=False).stdout
    home.start()
    send(home, "alice@a.example")
    wait_log(home, "deferral: Trouble_reading_users/cdb")
    cdb.write_bytes(content)
    home.run("queue", "flush")
    assert home.wait_mails("alice", 1)
