"""`openqmail check`: every damage to owners and modes is found, and its remedy mends it."""

import grp
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import openqmail.core
import system_users
from openqmail.core.control import Home, find_accounts
from openqmail.core.log import MemoryLog
from openqmail.core.service.supervisor.ground import proved_settings
from openqmail.core.values import ControlError
from openqmail.core.world import SystemClock
from system_users import name_of

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a home of root's")

GUIDE = Path(__file__).parents[3] / "docs" / "queue.md"
QMAILQ, QMAILR, QMAILS = 7794, 7795, 7796
"""Whose the recorded queue is."""

Run = Callable[..., Any]
Damage = Callable[[Path], object]


@pytest.fixture
def room() -> Iterator[Path]:
    with system_users.room() as folder:
        yield folder


@pytest.fixture
def home(room: Path, run: Run) -> Path:
    """A home of root's, for alice."""
    alice = system_users.add("alice", room / "alice")
    words = ["--me", "a.example", "--user", alice.pw_name, *system_users.accounts()]
    assert run("init", room / "home", "--system", *words).code == 0
    return room / "home"


def closed_program(room: Path) -> tuple[Path, list[str]]:
    """A program in a folder of root's that nobody else may enter, and the words that start it."""
    folder = room / "program"
    folder.mkdir(mode=0o700)
    core = Path(openqmail.core.__file__).parent
    shutil.copytree(core, folder / "openqmail" / "core", ignore=shutil.ignore_patterns("__pycache__"))
    start = f"import sys; sys.path.insert(0, {str(folder)!r}); sys.dont_write_bytecode = True; "
    start += f"import openqmail; openqmail.__path__ = [{str(folder / 'openqmail')!r}]; "
    start += "from openqmail.core.commands.main import main; sys.exit(main())"
    return folder, [sys.executable, "-c", start]


@pytest.fixture
def own(room: Path, run: Run, owner: list[str]) -> Path:
    """A home of somebody else's."""
    assert run("init", room / "own", "--me", "a.example", "--user", "alice", *owner).code == 0
    return room / "own"


def findings(run: Run, home: Path) -> list[tuple[str, str, str]]:
    """thing, place, remedy of each."""
    ran = run("--home", home, "check", "--json")
    assert ran.err == ""
    found = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.code == (100 if found else 0)
    return [(one["thing"], one["place"], one["remedy"]) for one in found]


def test_addresses_that_mail_goes_out_from_are_this_hosts(own: Path, run: Run) -> None:
    bindings = own / "control" / "bindings"
    bindings.write_text("a.example:127.0.0.1:-:\nb.example:127.0.0.2:-:mx.b.example\n*:*:*:\n")
    owner = bindings.parent.stat()
    os.chown(bindings, owner.st_uid, owner.st_gid)
    assert findings(run, own) == []
    bindings.write_text("a.example:127.0.0.1:-:\nb.example:192.0.2.1:[2001:db8::1]:\n*:192.0.2.1:-:\n")
    found = findings(run, own)
    assert [place for _, place, _ in found] == ["control/bindings, line 2"] * 2
    assert [thing.split()[5] for thing, _, _ in found] == ["192.0.2.1", "2001:db8::1"]
    bindings.write_text("this is none\n")  # `openqmail control check` tells of it
    assert findings(run, own) == []


def test_a_password_that_every_process_reads_is_found(own: Path, run: Run) -> None:
    routes, owner = own / "control" / "smtproutes", own.stat()
    routes.write_text(":relay.example:587:joe a-secret\n")
    credentials = own / "control" / "credentials"
    credentials.write_text("relay.example joe a-secret\n")
    for file in (routes, credentials):
        os.chown(file, owner.st_uid, owner.st_gid)
    credentials.chmod(0o644)
    found = findings(run, own)
    assert [(thing, os.path.basename(place)) for thing, place, _ in found] == [
        ("anybody, its group may read it, and must not", "credentials"),
        ("has a password, and every process of the service reads it", "smtproutes"),
    ]
    assert "a-secret" not in str(found)
    assert found[0][2].startswith("chmod 600 ")
    routes.write_text(":relay.example:587\n")
    credentials.chmod(0o600)
    assert findings(run, own) == []


def alices(path: Path) -> None:
    os.chown(path, pwd.getpwnam(name_of("alice")).pw_uid, -1, follow_symlinks=False)


