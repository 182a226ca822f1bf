"""The load of the benchmark: Postfix's own smtp-source and smtp-sink, and what is read off the machine;
secured.py has the load under TLS.

Two traps are minded here.  ext4 steps over recently deleted inodes for minutes, so nothing is
deleted between rounds and `settled_disk` waits until a new file costs its usual time.  Ports in
TIME_WAIT slow `connect` down, so each round talks to a loopback address of its own.
"""

import contextlib
import os
import re
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from threading import Thread
from typing import NamedTuple

CONNECTIONS = 20
PER_CONNECTION = 50
SIZE = 2048
SENDER = "sender@client.example"
TIMEOUT = 120.0

_TICK = os.sysconf("SC_CLK_TCK")
_USUAL = 50e-6
"""Seconds that a new file may cost before a round begins."""
SETTLING = 180.0
"""Seconds that this is waited for."""


class LoadError(Exception):
    """The load did not run as asked, so its figures would mean nothing."""


def need(package: str, *programs: str) -> None:
    """Raises LoadError for one that is not there, of this package of Debian's."""
    for program in programs:
        if shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin") is None:
            raise LoadError(f"{program} is missing; as root: apt-get install {package}")


class Load(NamedTuple):
    """What smtp-source does.  `kept`: connections stay, for `each` messages or for all; else a new one
    a message.  `size`: of a body, bytes.  `recipients`: of a message, named by a number put in front.
    `apart`: each message goes to an address of its own, named so from 1 on; not with `each`."""

    kept: bool = False
    each: int = 0
    size: int = SIZE
    connections: int = CONNECTIONS
    recipients: int = 1
    apart: bool = False


