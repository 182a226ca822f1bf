"""`openqmail init --system`: users, owners and modes of a home of root's, and what they keep from whom."""

import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import system_users
from openqmail.core.commands.writing import Made
from openqmail.core.control import Account, Home, Listener, User, Users, check, find_accounts, read_settings
from openqmail.core.service.confine import become

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users")

Run = Callable[..., Any]


@pytest.fixture
def room() -> Iterator[Path]:
    with system_users.room() as folder:
        yield folder


@pytest.fixture
def alice(room: Path) -> pwd.struct_passwd:
    return system_users.add("alice", room / "alice")


@pytest.fixture
def made(room: Path, run: Run, alice: pwd.struct_passwd) -> Home:
    """A home a.example for alice, all of whose processes have users of odd names."""
    words = ["--me", "a.example", "--user", alice.pw_name, *system_users.accounts()]
    ran = run("init", room / "home", "--system", *words)
    assert ran.code == 0, ran.err
    return Home(str(room / "home"))


def test_it_makes_the_users_that_are_missing_as_qmails_install_does(made: Home) -> None:
    for role, group in (
        ("smtpd", "nofiles"),
        ("gate", "nofiles"),
        ("alias", "nofiles"),
        ("send", "qmail"),
        ("remote", "qmail"),
    ):
        found = pwd.getpwnam(system_users.name_of(role))
        assert grp.getgrgid(found.pw_gid).gr_name == group
        assert found.pw_shell.endswith("nologin")
        assert found.pw_dir == (made.alias if role == "alias" else made.path)
        expected = Account(found.pw_name, found.pw_uid, found.pw_gid)
        assert find_accounts(made).by_role()[role] == expected


def test_owners_and_modes_are_those_of_the_table(made: Home) -> None:
    by_uid = {0: "root"} | {one.uid: role for role, one in find_accounts(made).by_role().items()}

    def of(path: str) -> tuple[str, int]:
        found = os.lstat(path)
        return by_uid[found.st_uid], stat.S_IMODE(found.st_mode)

    assert of(made.path) == of(made.control) == of(made.users) == of(made.mail) == ("root", 0o755)
    assert of(made.alias) == ("alias", 0o2755)
    assert of(made.queue) == ("send", 0o700)
    assert of(made.run) == ("root", 0o711)
    assert {of(str(path))[0] for path in Path(made.queue).rglob("*")} == {"send"}
    for folder in (made.control, made.users, made.alias):
        names = [path for path in Path(folder).iterdir() if path.name != "servercert.pem"]
        assert {of(str(path)) for path in names} == {("root", 0o644)}, folder
    assert of(f"{made.control}/servercert.pem") == ("root", 0o400)


def test_its_control_files_read_well(made: Home, alice: pwd.struct_passwd) -> None:
    found = read_settings(made)
    assert found.listen == (Listener("smtp", "", 25),)
    assert found.locals == found.rcpthosts == {b"a.example"}
    assert found.accounts[b"send"] == system_users.name_of("send")
    assert not check(made).errors
    assert not check(made).warnings
    to = Path(made.alias, ".qmail-postmaster").read_text()
    assert to == f"&{alice.pw_name}@a.example\n"


def test_mail_goes_to_the_users_own_homes(made: Home, alice: pwd.struct_passwd, room: Path) -> None:
    users = Users(os.path.join(made.users, "cdb"))
    name, home = alice.pw_name.encode(), os.fsencode(alice.pw_dir)
    assert users.find(name) == User(name, alice.pw_uid, alice.pw_gid, home, b"", b"")
    assert users.find(name + b"-list") == User(name, alice.pw_uid, alice.pw_gid, home, b"-", b"list")
    assert users.find(b"root") is None
    for folder in ("Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"):
        found = os.stat(room / "alice" / folder)
        assert (found.st_uid, found.st_gid) == (alice.pw_uid, alice.pw_gid)
        assert stat.S_IMODE(found.st_mode) == 0o700