PROGRAM_OF_OTHERS: dict[str, tuple[Damage, str, str]] = {
    "the program": (lambda bin: alices(bin / "check"), "check", "belongs to"),
    "its mode": (lambda bin: (bin / "check").chmod(0o775), "check", "others may write"),
    "the program that it goes on with": (lambda bin: (bin / "then").chmod(0o757), "then", "others may write"),
    "its folder": (alices, "", "belongs to"),
    "the mode of its folder": (lambda bin: bin.chmod(0o757), "", "others may write"),
    "the link to it": (lambda bin: alices(bin / "link"), "link", "belongs to"),
    "the folder of the link": (lambda bin: alices(bin / "links"), "links", "belongs to"),
    "where it is to be": (lambda bin: ((bin / "check").unlink(), alices(bin)), "", "belongs to"),
}


@ROOT
@pytest.mark.parametrize("name", PROGRAM_OF_OTHERS)
def test_a_program_that_root_runs_is_roots_alone(name: str, home: Path, room: Path, run: Run) -> None:
    folder = room / "bin"
    for one in (folder, folder / "links"):
        one.mkdir(mode=0o755)
    for one in ("check", "then"):
        shutil.copy("/bin/true", folder / one)
    (folder / "links" / "check").symlink_to("../link")
    (folder / "link").symlink_to("check")
    (folder / "users").write_text("alice:secret\n")
    alices(folder / "users")  # no program, so whoever owns it does not say what root runs
    words = (folder / "links" / "check", folder / "then", folder / "users")
    (home / "control" / "checkpassword").write_text(" ".join(map(str, words)) + "\n")
    served = Home(str(home))
    proved_settings(served, MemoryLog(), SystemClock())
    assert findings(run, home) == []

    damage, where, thing = PROGRAM_OF_OTHERS[name]
    damage(folder)
    with pytest.raises(ControlError, match=r"control/checkpassword: .*root would run what is put there"):
        proved_settings(served, MemoryLog(), SystemClock())
    [(told, place, remedy)] = findings(run, home)
    assert thing in told and "root runs what is put there, as control/checkpassword says" in told
    assert place == os.path.normpath(folder / where)
    mend([remedy.split("or: ")[-1]])
    assert findings(run, home) == []
    proved_settings(served, MemoryLog(), SystemClock())


@ROOT
def test_a_program_of_an_owners_is_his_or_roots(own: Path, room: Path, run: Run) -> None:
    program, owner = shutil.copy("/bin/true", room / "check"), own.stat().st_uid
    (own / "control" / "checktoken").write_text(f"{program} /bin/true\n")
    os.chown(own / "control" / "checktoken", owner, -1)
    for uid, expected in ((0, []), (owner, []), (1, [str(program)])):
        os.chown(program, uid, -1)
        assert [place for _, place, _ in findings(run, own)] == expected
    proved_settings(Home(str(own)), MemoryLog(), SystemClock())  # his matter


def mend(remedies: list[str]) -> None:
    for remedy in remedies:
        subprocess.run(remedy, shell=True, check=True)


def chown(path: Path, who: str) -> None:
    os.chown(path, pwd.getpwnam(name_of(who)).pw_uid, -1)


def secret(home: Path) -> None:
    (home / "users" / "smtpauth").write_text("alice:secret\n")
    (home / "users" / "smtpauth").chmod(0o644)


def secret_of_the_group(home: Path) -> None:
    """As `root:nofiles 0640` would be, in which group smtpd, gate and alias are."""
    secret(home)
    (home / "users" / "smtpauth").chmod(0o640)
    os.chown(home / "users" / "smtpauth", 0, pwd.getpwnam(name_of("gate")).pw_gid)


def secret_of_anothers(home: Path) -> None:
    secret(home)
    (home / "users" / "smtpauth").chmod(0o400)
    chown(home / "users" / "smtpauth", "smtpd")


def key_for_all(name: str, role: str) -> Damage:
    def damage(home: Path) -> None:
        (home / "control" / name).write_text("key\n")
        (home / "control" / name).chmod(0o644)
        if role != "root":
            chown(home / "control" / name, role)

    return damage


def stranger_in_queue(home: Path) -> None:
    (home / "queue" / "mess" / "0" / "17").write_text("dear")
    chown(home / "queue" / "mess" / "0" / "17", "smtpd")


SMTPD, GATE, SEND, REMOTE, ALIAS = (f"{name_of(role)} ({role})" for role in system_users.ROLES)


def give_queue(home: Path) -> None:
    chown(home / "queue", "send")


