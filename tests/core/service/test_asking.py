"""Root asks a user to look: with that user's rights alone, and whatever he does, root goes on."""

import os
import pwd
import signal
import time
from pathlib import Path

import pytest

from openqmail.core.control.accounts import Account
from openqmail.core.service.confine import asking
from openqmail.core.service.confine.asking import ask_as
from openqmail.core.values import HomeError, OpenqmailError, TemporaryFailure

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def nobody() -> Account:
    found = pwd.getpwnam("nobody")
    return Account("nobody", found.pw_uid, found.pw_gid)


def test_the_work_is_done_as_the_user_and_for_good(nobody: Account, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)

    def work() -> bytes:
        ids = os.getresuid() + os.getresgid() + tuple(os.getgroups())
        try:
            secret.read_bytes()
        except PermissionError:
            return repr(ids).encode()
        return b"read it"

    uid, gid = nobody.uid, nobody.gid
    assert ask_as(nobody, work) == repr((uid, uid, uid, gid, gid, gid, gid)).encode()
    assert os.geteuid() == 0


def test_a_refusal_keeps_its_sentence(nobody: Account) -> None:
    def work() -> bytes:
        raise HomeError("/x: is not there; make it")

    with pytest.raises(OpenqmailError, match="/x: is not there; make it"):
        ask_as(nobody, work)


def test_a_fault_is_told_and_ends_there(nobody: Account) -> None:
    with pytest.raises(OpenqmailError, match=r"a fault while looking as 'nobody'.*ZeroDivisionError"):
        ask_as(nobody, lambda: b"%d" % (1 // 0))


def test_root_is_nobody_to_ask() -> None:
    with pytest.raises(OpenqmailError, match="is root"):
        ask_as(Account("root", 0, 0), lambda: b"")


def test_who_dies_or_says_too_much_or_nothing_gives_no_answer(
    nobody: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "LARGEST", 100_000)
    monkeypatch.setattr(asking, "SECONDS", 0.2)

    def dies() -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    def hangs() -> bytes:
        time.sleep(600)
        return b""

    for work in (dies, hangs, lambda: b"x" * 200_000):
        with pytest.raises(TemporaryFailure, match="'nobody' could not be asked"):
            ask_as(nobody, work)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_long_answer_comes_whole(nobody: Account) -> None:
    assert ask_as(nobody, lambda: b"y" * 1_000_000) == b"y" * 1_000_000
