"""Homes made by the real `openqmail init`, and services run by the real `openqmail run`.

A `Place` is a folder for homes that everything in it leaves again: services are ended, files
removed.  Only loopback is used.  Run by root, homes belong to `nobody`, who can reach them.
"""

import contextlib
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

OWNER = "nobody"
PATIENCE = 30.0
"""Seconds until something that must come soon is missed."""


def command() -> list[str]:
    """`openqmail` as the environment variable OPENQMAIL names it, else of this interpreter."""
    if named := os.environ.get("OPENQMAIL"):
        return [named]
    script = Path(sys.executable).with_name("openqmail")
    if script.exists():
        return [str(script)]
    return [
        sys.executable,
        "-c",
        "import sys; from openqmail.core.commands.main import main; sys.exit(main())",
    ]


def openqmail(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; a failure shows what it said."""
    ran = subprocess.run(
        [*command(), *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if check and ran.returncode:
        raise AssertionError(
            f"openqmail {' '.join(map(str, arguments))}: exit {ran.returncode}\n{ran.stderr}"
        )
    return ran


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on, below those that the kernel gives to outgoing connections."""
    while True:
        port = random.randrange(10240, 32000)
        with contextlib.suppress(OSError), socket.socket() as trial:
            trial.bind((host, port))
            return port


class Waiting:
    """`for _ in Waiting("the queue is empty")`: looks again until it is broken out of, or fails."""

    def __init__(self, what: str, seconds: float = PATIENCE, pause: float = 0.01) -> None:
        self._what, self._seconds, self._pause = what, seconds, pause

    def __iter__(self) -> Iterator[float]:
        began = time.monotonic()
        while (passed := time.monotonic() - began) < self._seconds:
            yield passed
            time.sleep(self._pause)
        raise AssertionError(f"waited {self._seconds:.0f} seconds in vain until {self._what}")


class Home:
    """One home and its service."""

    def __init__(
        self, path: Path, me: str, users: Sequence[str], listen: Sequence[str], options: Sequence[str]
    ) -> None:
        self.path, self.me = path, me
        self.port = free_port()
        self.log = path.with_name(path.name + ".log")
        self.process: subprocess.Popen[bytes] | None = None
        listeners = listen or [f"smtp 127.0.0.1:{self.port}"]
        owner = ["--owner", OWNER] if os.getuid() == 0 else []
        told = [part for name in users for part in ("--user", name)]
        told += [part for line in listeners for part in ("--listen", line)]
        openqmail("init", path, "--me", me, *told, *owner, *options)

    # --- control -----------------------------------------------------------------------

    def control(self, name: str, text: str | None) -> None:
        """Writes a control file, or removes it."""
        file = self.path / "control" / name
        if text is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(text if text.endswith("\n") else text + "\n")
            file.chmod(0o644)

    def run(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`openqmail --home HOME ...`"""
        return openqmail("--home", self.path, *arguments, check=check)

    # --- the service -------------------------------------------------------------------

    def spawn(self, *options: str, groups: Sequence[int] | None = None, onto: int = -1) -> None:
        """Starts the service and does not wait; the log gets on.  `groups`: of who runs it, a root;
        `onto`: where it writes its log, if not to the file; whoever reads there copies it."""
        with self.log.open("ab") if onto < 0 else open(onto, "ab", closefd=False) as log:
            self.process = subprocess.Popen(
                [*command(), "--home", str(self.path), "run", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                extra_groups=groups,
            )

    def start(self, *options: str) -> None:
        """Starts the service and waits until it says that it serves."""
        before = self.log.stat().st_size if self.log.exists() else 0
        self.spawn(*options)
        self.wait_serving(before)

    def wait_serving(self, before: int = 0) -> None:
        """Until the log says so behind the byte `before`; a service that ended is told with its log."""
        assert self.process is not None
        for _ in Waiting(f"{self.me} serves"):
            with self.log.open("rb") as log:
                log.seek(before)
                if b"serving" in log.read():
                    return
            if self.process.poll() is not None:
                raise AssertionError(f"{self.me} ended with {self.process.returncode}:\n{self.tail()}")

    def kill(self) -> None:
        """SIGKILL to every process of the service."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def halt(self) -> None:
        """SIGSTOP, and waits until no thread of it runs any more; calls that are in the kernel go on."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)
        for _ in Waiting(f"{self.me} has halted", pause=0.0005):
            if not any(state in "RS" for state in self._states()):
                return

    def _states(self) -> Iterator[str]:
        """What the threads of its processes do, as the kernel's letters (proc(5))."""
        for pid in self.pids_of_all():
            with contextlib.suppress(OSError):  # it has ended
                for task in Path(f"/proc/{pid}/task").iterdir():
                    yield (task / "stat").read_text().rpartition(")")[2].split()[0]

    def pids_of_all(self) -> list[int]:
        """Every process of the service, workers too: they are one group."""
        assert self.process is not None
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended
                if int((process / "stat").read_text().rpartition(")")[2].split()[2]) == self.process.pid:
                    found.append(int(process.name))
        return found

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """TERM, and the exit code of the drained service."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(PATIENCE)
        self.process = None
        return code

    def restart(self) -> None:
        self.kill()
        self.start()

    def tail(self, size: int = 4000) -> str:
        """The end of its log."""
        return self.log.read_bytes()[-size:].decode(errors="replace") if self.log.exists() else ""

    # --- what it holds -----------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """`openqmail status --json`"""
        ran = self.run("status", "--json", check=False)
        if not ran.stdout:
            raise AssertionError(f"status: exit {ran.returncode}: {ran.stderr}\n{self.tail()}")
        found: dict[str, Any] = json.loads(ran.stdout)
        return found

    def queue(self) -> list[dict[str, Any]]:
        """`openqmail queue list --json`"""
        return [json.loads(line) for line in self.run("queue", "list", "--json").stdout.splitlines()]

    def maildir(self, user: str) -> Path:
        return self.path / "mail" / user / "Maildir"

    def mails(self, user: str) -> list[bytes]:
        """Every mail of a user, in the order of the file names."""
        maildir = self.maildir(user)
        files = [*(maildir / "new").iterdir(), *(maildir / "cur").iterdir()]
        return [file.read_bytes() for file in sorted(files, key=lambda file: file.name)]

    def wait_mails(self, user: str, count: int, seconds: float = PATIENCE) -> list[bytes]:
        """Until a user has at least so many."""
        for _ in Waiting(f"{user}@{self.me} has {count} mails\n{self.tail()}", seconds):
            if len(found := self.mails(user)) >= count:
                return found
        raise AssertionError

    def wait_empty(self, but: int = 0, seconds: float = PATIENCE) -> None:
        """Until the queue holds no more than so many messages."""
        for _ in Waiting(f"the queue of {self.me} holds no more than {but}", seconds, 0.1):
            if self.status()["queue"]["messages"] <= but:
                return


class Place:
    """A folder for homes; leaving it ends their services and removes it (unless `keep`)."""

    def __init__(self, keep: bool = False, under: str | None = None) -> None:
        self.keep = keep
        self.path = Path(tempfile.mkdtemp(prefix="openqmail-", dir=under))
        self.path.chmod(0o755)
        if os.getuid() == 0:
            entry = pwd.getpwnam(OWNER)
            os.chown(self.path, entry.pw_uid, entry.pw_gid)
        self.homes: list[Home] = []

    def home(self, me: str, *users: str, listen: Sequence[str] = (), options: Sequence[str] = ()) -> Home:
        made = Home(self.path / me, me, users, listen, options)
        self.homes.append(made)
        return made

    def __enter__(self) -> "Place":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for home in self.homes:
            home.kill()
        if not self.keep:
            shutil.rmtree(self.path, ignore_errors=True)