DAMAGES: dict[str, tuple[Damage, str, str]] = {
    "a queue for all to see": (
        lambda home: (home / "queue").chmod(0o755),
        "queue",
        f"{SMTPD}, {GATE}, {REMOTE}, {ALIAS}, anybody may read it",
    ),
    "a queue for send's group": (
        lambda home: (home / "queue").chmod(0o750),
        "queue",
        f"{REMOTE} may read it",
    ),
    "a queue of root's": (lambda home: os.chown(home / "queue", 0, 0), "queue", "belongs to root, not to"),
    "a queue of smtpd's": (lambda home: chown(home / "queue", "smtpd"), "queue", "belongs to"),
    "a message of smtpd's": (stranger_in_queue, "queue/mess/0/17", f"belongs to {name_of('smtpd')}"),
    "control for all to write": (
        lambda home: (home / "control").chmod(0o777),
        "control",
        f"{SMTPD}, {GATE}, {SEND}, {REMOTE}, {ALIAS}, anybody may write to it",
    ),
    "control for nobody": (
        lambda home: (home / "control").chmod(0o700),
        "control",
        f"{SMTPD}, {GATE}, {SEND}, {REMOTE} cannot come by it",
    ),
    "a control file for root alone": (
        lambda home: (home / "control" / "rcpthosts").chmod(0o600),
        "control/rcpthosts",
        f"{SMTPD}, {GATE}, {SEND}, {REMOTE} cannot come by it",
    ),
    "a control file of smtpd's": (
        lambda home: chown(home / "control" / "me", "smtpd"),
        "control/me",
        f"belongs to {name_of('smtpd')}, not to root",
    ),
    "users/cdb for others to write": (
        lambda home: (home / "users" / "cdb").chmod(0o666),
        "users/cdb",
        "may write to it",
    ),
    "a secret for all": (
        secret,
        "users/smtpauth",
        f"{SMTPD}, {SEND}, {REMOTE}, {ALIAS}, anybody may read it",
    ),
    "a secret for a group": (secret_of_the_group, "users/smtpauth", f"{SMTPD}, {ALIAS} may read it"),
    "a secret of another process's": (
        secret_of_anothers,
        "users/smtpauth",
        f"belongs to {name_of('smtpd')}, not to {name_of('gate')}",
    ),
    "smtpd's key for all": (
        key_for_all("servercert.pem", "root"),
        "control/servercert.pem",
        f"{SMTPD}, {GATE}, {SEND}, {REMOTE}, {ALIAS}, anybody may read it",
    ),
    "remote's key for all": (
        key_for_all("clientcert.pem", "remote"),
        "control/clientcert.pem",
        f"{SMTPD}, {GATE}, {SEND}, {ALIAS}, anybody may read it",
    ),
    "aliases for all to write": (lambda home: (home / "alias").chmod(0o777), "alias", "may write to it"),
    "aliases of root's that alias cannot read": (
        lambda home: (home / "alias" / ".qmail-root").chmod(0o600),
        "alias/.qmail-root",
        f"{ALIAS} cannot come by it",
    ),
    "run for nobody": (lambda home: (home / "run").chmod(0o700), "run", "anybody cannot come by it"),
    "run for all to write": (lambda home: (home / "run").chmod(0o777), "run", "may write to it"),
    "no run": (lambda home: (home / "run").rmdir(), "run", "is missing"),
    "run that root may not write to, as under a systemd that takes away its rights": (
        lambda home: (home / "run").chmod(0o511),
        "run",
        "root may not work with it",
    ),
    "no queue": (lambda home: shutil.rmtree(home / "queue"), "queue", "is missing"),
    "a queue that is not mounted": (
        lambda home: (shutil.rmtree(home / "queue"), (home / "queue").mkdir(0o700), give_queue(home)),
        "queue",
        "has nothing of a queue in it",
    ),
    "no folder of the queue": (
        lambda home: shutil.rmtree(home / "queue" / "mess"),
        "queue/mess",
        "is missing, and 23 more",
    ),
    "half a folder of the queue": (
        lambda home: (home / "queue" / "info" / "7").rmdir(),
        "queue/info/7",
        "is missing",
    ),
    "a queue that cannot be written to": (
        lambda home: (home / "queue" / "todo").chmod(0o500),
        "queue/todo",
        f"{name_of('send')} may not work with it",
    ),
    "no Maildir": (
        lambda home: shutil.rmtree(home.parent / "alice" / "Maildir"),
        "../alice/Maildir",
        "is missing: mail for",
    ),
    "half a Maildir": (
        lambda home: (home.parent / "alice" / "Maildir" / "new").rmdir(),
        "../alice/Maildir/new",
        "is missing: mail for",
    ),
    "a Maildir that cannot be written to": (
        lambda home: (home.parent / "alice" / "Maildir" / "tmp").chmod(0o500),
        "../alice/Maildir/tmp",
        "may not write to it: mail for",
    ),
    "a home for root alone": (lambda home: home.chmod(0o700), "", "cannot come by it"),
    "a home for all to write": (lambda home: home.chmod(0o757), "", "may write to it"),
    "something else for all to write": (
        lambda home: ((home / "more").mkdir(), (home / "more").chmod(0o777)),
        "more",
        "may write to it",
    ),
    "a folder above for all to write": (
        lambda home: home.parent.chmod(0o777),
        "..",
        "others may write to it, and put another home in place of this one",
    ),
    "a folder above that nobody passes": (lambda home: home.parent.chmod(0o700), "..", f"{SEND} cannot pass"),
    "a Maildir for all to read": (
        lambda home: (home.parent / "alice" / "Maildir").chmod(0o755),
        "../alice/Maildir",
        f"{SMTPD}, {GATE}, {SEND}, {REMOTE}, {ALIAS}, anybody may read it",
    ),
    "a Maildir of root's": (
        lambda home: os.chown(home.parent / "alice" / "Maildir", 0, 0),
        "../alice/Maildir",
        "belongs to root",
    ),
    "a user's home for all to write": (
        lambda home: (home.parent / "alice").chmod(0o777),
        "../alice",
        "anybody may write to it: mail for",
    ),
}


