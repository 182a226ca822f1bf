"""A home of root's where recipients are looked up at RCPT: what clients are told, and as whom it is done.

Root only.
"""

import os
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

import system_users
from homes import Waiting
from openqmail.core.control.assign import compile_cdb, parse_assign
from openqmail.core.service.processes.smtpd import CHECKERS
from system_homes import SystemHome, system_home

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users and runs as them")

NOBODY = (550, b"5.1.1 Sorry, no mailbox here by that name.")


@pytest.fixture(scope="module")
def home() -> Iterator[SystemHome]:
    with system_home("alice", "bob") as made:
        made.control("virtualdomains", f"lists.example:{system_users.name_of('alice')}-lists")
        made.control("rcpthosts", "a.example\nlists.example\nfar.example")
        made.write("alice", ".qmail-shop-default", "./Maildir/\n", 0o600)
        made.write("alice", ".qmail-lists-all", f"&{made.address('bob')}\n")
        made.write("bob", ".qmail-broken", "\n")
        Path(made.people["alice"].pw_dir).chmod(0o700)
        made.start()
        yield made


def told(home: SystemHome, *recipients: str) -> list[tuple[int, bytes]]:
    with smtplib.SMTP("127.0.0.1", home.port, "client.example", 20) as client:
        client.ehlo()
        client.mail("s@client.example")
        return [client.rcpt(one) for one in recipients]


def test_who_has_a_mailbox_is_taken_and_who_has_none_gets_550(home: SystemHome) -> None:
    taken = [
        home.address("alice"),
        home.address("alice", "shop-eggs"),
        home.address("bob").upper(),
        "postmaster@a.example",
        "all@lists.example",
        "anybody@far.example",
    ]
    assert [code for code, _ in told(home, *taken)] == [250] * len(taken), home.tail()
    refused = [
        "nobody@a.example",
        home.address("alice", "nothing"),
        home.address("bob", "shop-eggs"),
        "other@lists.example",
    ]
    assert told(home, *refused) == [NOBODY] * len(refused)


def test_recipients_of_many_users_that_come_together_are_told_of_in_their_order(home: SystemHome) -> None:
    some = {
        home.address("alice", "shop-ham"): 250,
        home.address("bob"): 250,
        home.address("alice", "nowhere"): 550,
        "anybody@far.example": 250,
        home.address("bob", "broken"): 451,
        "nowhere@a.example": 550,
        "postmaster@a.example": 250,
        "x@elsewhere.example": 250,
        "none@lists.example": 550,
        home.address("alice"): 250,
    }
    with smtplib.SMTP("127.0.0.1", home.port, "client.example", 20) as client:
        client.ehlo()
        client.mail("s@client.example")
        client.send("".join(f"RCPT TO:<{one}>\r\n" for one in some))
        assert {one: client.getreply()[0] for one in some} == some


def test_what_is_broken_is_put_off_and_the_log_says_why(home: SystemHome) -> None:
    ((code, text),) = told(home, home.address("bob", "broken"))
    assert (code, b"blank" in text) == (451, False)
    for _ in Waiting("the log says why"):
        if "first_line_of_.qmail_file_is_blank" in home.tail():
            break


def test_the_users_look_themselves_up_as_smtpd_cannot_read_their_homes(home: SystemHome) -> None:
    told(home, home.address("alice", "shop-eggs"))
    (pid,) = [pid for uid, pid in home.workers().items() if uid == home.people["alice"].pw_uid]
    uids = Path(f"/proc/{pid}/status").read_text().partition("Uid:")[2].split("\n")[0].split()
    assert uids == [str(home.people["alice"].pw_uid)] * 4
    child = os.fork()
    if not child:
        smtpd = home.account("smtpd")
        os.setgroups([])
        os.setgid(smtpd.pw_gid)
        os.setuid(smtpd.pw_uid)
        try:
            os.stat(home.people["alice"].pw_dir + "/.qmail-shop-default")
        except PermissionError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert not home.mails("alice") and not home.mails("bob")


def test_a_check_after_local_has_died_is_answered(home: SystemHome) -> None:
    os.kill(home.pids()["local"], 9)
    for at in Waiting("checks go on", pause=0.2):
        if told(home, f"nobody-{int(at * 1000)}@a.example") == [NOBODY]:
            break
    assert told(home, home.address("alice"))[0][0] == 250


def test_no_more_workers_than_a_few_look_recipients_up(home: SystemHome) -> None:
    """Each address has a user of its own here; one that waits longest makes room for the next."""
    lines, kept = [], (home.path / "users" / "cdb").read_bytes()
    for uid in range(60_000, 60_000 + CHECKERS + 4):
        folder = home.room / f"home{uid}"
        folder.mkdir(exist_ok=True)
        os.chown(folder, uid, uid)
        lines.append(f"=u{uid}:nobody:{uid}:{uid}:{folder}:::\n")
    found, problems = parse_assign("".join([*lines, ".\n"]).encode())
    assert not problems
    replace(home, compile_cdb(found))
    codes = [
        code for code, _ in told(home, *(f"u{uid}@a.example" for uid in range(60_000, 60_000 + len(lines))))
    ]
    assert codes == [250] * len(lines)
    for _ in Waiting("those that were ended are gone"):
        if len(home.workers()) <= CHECKERS:
            break
    assert len(home.workers()) == CHECKERS
    replace(home, kept)


def replace(home: SystemHome, cdb: bytes) -> None:
    new = home.path / "users" / "new"
    new.write_bytes(cdb)
    new.chmod(0o644)
    new.rename(home.path / "users" / "cdb")


def test_with_0_in_the_control_file_every_recipient_of_ours_is_taken(home: SystemHome) -> None:
    home.control("checkrcpt", "0")
    assert home.process is not None
    before = home.log.stat().st_size
    home.process.send_signal(1)
    for _ in Waiting("it has taken the new settings"):
        if b"new settings" in home.log.read_bytes()[before:]:
            break
    for _ in Waiting("a connection meets the new front end"):
        if told(home, "nobody@a.example")[0][0] == 250:
            break
