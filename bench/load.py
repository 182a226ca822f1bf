"""The load of the benchmark: Postfix's own smtp-source and smtp-sink, and what is read off the machine.

Two traps are minded here.  ext4 steps over recently deleted inodes for minutes, so nothing is
deleted between rounds and `settled_disk` waits until a new file costs its usual time.  Ports in
TIME_WAIT slow `connect` down, so each round talks to a loopback address of its own.
"""

import os
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

CONNECTIONS = 20
PER_CONNECTION = 50
SIZE = 2048
SENDER = "sender@client.example"
TIMEOUT = 120.0

_TICK = os.sysconf("SC_CLK_TCK")
_USUAL = 100e-6
"""Seconds that a new file may cost before a round begins."""
SETTLING = 180.0
"""Seconds that this is waited for."""


class LoadError(Exception):
    """The load did not run as asked, so its figures would mean nothing."""


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin") is None:
            raise LoadError(f"{program} is missing; as root: apt-get install postfix")


def send(host: str, port: int, to: str, messages: int, kept: bool, each: int = 0) -> None:
    """Sends and returns when each message was answered.  `kept`: the connections stay, for `each`
    messages or for all; else a new one a message."""
    portions = [messages]
    if each:
        whole, rest = divmod(messages, CONNECTIONS * each)
        portions = [CONNECTIONS * each] * whole + [rest] * (rest > 0)
    for portion in portions:
        command = ["/usr/sbin/smtp-source", *["-d"] * kept, "-s", str(CONNECTIONS), "-l", str(SIZE)]
        command += ["-m", str(portion), "-f", SENDER, "-t", to, f"inet:{host}:{port}"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        if ran.returncode or "fatal" in ran.stderr or "warning" in ran.stderr:
            raise LoadError(f"smtp-source: exit {ran.returncode}: {ran.stderr[-500:]}")


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


def cpu_of(root: int) -> float:
    """Seconds of CPU of a process and its descendants, those that have ended included."""
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
    total, todo = 0.0, [root]
    while todo:
        process = todo.pop()
        total += times.get(process, 0.0)
        todo += children.get(process, [])
    return total


def settled_cpu(root: int, pause: float = 0.5, limit: float = 15.0) -> float:
    """The same once the process has come to rest: what is left to do belongs to the messages."""
    before = cpu_of(root)
    for _ in range(int(limit / pause)):
        time.sleep(pause)
        now = cpu_of(root)
        if now - before <= 0.02:
            return now
        before = now
    return before


class Disk(NamedTuple):
    """What a new file cost at last, in seconds, and whether that is the usual."""

    cost: float
    settled: bool


def settled_disk(folder: Path) -> Disk:
    """Waits until a new file costs its usual time there, or for as long as is bearable."""
    end = time.monotonic() + SETTLING
    while True:
        probe = folder / f"probe-{time.monotonic_ns()}"
        probe.mkdir()
        costs = []
        for number in range(200):
            began = time.perf_counter()
            os.close(os.open(probe / str(number), os.O_CREAT | os.O_WRONLY))
            costs.append(time.perf_counter() - began)
        cost = statistics.median(costs)
        if cost <= _USUAL or time.monotonic() > end:
            return Disk(cost, cost <= _USUAL)
        time.sleep(5)