@ROOT
@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_found_and_its_remedy_mends_it(name: str, home: Path, run: Run) -> None:
    damage, where, thing = DAMAGES[name]
    damage(home)
    found = findings(run, home)
    place = os.path.normpath(home / where)
    assert any(one[1] == place and thing in one[0] for one in found), found
    mend([re.split("or: |an empty queue: ", remedy)[-1] for _, _, remedy in found])
    assert findings(run, home) == []


@ROOT
def test_a_private_home_of_a_user_keeps_an_open_maildir_closed(home: Path, run: Run) -> None:
    (home.parent / "alice").chmod(0o700)
    (home.parent / "alice" / "Maildir").chmod(0o755)
    assert findings(run, home) == []


@ROOT
def test_what_a_running_service_makes_is_no_fault(home: Path, run: Run) -> None:
    for name, mode, who in (("lock", 0o600, None), ("submit", 0o666, None), ("admin", 0o600, "send")):
        (home / "run" / name).touch()
        (home / "run" / name).chmod(mode)
        if who:
            chown(home / "run" / name, who)
    os.mkfifo(home / "queue" / "lock" / "trigger")
    (home / "queue" / "lock" / "trigger").chmod(0o622)
    chown(home / "queue" / "lock" / "trigger", "send")
    assert findings(run, home) == []


@ROOT
def test_two_roles_with_one_user_and_mail_for_root_are_found(home: Path, run: Run) -> None:
    accounts = home / "control" / "accounts"
    accounts.write_text(accounts.read_text().replace(name_of("remote"), name_of("smtpd")))
    (home / "users" / "assign").write_bytes(b"=root:root:0:0:/root:::\n.\n")
    told = findings(run, home)
    assert (f"smtpd and remote both run as {name_of('smtpd')}", "control/accounts") in [
        one[:2] for one in told
    ]
    assert ("gives mail to root, for root", "users/assign") in [one[:2] for one in told]


@ROOT
def test_mail_for_the_user_of_a_process_is_found(home: Path, run: Run) -> None:
    send = pwd.getpwnam(name_of("send"))
    line = f"=queue:{send.pw_name}:{send.pw_uid}:{send.pw_gid}:{home}:::\n.\n"
    (home / "users" / "assign").write_text(line)
    (told,) = findings(run, home)
    assert told[:2] == (f"gives mail to the user of send, for {send.pw_name}", "users/assign")


@ROOT
def test_who_keeps_no_maildir_needs_none(home: Path, run: Run) -> None:
    shutil.rmtree(home.parent / "alice" / "Maildir")
    (home.parent / "alice" / ".qmail").write_text("&bob@a.example\n")
    assert findings(run, home) == []


def test_a_users_cdb_that_is_missing_is_found(own: Path, run: Run) -> None:
    (own / "users" / "cdb").unlink()
    assert findings(run, own) == [
        ("is missing", str(own / "users" / "cdb"), "any 'openqmail mailbox add NAME' compiles it anew")
    ]