def send(host: str, port: int, to: str, messages: int, load: Load) -> None:
    """Sends and returns when each message was answered."""
    portions = [messages]
    if load.each:
        whole, rest = divmod(messages, load.connections * load.each)
        portions = [load.connections * load.each] * whole + [rest] * (rest > 0)
    for portion in portions:
        command = ["/usr/sbin/smtp-source", *["-d"] * load.kept, "-s", str(load.connections)]
        command += ["-l", str(load.size), "-m", str(portion), "-f", SENDER, "-t", to]
        command += ["-r", str(load.recipients)] * (load.recipients > 1) + ["-N"] * load.apart
        command += [f"inet:{host}:{port}"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        if ran.returncode or "fatal" in ran.stderr or "warning" in ran.stderr:
            raise LoadError(f"smtp-source: exit {ran.returncode}: {ran.stderr[-500:]}")


def send_ahead(host: str, port: int, to: str, recipients: int, size: int = SIZE) -> None:
    """One message to many, its recipients named as smtp-source names them, and returns when it was
    answered.  Commands go ahead of their replies (RFC 2920), as mailing list managers and MTAs send
    them; smtp-source waits for each reply, which takes longer than most servers need to give it.
    Raises LoadError, also when that was not offered."""
    names = [to, *(f"{number}{to}" for number in range(2, recipients + 1))]
    commands = [f"MAIL FROM:<{SENDER}>", *(f"RCPT TO:<{name}>" for name in names), "DATA"]
    body = "X" * 78 + "\r\n"
    message = f"From: <{SENDER}>\r\nTo: <{to}>\r\n\r\n{body * (size // len(body))}.\r\n"
    with socket.create_connection((host, port), TIMEOUT) as client, client.makefile("rb") as replies:

        def say(text: str) -> None:
            client.sendall(text.encode("ascii"))

        def hear(expected: bytes) -> list[bytes]:
            lines = [replies.readline()]
            while lines[-1][3:4] == b"-":
                lines.append(replies.readline())
            if lines[-1][:3] != expected:
                raise LoadError(f"expected {expected!r} from {host}:{port}, it said {lines[-1][:200]!r}")
            return [line[4:].strip().upper() for line in lines]

        hear(b"220")
        say("EHLO client.example\r\n")
        if b"PIPELINING" not in hear(b"250"):
            raise LoadError(
                f"{host}:{port} does not offer PIPELINING: nothing may be sent ahead of its replies"
            )
        sending = Thread(target=say, args=("".join(f"{command}\r\n" for command in commands),))
        sending.start()  # beside it replies are read, else both sides could wait for the other
        for _ in range(1 + recipients):
            hear(b"250")
        sending.join()
        hear(b"354")
        say(message)
        hear(b"250")
        say("QUIT\r\n")
        hear(b"221")


class Sink:
    """smtp-sink, which counts what it has received into a file (`-c`)."""

    def __init__(self, port: int, counts: Path) -> None:
        self._counts = counts
        with counts.open("wb") as out:
            command = ["/usr/sbin/smtp-sink", "-c", "-u", "nobody", "-m", "1000", f"127.0.0.1:{port}", "1024"]
            self._process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        listening = f":{port:04X} 00000000:0000 0A"
        try:
            wait_until(lambda: listening in Path("/proc/net/tcp").read_text(), "smtp-sink listens")
        except LoadError:
            self.close()
            raise

    def received(self) -> int:
        with self._counts.open("rb") as counts:
            counts.seek(max(0, self._counts.stat().st_size - 200))
            found = re.findall(rb"mesg=(\d+)", counts.read())
        return int(found[-1]) if found else 0

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def wait_until(done: Callable[[], bool], what: str) -> None:
    """Looks every few milliseconds."""
    limit = time.monotonic() + TIMEOUT
    while not done():
        if time.monotonic() > limit:
            raise LoadError(f"waited in vain until {what}")
        time.sleep(0.005)


# --- what the machine tells ---------------------------------------------------------------


class LogCounts:
    """How often each of some words has come up in a log since this was made."""

    def __init__(self, log: Path, *words: bytes) -> None:
        self._log, self._counts = log, dict.fromkeys(words, 0)
        self._at = log.stat().st_size if log.exists() else 0

    def count(self, word: bytes) -> int:
        with self._log.open("rb") as log:
            log.seek(self._at)
            new = log.read()
        new = new[: new.rfind(b"\n") + 1]  # a line that is being written is looked at later
        self._at += len(new)
        for each in self._counts:
            self._counts[each] += new.count(each)
        return self._counts[word]


def processes(*roots: int) -> list[int]:
    """Some processes and their descendants."""
    children: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has just ended
        children.setdefault(parent, []).append(int(entry))
    found, todo = [], [*roots]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def memory_of(*roots: int) -> float:
    """MiB (PSS) of some processes and their descendants."""
    total = 0
    for process in processes(*roots):
        try:
            told = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue  # it has just ended
        total += sum(int(kib) for kib in re.findall(r"^Pss: +(\d+) kB$", told, re.MULTILINE))
    return total / 1024


def descriptors_of(*roots: int) -> int:
    """Open descriptors of some processes and their descendants."""
    total = 0
    for process in processes(*roots):
        with contextlib.suppress(OSError):
            total += len(os.listdir(f"/proc/{process}/fd"))
    return total


def cpu_of(*roots: int) -> float:
    """Seconds of CPU of some processes and their descendants, those that have ended included."""
    times: dict[int, float] = {}
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        times[int(entry)] = sum(map(int, fields[11:15])) / _TICK
        children.setdefault(int(fields[1]), []).append(int(entry))
    total, todo = 0.0, [*roots]
    while todo:
        process = todo.pop()
        total += times.get(process, 0.0)
        todo += children.get(process, [])
    return total


def cpu_of_one(process: int) -> float:
    """Seconds of CPU of a process alone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0  # it has just ended
    return sum(map(int, fields[11:13])) / _TICK


def settled_cpu(*roots: int, pause: float = 0.5, limit: float = 15.0) -> float:
    """The same once they have come to rest: what is left to do belongs to the messages."""
    before = cpu_of(*roots)
    for _ in range(int(limit / pause)):
        time.sleep(pause)
        now = cpu_of(*roots)
        if now - before <= 0.02:
            return now
        before = now
    return before


class Disk(NamedTuple):
    """What a new file cost at last, in seconds, and whether that is the usual."""

    cost: float
    settled: bool


def settled_disk(folders: Sequence[Path]) -> Disk:
    """Waits until a new file costs its usual time in these folders, or for as long as is bearable; what
    one costs depends on what was deleted near its folder."""
    end = time.monotonic() + SETTLING
    while True:
        costs = []
        name = f"probe-{time.monotonic_ns()}"
        for number, folder in zip(range(200), cycle(folders), strict=False):
            began = time.perf_counter()
            os.close(os.open(folder / f"{name}-{number}", os.O_CREAT | os.O_WRONLY))
            costs.append(time.perf_counter() - began)
        cost = statistics.median(costs)
        if cost <= _USUAL or time.monotonic() > end:
            return Disk(cost, cost <= _USUAL)
        time.sleep(5)
