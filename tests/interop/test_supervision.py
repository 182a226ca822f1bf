"""Under the supervision of Debian's daemontools and runit: started, told, followed and ended by them; and
whether systemd understands our units."""

import contextlib
import os
import re
import shlex
import signal
import smtplib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from homes import Home, Place, Waiting, command

Program = Callable[[str], str]


class Supervised(NamedTuple):
    """A service directory, and how its supervisor's tool is told (`-t`, or `term`) and asked.

    `status`: prints what the supervisor knows, with the pid of the first process."""

    folder: Path
    home: Home
    tell: Callable[[str], None]
    status: Callable[[], str]
    log: Path

    def pid(self) -> int:
        """Of the service, as its supervisor sees it; 0 when it is down."""
        found = re.search(r"\(?pid (\d+)\)", self.status())
        return int(found[1]) if found else 0


ROOT = Path(__file__).resolve().parents[2]


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def service(place: Place, home: Home, logger: str) -> tuple[Path, Path]:
    """A service directory with a log, and the folder that the log goes to."""
    folder, log = place.path / "service", place.path / "log"
    log.mkdir()
    run = shlex.join([*command(), "--home", str(home.path), "run"])
    executable(folder / "run", f"#!/bin/sh\nexec 2>&1\nexec {run}\n")
    executable(folder / "log/run", f"#!/bin/sh\nexec {logger} {log}\n")
    return folder, log


def told(*words: str) -> str:
    ran = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0, ran
    return ran.stdout


@contextlib.contextmanager
def ended(*started: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ends them, and whatever they have started, with their sessions."""
    try:
        yield
    finally:
        for one in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)
            one.wait()


@pytest.fixture
def daemontools(place: Place, home: Home, program: Program) -> Iterator[Supervised]:
    supervise, svc, svstat = program("supervise"), program("svc"), program("svstat")
    folder, log = service(place, home, f"{program('multilog')} t s1000000")
    read, write = os.pipe()
    main = subprocess.Popen([supervise, str(folder)], stdout=write, stderr=write, start_new_session=True)
    logger = subprocess.Popen([supervise, str(folder / "log")], stdin=read, start_new_session=True)
    os.close(read)
    os.close(write)
    with ended(main, logger):
        for _ in Waiting("supervise takes orders"):
            if (folder / "supervise/ok").exists() and not subprocess.run([svstat, folder]).returncode:
                break
        yield Supervised(
            folder,
            home,
            lambda what: told(svc, what, str(folder)) and None,
            lambda: told(svstat, str(folder)),
            log,
        )
        told(svc, "-dx", str(folder))
        main.wait(30)
        told(svc, "-dx", str(folder / "log"))


@pytest.fixture
def runit(place: Place, home: Home, program: Program) -> Iterator[Supervised]:
    runsv, sv = program("runsv"), program("sv")
    folder, log = service(place, home, f"{program('svlogd')} -tt")
    main = subprocess.Popen([runsv, str(folder)], start_new_session=True)
    with ended(main):
        for _ in Waiting("runsv takes orders"):
            if subprocess.run([sv, "status", folder], capture_output=True).stdout.startswith(b"run"):
                break

        def status() -> str:
            return subprocess.run([sv, "status", folder], capture_output=True, text=True).stdout.split(";")[0]

        yield Supervised(folder, home, lambda what: told(sv, what, str(folder)) and None, status, log)
        told(sv, "exit", str(folder))
        main.wait(30)


def wait_log(one: Supervised, text: str, count: int = 1) -> None:
    """Until the log that the supervisor's logger writes says it so often."""
    current = one.log / "current"
    for _ in Waiting(f"{current} says {text!r}"):
        if current.exists() and current.read_text(errors="replace").count(text) >= count:
            return


def send(home: Home, text: str) -> None:
    with smtplib.SMTP("127.0.0.1", home.port, timeout=30) as smtp:
        smtp.sendmail("s@c.example", ["alice@a.example"], f"Subject: {text}\r\n\r\n{text}\r\n")


def assert_supervised(one: Supervised, hangup: str, terminate: str, down: str, kill: str) -> None:
    """The life of a service, with the words of its supervisor's tool."""
    home = one.home
    wait_log(one, " serving ")
    first = one.pid()
    assert first == home.status()["pid"]
    send(home, "first")
    wait_log(one, "delivery 1: success")

    home.control("smtpgreeting", "a.example has changed")
    one.tell(hangup)
    wait_log(one, "took the new settings")
    assert one.pid() == first, "a reload is no restart"

    one.tell(terminate)
    wait_log(one, "status: exiting")
    wait_log(one, " serving ", 2)
    second = one.pid()
    assert second == home.status()["pid"] != first
    with smtplib.SMTP(timeout=30) as smtp:
        assert b"has changed" in smtp.connect("127.0.0.1", home.port)[1]
    send(home, "second")
    home.wait_mails("alice", 2)  # a delivery that is cut off waits for its next time

    one.tell(kill)
    wait_log(one, " serving ", 3)
    send(home, "third")
    texts = {mail.rpartition(b"\n\n")[2] for mail in home.wait_mails("alice", 3)}
    assert texts == {b"first\n", b"second\n", b"third\n"}

    one.tell(down)
    wait_log(one, "status: exiting", 2)
    for _ in Waiting("its supervisor sees it down"):
        if not one.pid():
            break
    assert home.run("status", check=False).returncode == 100


@pytest.mark.timeout(180)
def test_daemontools_supervises_us_and_multilog_takes_the_log(daemontools: Supervised) -> None:
    assert_supervised(daemontools, "-h", "-t", "-d", "-k")
    lines = (daemontools.log / "current").read_text().splitlines()
    assert all(re.match(r"@[0-9a-f]{24} ", line) for line in lines), "each line has multilog's stamp"


@pytest.mark.timeout(180)
def test_runit_supervises_us_and_svlogd_takes_the_log(runit: Supervised) -> None:
    assert_supervised(runit, "hup", "term", "down", "kill")


@pytest.mark.parametrize("name", ["openqmail.service", "openqmail.socket"])
def test_systemd_understands_every_line_of_our_units(place: Place, program: Program, name: str) -> None:
    analyze = program("systemd-analyze")
    for unit in (ROOT / "docs/systemd").iterdir():
        text = unit.read_text().replace("/usr/local/bin/openqmail", program("true"))
        (place.path / unit.name).write_text(text)
    ran = subprocess.run(
        [analyze, "verify", "--man=no", str(place.path / name)], capture_output=True, text=True, timeout=60
    )
    ours = [line for line in ran.stderr.splitlines() if "openqmail." in line]
    assert (ran.returncode, ours) == (0, []), ran.stderr
