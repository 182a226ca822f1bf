"""Whose mail is has one answer: at RCPT, of a delivery, of the spawner and of `openqmail why`."""

import asyncio
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openqmail.core.control import Home
from openqmail.core.control.accounts import Account, Accounts
from openqmail.core.control.assign import (
    CHANGED,
    NO_USERS,
    NOT_AS_ROOT,
    User,
    Users,
    compile_cdb,
    owner_of,
    parse_assign,
)
from openqmail.core.control.routing import Routed
from openqmail.core.local.plans import Plans
from openqmail.core.ports import Explanation
from openqmail.core.service import explaining
from openqmail.core.service.frames.blocking import BlockingChannel
from openqmail.core.service.frames.local_client import LocalClient
from openqmail.core.service.frames.spawning import FromSpawner, Refused, Start
from openqmail.core.service.processes import local
from openqmail.core.service.processes.process import Inherited
from openqmail.core.service.processes.worker import _OwnUsers
from openqmail.core.values import Outcome, Result
from openqmail.core.world import PosixDisk, SystemClock

ALIAS = Account("alias", 4711, 4712)
ACCOUNTS = Accounts(ALIAS, ALIAS, ALIAS, ALIAS, ALIAS)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home of root's, whoever runs the tests."""
    (tmp_path / "users").mkdir()
    (tmp_path / "alias").mkdir()
    lines = b"=toor:root:0:0:/root:::\n+alice-:alice:4713:4714:/home/alice:-::\n.\n"
    (tmp_path / "users" / "cdb").write_bytes(compile_cdb(parse_assign(lines)[0]))
    made = Home(str(tmp_path))
    made.uid, made.gid = 0, 0
    return made


def users_of(home: Home) -> Users:
    return Users(os.path.join(home.users, "cdb"))


def of_delivery_and_rcpt(home: Home, name: bytes) -> list[Result | None]:
    async def story() -> list[Result | None]:
        client = LocalClient(users_of(home), (ALIAS.uid, ALIAS.gid))
        job: Any = SimpleNamespace(recipient=name + b"@here.example")
        told = await client.check((job.recipient,))
        return [(await client.deliver(job)).result, told[job.recipient]]

    return asyncio.run(story())


def of_spawner(home: Home, name: bytes) -> bytes:
    ours, theirs = socket.socketpair()
    asking, asked = socket.socketpair()
    settings: Any = SimpleNamespace(logformat="qmail")
    with ours, theirs, asking, asked:
        made = local.Spawner(theirs, Inherited(home, settings, ACCOUNTS, 1, {}, None, None, False))
        made._start(local._Client(asked, "local"), Start(1, name))
        [(answer, _)] = BlockingChannel(asking, FromSpawner).receive() or []
        os.close(made._life)
        os.close(made._life_of_workers)
    assert isinstance(answer, Refused)
    return answer.text


def of_why(home: Home, name: bytes) -> Explanation:
    settings: Any = SimpleNamespace(defaultdelivery=b"./Maildir/\n")
    routed = Routed("local", name + b"@here.example", b"here.example")
    return explaining._local(home, settings, ACCOUNTS, routed)


def test_mail_for_root_waits_and_all_who_are_asked_say_the_same(home: Home) -> None:
    """As qmail-lspawn has it, QLX_ROOT: who mends users/assign loses no mail."""
    assert NOT_AS_ROOT.outcome is Outcome.DEFERRAL
    assert of_delivery_and_rcpt(home, b"toor") == [NOT_AS_ROOT, NOT_AS_ROOT]
    assert of_spawner(home, b"toor") == NOT_AS_ROOT.text
    found = of_why(home, b"toor")
    assert found.result == NOT_AS_ROOT
    assert "uid 0" in found.trail[0].text


def test_without_users_all_who_are_asked_say_the_same(home: Home) -> None:
    os.unlink(os.path.join(home.users, "cdb"))
    assert of_delivery_and_rcpt(home, b"alice") == [NO_USERS, NO_USERS]
    assert of_spawner(home, b"alice") == NO_USERS.text
    assert of_why(home, b"alice").result == NO_USERS
    plans = Plans(users_of(home), os.fsencode(home.alias), PosixDisk(), SystemClock())
    assert plans.task(b"alice").result == NO_USERS


def test_a_worker_says_of_an_address_that_it_is_another_user_s_by_now(home: Home) -> None:
    def told(uid: int, name: bytes) -> Result | None:
        own = _OwnUsers(users_of(home), uid, ALIAS.uid)
        return Plans(own, os.fsencode(home.alias), PosixDisk(), SystemClock()).task(name).result

    alice = 4713
    assert told(ALIAS.uid, b"alice-x") == told(alice, b"bob") == CHANGED
    assert told(alice, b"alice-x") != CHANGED
    assert told(ALIAS.uid, b"bob") != CHANGED
    os.unlink(os.path.join(home.users, "cdb"))
    assert told(alice, b"alice-x") == NO_USERS


def test_a_user_has_what_is_his_and_alias_the_rest(home: Home) -> None:
    alias, users = ACCOUNTS.alias_in(home), users_of(home)
    assert owner_of(b"alice-Lists", users, alias) == User(
        b"alice", 4713, 4714, b"/home/alice", b"-", b"Lists"
    )
    assert owner_of(b"nobody", users, alias) == User(
        b"alias", 4711, 4712, os.fsencode(home.alias), b"-", b"nobody"
    )


def test_where_all_runs_as_the_owner_of_the_home_a_uid_of_root_means_nothing(home: Home) -> None:
    found = owner_of(b"toor", users_of(home), ACCOUNTS.alias_in(home), own=True)
    assert isinstance(found, User) and found.home == b"/root"
