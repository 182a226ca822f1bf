"""Who makes a hook: the process that asks it, and before that one like it, to try; never the supervisor.

That process ends when its hooks have done what they were told."""

import os
import re
import signal
import smtplib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from homes import Home, Place, Waiting
from openqmail.core.control import extensions
from openqmail.core.control.extensions import Entry
from openqmail.core.control.reader import defaults
from openqmail.core.control.settings import HookLine
from openqmail.core.log import MemoryLog
from openqmail.core.service.confine import landlock
from openqmail.core.service.supervisor import making
from openqmail.core.values import ControlError
from openqmail.core.world import SystemClock
from system_homes import SystemHome, system_home

MAKES = """
import asyncio, os, threading
from pathlib import Path

from openqmail.core.log import Notice

class Making:
    mail = forward = prepare = lambda self, *facts: None

    def __init__(self, context):
        if context.place == "smtpd":
            self.run = context.programs.run
        asyncio.get_running_loop()
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        who = f"{os.getpid()} {os.getuid()} {os.getgid()} {os.getgroups()}"
        context.log(Notice(f"made {context.place} {who}"))
        more = Path(__file__).with_name(context.place)
        if more.exists():
            exec(more.read_text())
"""
HANGS = """
import asyncio, threading

class Making:
    def __init__(self, context): ...

    async def %s(self, *facts):
        asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
"""
MADE = re.compile(r"made (\w+) (\d+) (\d+) (\d+) \[(\d+)\]")


@pytest.fixture(params=["of root's", "of its owner's"])
def home(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """Not started, with a hook that tells who makes it, and does what its folder has in a file PLACE."""
    if request.param == "of root's":
        if os.geteuid():
            pytest.skip("only root makes users and runs as them")
        with system_home("alice") as made:
            yield with_hook(made, monkeypatch)
    else:
        with Place() as place:
            yield with_hook(place.home("a.example", "alice"), monkeypatch)


def with_hook(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    folder = addon(home)
    (folder / "making-1.dist-info").mkdir(parents=True)
    (folder / "making-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: making\nVersion: 1\n")
    (folder / "making-1.dist-info/entry_points.txt").write_text("[openqmail.hooks]\nmaking = making:Making\n")
    (folder / "making.py").write_text(MAKES)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{os.environ.get('PYTHONPATH', '')}")
    home.control("hooks", "making")
    return home


def addon(home: Home) -> Path:
    return home.path / "addon"


def makers(home: Home) -> list[tuple[str, int, tuple[int, ...]]]:
    """Place, pid, and uid, gid and groups of each that has made the hook."""
    found = MADE.findall(home.tail(100_000))
    return [(place, int(pid), tuple(map(int, ids))) for place, pid, *ids in found]


def ids_of(home: Home, place: str) -> tuple[int, ...]:
    if isinstance(home, SystemHome):
        one = home.account(place)
        return one.pw_uid, one.pw_gid, one.pw_gid
    owner = home.path.stat()
    return owner.st_uid, owner.st_gid, owner.st_gid


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def test_who_asks_a_hook_makes_it_and_who_has_tried_is_gone(home: Home) -> None:
    home.start()
    assert home.process is not None
    for life in (1, 2):
        for _ in Waiting(f"the hook is made {6 * life} times"):  # a process's log comes after its work
            if len(found := makers(home)) >= 6 * life and home.tail().count("took the new") == life - 1:
                break
        assert sorted(place for place, _, _ in found) == sorted(["smtpd", "send", "remote"] * 2 * life)
        assert [ids for _, _, ids in found] == [ids_of(home, place) for place, _, _ in found]
        pids = [pid for _, pid, _ in found]
        assert home.process.pid not in pids
        assert len(set(pids)) == (6 if life == 1 else 11), "send stays, and makes its own anew"
        assert threads(home.process.pid) == 1, "what a constructor begins is not the supervisor's"
        home.signal(signal.SIGHUP)
    assert home.stop() == 0


@pytest.mark.parametrize(
    ("place", "step", "facts"),
    [("smtpd", "reset", "session, why"), ("remote", "finished", "delivery, results")],
)
def test_what_a_hook_is_told_last_it_does_to_the_end(home: Home, place: str, step: str, facts: str) -> None:
    (addon(home) / place).write_text(
        f"async def told({facts}, log=context.log, later=asyncio.sleep):\n"
        f"    log(Notice('{step} is told'))\n"
        f"    await later(1)\n"
        f"    log(Notice('{step} is done'))\n"
        f"self.{step} = told\n"
    )
    home.control("smtproutes", ":[127.0.0.1]:9")
    home.start()
    with smtplib.SMTP("127.0.0.1", home.port, timeout=30) as client:
        if place == "remote":
            (home.path / "alias/.qmail-away").write_text("&bob@far.example\n")
            client.sendmail("x@y.example", "away@a.example", "Subject: hello\n\ntext\n")
    for _ in Waiting("the hook is told"):
        if f"{step} is told" in home.tail():
            break
    assert home.stop() == 0
    assert home.tail().count(f"{step} is told") == home.tail().count(f"{step} is done") > 0


@pytest.mark.parametrize("place", ["smtpd", "send", "remote"])
def test_what_a_constructor_tries_is_held_by_the_walls_of_its_place(home: Home, place: str) -> None:
    """A start that would have let it in as root, or with the owner's rights, ends there."""
    secret = home.path / "secret"
    secret.write_text("of the home's owner")
    secret.chmod(0o600)
    os.chown(secret, home.path.stat().st_uid, -1)
    if not isinstance(home, SystemHome) and landlock.lacking():
        pytest.skip("without Landlock the owner's rights are all that there is")
    (addon(home) / place).write_text(f"open({str(secret)!r}).read()\n")
    home.spawn()
    assert home.process is not None
    assert home.process.wait(30) == 100
    said = f"the hook 'making' (making:Making) cannot be made in {place}: PermissionError: "
    assert said in home.tail() and f"'{secret}' (" in home.tail()


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (
            "raise ValueError('no such luck')",
            "control/hooks, line 1: the hook 'making' (making:Making) cannot be made in remote: "
            "ValueError('no such luck') (",
        ),
        ("raise SystemExit(3)", "cannot be made in remote: SystemExit(3) ("),
        ("os._exit(0)", "control/hooks: its hooks cannot be made in remote: the process that tried it died"),
    ],
)
def test_a_hook_that_cannot_be_made_any_more_leaves_all_as_it_was(home: Home, does: str, said: str) -> None:
    home.start()
    before = {one["name"]: one["pid"] for one in home.status()["processes"]}
    (addon(home) / "remote").write_text(does)
    home.signal(signal.SIGHUP)
    for _ in Waiting("the supervisor says so"):
        if "the settings stay as they were: " in home.tail():
            break
    assert said in home.tail()
    assert {one["name"]: one["pid"] for one in home.status()["processes"]} == before
    assert home.stop() == 0