@ROOT
def test_a_folder_for_everybody_above_a_home_is_not_closed_for_all(home: Path, run: Run) -> None:
    home.parent.chmod(0o777)
    assert [one[2] for one in findings(run, home)] == [f"move the home, or: chmod +t {home.parent}"]


@ROOT
def test_a_fault_of_many_files_is_told_once(home: Path, run: Run) -> None:
    for number in range(20):
        (home / "control" / f"extra{number:02}").touch()
        (home / "control" / f"extra{number:02}").chmod(0o666)
    ran = run("--home", home, "check")
    lines = [line for line in ran.out.splitlines() if not line.startswith("note:")]
    assert ran.code == 100
    assert len(lines) == 4
    assert "17 more in this folder" in lines[-1]
    assert str(home / "control") in lines[-1]


@ROOT
def test_a_user_that_is_missing_is_one_sentence(home: Path, run: Run) -> None:
    (home / "control" / "accounts").write_text("send oqt-no-such\n")
    ran = run("--home", home, "check")
    assert ran.code == 100
    assert "no user 'oqt-no-such', as whom send runs" in ran.err


# --- a home that another qmail has made ------------------------------------------------------


def owners(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {str(path): path.lstat() for path in (folder, *folder.rglob("*"))}
    return {path: (one.st_uid, one.st_gid, stat.S_IMODE(one.st_mode)) for path, one in found.items()}


def put(vectors: Path, queue: Path, whose: dict[int, int], group: int) -> None:
    """The recorded queue of a notqmail that was stopped, in the place of one; `whose`: who owns there what
    such a uid owned where it was recorded, qmail's parts a user each (hier.c)."""

    def given(member: tarfile.TarInfo, _: str) -> tarfile.TarInfo:
        member.uname = member.gname = ""
        member.uid, member.gid = whose[member.uid], group
        return member

    shutil.rmtree(queue)
    with tarfile.open(vectors / "notqmail" / "queue" / "stopped.tar.gz") as archive:
        archive.extractall(queue.parent, filter=given)


@pytest.fixture
def taken(home: Path, vectors: Path) -> Path:
    """The same with a recorded queue; qmailq is `queue`."""
    qmailq = system_users.add("queue", home.parent / "queue")
    accounts = find_accounts(Home(str(home)))
    whose = {QMAILQ: qmailq.pw_uid, QMAILR: accounts.remote.uid, QMAILS: accounts.send.uid}
    put(vectors, home / "queue", whose, accounts.send.gid)
    for name in ("mail", "run"):
        (home / name).rmdir()
    return home


def guide(beginning: str, queue: Path, **names: str) -> str:
    """The command of docs/queue.md that begins so, with the names of this place for its own."""
    [line] = [one.strip() for one in GUIDE.read_text().splitlines() if one.startswith(f"    {beginning}")]
    for name, ours in {"/srv/mail/queue": str(queue), **names}.items():
        line = re.sub(rf"(?<=[ ]){name}\b", ours, line)
    return line


@ROOT
def test_a_takeover_is_one_change_that_a_give_back_undoes(taken: Path, run: Run) -> None:
    before = owners(taken / "queue")
    (thing, place, remedy), missing = findings(run, taken)
    assert thing == (
        f"is another qmail's: mess, todo, intd and pid belong to {name_of('queue')}, "
        f"and {name_of('send')} must own them"
    )
    assert place == str(taken / "queue")
    assert missing[:2] == ("is missing", str(taken / "run"))
    over, back = remedy.split("; to give it back: ")
    mend([over.partition("then: ")[2], missing[2].partition("or: ")[2]])
    assert findings(run, taken) == []
    assert {one[0] for one in owners(taken / "queue").values()} == {pwd.getpwnam(name_of("send")).pw_uid}
    mend([back])
    assert owners(taken / "queue") == before


@ROOT
def test_the_guide_takes_over_and_gives_back_as_check_says(taken: Path, run: Run) -> None:
    queue, before = taken / "queue", owners(taken / "queue")
    names = {"qmails": name_of("send"), "qmailq": name_of("queue"), "qmailr": name_of("remote")}
    over = guide("cd /srv/mail/queue && chown -R qmails", queue, **names)
    (_, _, remedy), missing = findings(run, taken)
    assert f"then: {over}; to give it back:" in remedy
    mend([over, missing[2].partition("or: ")[2]])
    assert findings(run, taken) == []
    listed = run("--home", taken, "queue", "list")
    assert (listed.code, listed.err) == (0, "")
    assert listed.out.count("\n#") + listed.out.startswith("#") == 2
    group = grp.getgrgid(find_accounts(Home(str(taken))).send.gid).gr_name
    back = guide("chown -R qmailq", queue, **names)
    mend([guide("cd /srv/mail/queue && chgrp", queue, qmail=group) + f" && {back}"])
    assert owners(queue) == before


@ROOT
def test_the_guide_takes_over_into_a_home_of_somebody_elses(own: Path, run: Run, vectors: Path) -> None:
    theirs = dict.fromkeys((QMAILQ, QMAILR, QMAILS), 1)
    put(vectors, own / "queue", theirs, 1)
    assert findings(run, own)
    mend([guide("cd /srv/mail/queue && chown -R mailer", own / "queue", mailer="nobody")])
    assert findings(run, own) == []
    assert {(uid, gid) for uid, gid, _ in owners(own / "queue").values()} == {Home(str(own)).owner}
    assert run("--home", own, "queue", "list").code == 0


# --- a home of somebody else's ---------------------------------------------------------------


def test_a_fresh_home_is_as_it_should_be(own: Path, run: Run) -> None:
    assert findings(run, own) == []
    ran = run("--home", own, "check")
    assert ran.code == 0
    assert f"{own}: owners and modes are as they should be" in ran.out


@pytest.mark.parametrize(
    ("where", "mode", "thing"),
    [
        ("queue", 0o755, "anybody, its group may read it"),
        ("queue", 0o770, "its group may read it"),
        ("control/me", 0o664, "its group may write to it"),
        ("control", 0o777, "anybody, its group may write to it"),
        ("run", 0o711, ""),
        ("mail/alice", 0o755, "anybody, its group may read it"),
        ("mail/alice/Maildir/tmp", 0o500, "may not write to it: mail for"),
        ("run", 0o500, "may not work with it"),
        ("queue/mess/0", 0o500, "may not work with it"),
    ],
)
def test_what_others_may_do_in_it_is_found(own: Path, run: Run, where: str, mode: int, thing: str) -> None:
    (own / where).chmod(mode)
    found = findings(run, own)
    assert [one[1] for one in found if thing in one[0]] == ([str(own / where)] if thing else [])
    mend([one[2] for one in found])
    assert findings(run, own) == []


@ROOT
def test_what_is_not_its_owners_is_found(own: Path, run: Run) -> None:
    os.chown(own / "control" / "me", 0, 0)
    os.chown(own / "queue" / "mess", 1, 1)
    found = findings(run, own)
    assert {(one[0], one[1]) for one in found} == {
        ("belongs to root, not to nobody", str(own / "control" / "me")),
        (f"belongs to {pwd.getpwuid(1).pw_name}, not to nobody", str(own / "queue" / "mess")),
    }
    mend([one[2] for one in found])
    assert findings(run, own) == []


def test_a_closed_home_is_its_owners_right(own: Path, run: Run) -> None:
    own.chmod(0o700)
    assert findings(run, own) == []


def test_a_part_that_is_missing_is_named(own: Path, run: Run) -> None:
    shutil.rmtree(own / "alias")
    assert [one[:2] for one in findings(run, own)] == [("is missing", str(own / "alias"))]


@pytest.mark.parametrize(
    "where",
    ["queue", "queue/info/0", "control", "control/me", "users", "users/assign", "alias", "mail/alice"],
)
def test_what_its_owner_cannot_read_is_one_finding_among_the_others(own: Path, run: Run, where: str) -> None:
    (own / "mail").chmod(0o777)
    (own / where).chmod(0)
    found = findings(run, own)
    assert {str(own / where), str(own / "mail")} <= {one[1] for one in found}
    mend([one[2] for one in found])
    assert findings(run, own) == []


@ROOT
@pytest.mark.parametrize("kind", ["home", "own"])
def test_a_program_that_its_users_cannot_read_is_told(
    kind: str, request: pytest.FixtureRequest, room: Path
) -> None:
    home = request.getfixturevalue(kind)
    (home / "control" / "bindings").write_text("*:127.0.0.1:-:\n")  # which takes more of the program
    folder, words = closed_program(room)
    words += ["--home", str(home), "check"]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    (note,) = [line for line in ran.stdout.splitlines() if line.startswith(f"note: {folder}: ")]
    assert (name_of("send") if kind == "home" else "nobody") in note
    assert ran.stderr == ""
    folder.chmod(0o755)
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert str(folder) not in ran.stdout
