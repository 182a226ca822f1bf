"""As whom the processes of a home run, and what is said when that cannot be told."""

import os
import pwd
from pathlib import Path

import pytest

from openqmail.core.control import Account, Accounts, Home, find_accounts, read_settings
from openqmail.core.control.accounts import look_up
from openqmail.core.control.settings import ACCOUNTS
from openqmail.core.values import ControlError, HomeError

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a home of root's")
SOME = [one.pw_name for one in pwd.getpwall() if one.pw_uid and one.pw_name.isalpha()][:5]
"""Users that every system has, to stand for those of openqmail."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "me").write_text("a.example\n")
    return Home(str(tmp_path))


def says(home: Home, text: str) -> None:
    Path(home.control, "accounts").write_text(text)


def test_a_home_of_somebody_else_runs_whole_as_its_owner(home: Home) -> None:
    user = pwd.getpwnam("nobody")
    home.uid, home.gid = user.pw_uid, user.pw_gid
    says(home, "smtpd root\n")  # does not count there
    found = find_accounts(home)
    assert set(found.by_role().values()) == {Account("nobody", user.pw_uid, user.pw_gid)}


@ROOT
def test_a_home_of_roots_has_a_user_for_each_role(home: Home) -> None:
    says(home, "# ours\n" + "".join(f"{role}\t{name}\n" for role, name in zip(ACCOUNTS, SOME, strict=True)))
    users = [pwd.getpwnam(name) for name in SOME]
    assert find_accounts(home) == Accounts(*(Account(one.pw_name, one.pw_uid, one.pw_gid) for one in users))
    assert read_settings(home).accounts[b"gate"] == SOME[1]


def test_roles_without_a_line_have_qmails_users() -> None:
    with pytest.raises(HomeError, match="no user 'no-such-user', as whom remote runs"):
        look_up({**dict(zip(ACCOUNTS, SOME, strict=True)), "remote": "no-such-user"}, "/home")
    assert list(ACCOUNTS.values()) == ["qmaild", "qmailp", "qmails", "qmailr", "alias"]


@ROOT
def test_a_user_that_is_missing_is_named_with_what_to_do(home: Home) -> None:
    says(home, "smtpd no-such-user\n")
    with pytest.raises(
        HomeError, match=r"no user 'no-such-user', as whom smtpd runs; make it.*control/accounts"
    ):
        find_accounts(home)


def test_a_user_with_roots_uid_is_root_by_whatever_name(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pwd.getpwnam("root")
    monkeypatch.setattr(pwd, "getpwnam", lambda name: real)
    with pytest.raises(HomeError, match="'toor', as whom smtpd runs, is root"):
        look_up({"smtpd": "toor"}, "/home")


@ROOT
@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("smtpd\n", 1, "is not ROLE USER"),
        ("smtpd a b\n", 1, "is not ROLE USER"),
        ("\nsmptd qmaild\n", 2, "'smptd' is not a role; the roles are smtpd, gate"),
        ("smtpd root\n", 1, "root is nobody's user here"),
        ("smtpd a:b\n", 1, "'a:b' is not the name of a user"),
        ("smtpd daemon\nsmtpd bin\n", 2, "smtpd has another value in line 1"),
        (" smtpd daemon\n", 1, "begins with a blank"),
        ("smtpd d\xe4mon\n", 1, "is not the name of a user"),
    ],
)
def test_mistakes_have_file_line_and_remedy(home: Home, text: str, line: int, why: str) -> None:
    says(home, text)
    for read in (find_accounts, read_settings):
        with pytest.raises(ControlError, match=why) as caught:
            read(home)
        assert (caught.value.file, caught.value.line) == ("control/accounts", line)