def readable(account: Account, paths: list[str]) -> set[str]:
    """What this account can really read, or list: asked by a child that has become it."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        become(account)
        for path in paths:
            try:
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            except OSError:
                continue
            os.write(writer, path.encode() + b"\n")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        found = set(answer.read().splitlines())
    os.waitpid(child, 0)
    return found


def test_no_process_reads_what_it_should_not(made: Home, room: Path) -> None:
    """Asked of the kernel, not of the modes."""
    maildir = str(room / "alice" / "Maildir")
    private = [made.queue, f"{made.queue}/mess", f"{made.queue}/lock/sendmutex", made.run, maildir]
    public = [made.path, made.control, f"{made.control}/me", f"{made.users}/cdb", made.alias]
    for role, account in find_accounts(made).by_role().items():
        wanted = {*public, *(path for path in private if role == "send" and path.startswith(made.queue))}
        assert readable(account, public + private) == wanted, role


def test_check_has_nothing_to_say_of_it(made: Home, run: Run) -> None:
    ran = run("--home", made.path, "check")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith(f"{made.path}: owners and modes are as they should be\n")


def test_a_folder_of_somebody_elses_is_no_place_for_it(
    room: Path, run: Run, alice: pwd.struct_passwd
) -> None:
    words = ["--me", "a.example", "--user", alice.pw_name, *system_users.accounts()]
    for owner, mode in ((alice.pw_uid, 0o755), (0, 0o777)):
        place = room / f"place-{mode:o}"
        place.mkdir()
        place.chmod(mode)
        os.chown(place, owner, 0)
        ran = run("init", place / "home", "--system", *words)
        assert ran.code == 100 and str(place) in ran.err
        assert list(place.iterdir()) == []


def test_users_that_are_there_are_taken_as_they_are(room: Path, run: Run, alice: pwd.struct_passwd) -> None:
    mine = system_users.add("smtpd", room / "smtpd")
    words = ["--me", "a.example", "--user", alice.pw_name, *system_users.accounts()]
    assert run("init", room / "home", "--system", *words).code == 0
    found = find_accounts(Home(str(room / "home"))).smtpd
    assert (found.uid, found.gid) == (mine.pw_uid, mine.pw_gid)


def test_without_accounts_they_are_qmails(room: Path, run: Run, alice: pwd.struct_passwd) -> None:
    ran = run("init", room / "home", "--system", "--me", "a.example", "--user", alice.pw_name)
    assert ran.code == 0, ran.err
    home = Home(str(room / "home"))
    names = [one.name for one in find_accounts(home).by_role().values()]
    assert names == ["qmaild", "qmailp", "qmails", "qmailr", "alias"]
    assert not os.path.exists(os.path.join(home.control, "accounts"))
    for name, group in (("qmailq", "qmail"), ("qmaill", "nofiles")):
        assert grp.getgrgid(pwd.getpwnam(name).pw_gid).gr_name == group


def test_a_maildir_that_is_there_stays(room: Path, run: Run, alice: pwd.struct_passwd) -> None:
    (room / "alice" / "Maildir").symlink_to("/etc/oqt-nowhere")
    words = ["--me", "a.example", "--user", alice.pw_name, *system_users.accounts()]
    assert run("init", room / "home", "--system", *words).code == 0
    assert os.readlink(room / "alice" / "Maildir") == "/etc/oqt-nowhere"
    assert not os.path.lexists("/etc/oqt-nowhere"), "root followed a link of a user's"


def test_what_fails_half_way_leaves_no_users_and_no_home(
    room: Path, run: Run, alice: pwd.struct_passwd, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {one.gr_name for one in grp.getgrall()}
    write = Made.file

    def full(self: Made, path: str, content: bytes, mode: int) -> str:
        if path.endswith("sendmutex"):  # among the last that are made
            assert os.path.isdir(room / "home" / "users")
            assert len(system_users.there()) == 6
            raise OSError(28, "No space left on device", path)
        return write(self, path, content, mode)

    monkeypatch.setattr(Made, "file", full)
    words = ["--me", "a.example", "--user", alice.pw_name, *system_users.accounts()]
    ran = run("init", room / "home", "--system", *words)
    assert ran.code == 111
    assert "No space left" in ran.err
    assert os.listdir(room) == ["alice"]
    assert system_users.there() == {alice.pw_name}
    assert {one.gr_name for one in grp.getgrall()} == groups
    assert os.geteuid() == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--owner", "nobody"], "--owner: a --system home is root's"),
        (["--account", "smtpd"], "--account: is not ROLE=USER"),
        (["--account", "smptd=x"], "'smptd' is not a role"),
        (["--account", "smtpd=root"], "root is nobody's user"),
        (["--account", "smtpd=a", "--account", "smtpd=b"], "smtpd is named twice"),
        (["--account", "smtpd=qmails"], "qmails would be smtpd and more"),
        (["--user", "oqt-no-such"], "there is no user 'oqt-no-such' on this host"),
        (["--user", "root"], "root is root, who gets no mail"),
        (["--user", "alias"], "alias runs a process"),
        (["--listen", "smtp"], "--listen: needs a service"),
    ],
)
def test_mistakes_change_nothing(
    room: Path, run: Run, alice: pwd.struct_passwd, words: list[str], why: str
) -> None:
    if "alias" in words and "alias" not in {one.pw_name for one in pwd.getpwall()}:
        pytest.skip("this system has no user alias")
    ran = run("init", room / "home", "--system", "--me", "a.example", "--user", alice.pw_name, *words)
    assert ran.code == 100
    assert why in ran.err
    assert ran.err.count("\n") == 1
    assert os.listdir(room) == ["alice"]
    assert os.listdir(room / "alice") == []
    assert system_users.there() == {alice.pw_name}


def test_a_mailbox_for_nobody_here_is_refused_by_name_alone(
    room: Path, run: Run, alice: pwd.struct_passwd
) -> None:
    words = ["--me", "a.example", "--user", alice.pw_name, *system_users.accounts()]
    assert run("init", room / "home", "--system", *words).code == 0
    ran = run("--home", room / "home", "mailbox", "add", "oqt-no-such")
    assert ran.err == "openqmail: there is no user 'oqt-no-such' on this host; make it first\n"


def test_a_home_that_is_not_its_users_is_refused(room: Path, run: Run, alice: pwd.struct_passwd) -> None:
    os.chown(room / "alice", 0, 0)
    ran = run("init", room / "home", "--system", "--me", "a.example", "--user", alice.pw_name)
    assert ran.code == 100
    assert "is root's, not" in ran.err


def test_a_place_that_its_users_cannot_reach_is_refused(
    room: Path, run: Run, alice: pwd.struct_passwd
) -> None:
    (room / "closed").mkdir(mode=0o700)
    words = ["--me", "a.example", "--user", alice.pw_name, *system_users.accounts()]
    ran = run("init", room / "closed" / "home", "--system", *words)
    assert ran.code == 100
    assert "cannot come there; choose a place that all can pass to" in ran.err
    assert os.listdir(room / "closed") == []
    assert system_users.there() == {alice.pw_name}


def test_accounts_are_for_system_homes_alone(room: Path, run: Run) -> None:
    ran = run(
        "init", room / "home", "--me", "a.b", "--user", "x", "--owner", "nobody", "--account", "smtpd=x"
    )
    assert ran.code == 100
    assert "--account: only a --system home" in ran.err


def test_only_root_can(room: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    room.chmod(0o777)  # no place for it either, which is the lesser matter
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    ran = run("init", room / "home", "--system", "--me", "a.example", "--user", "daemon")
    assert ran.code == 100
    assert "--system: only root can" in ran.err
    assert os.listdir(room) == []