def test_one_that_hangs_while_it_is_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hanging.py").write_text("import time\n\ndef hang(context):\n    time.sleep(1000)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = {"hangs": Entry("openqmail.hooks", "hangs", "hanging:hang")}
    monkeypatch.setattr(extensions, "registered", lambda group: entries)
    monkeypatch.setattr(making, "PATIENCE", 0.05)
    settings = msgspec.structs.replace(defaults(b"a.example"), hooks=(HookLine("hangs", number=1),))
    said = r"line 1: the hook 'hangs' .*TimeoutError\('took longer than 0.05 seconds'\) \(hanging.py:4\)"
    before = signal.getsignal(signal.SIGALRM)
    try:
        with pytest.raises(ControlError, match=said):
            making._make(settings, MemoryLog(), SystemClock(), "smtpd")
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("step", ["data", "forward"])
def test_a_service_ends_although_a_hook_does_not(home: Home, step: str) -> None:
    """It hangs in a thread of its own, and nobody waits for that."""
    (addon(home) / "making.py").write_text(HANGS % step)
    (home.path / "alias/.qmail-away").write_text("&alice@a.example\n")
    home.control("checkrcpt", "0")
    home.start()
    with smtplib.SMTP("127.0.0.1", home.port, timeout=30) as client:
        client.sendmail("x@y.example", ["away@a.example"], "Subject: a\r\n\r\nhello\r\n")
    for _ in Waiting("it is forwarded"):
        if home.tail(100_000).count("end msg ") == 2:
            break
    assert home.stop() == 0
    assert "killed" not in home.tail(100_000)
