"""The lives of the processes: each is killed, all are, or all are replaced, while clients send.

kills       one process of each role in turn, by SIGKILL: gate, local, a worker, remote, send, smtpd
supervisor  the first process; all others must end by themselves, and the next `run` goes on
reloads     HUP with a control file changed, until a greeting shows the change
upgrades    `openqmail upgrade`
chaos       any of these at random, and nobody waits until the one before is through

Eight clients send as fast as they are answered, to Maildirs here and to another host
(tests/support/sink.py), and to both at once; what was accepted is looked for there
(tests/support/sending.py).  When they are at it, one is killed.  Then one more message is sent on a
new connection, which must have its 220 and its 250 within two seconds, and there may be no process
that the supervisor does not know.  Deaths of one role are 5.5 seconds apart, as one who dies again
sooner is started ever later; between them the clients rest.  At the end the service is stopped, and
no process of it may be left.  For root it is a home of root's, with users made for the processes and
for the mail; else one of whoever runs this.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from homes import Home, Place, Waiting
from progress import Progress, say, table
from sending import Clients, account, in_maildirs
from sink import TAKES, Sink
from system_homes import system_home

ROLES = ("gate", "local", "worker", "remote", "send", "smtpd")
ALWAYS = ("gate", "local", "remote", "send", "smtpd")
"""Those of which there is one as long as the service serves."""

FAR = f"dave@{TAKES}"
CLIENTS = 8
FLOWING = 100
"""Messages that the clients have had accepted before somebody dies."""
AGAIN = 2.0
"""Seconds in which a new connection must be served when one process has died."""
SETTLED = 5.5
"""Seconds after which a process that has started counts as one that lives: before, each death of its
role makes the supervisor wait longer."""


class Answer(NamedTuple):
    """Seconds from an event until a new connection has its 220, and its message the 250."""

    what: str
    greeted: float
    accepted: float


class Sample(NamedTuple):
    """Of all processes together, at rest: memory (PSS) in bytes, open descriptors."""

    memory: int
    descriptors: int


class Outcome(NamedTuple):
    """What a run of one phase found.  `wrong` must be empty; `turned_away`: connections without a 220,
    by what came instead; `orphans`: after one has died, processes that the supervisor does not know;
    `left`: processes that outlived the stop; `code`: its exit code; `rate`: messages accepted in a
    second, while the clients work."""

    phase: str
    events: int
    accepted: int
    rate: float
    attempts: int
    turned_away: dict[str, int]
    wrong: list[str]
    repeats_here: int
    repeats_sent: int
    unanswered: int
    code: int
    orphans: list[str]
    left: list[int]
    answers: list[Answer]
    samples: list[Sample]


class Scene(NamedTuple):
    home: Home
    sink: Sink
    clients: Clients
    dice: random.Random
    answers: list[Answer]
    samples: list[Sample]
    orphans: list[str]


# --- looking at processes -----------------------------------------------------------------


def status(home: Home) -> dict[str, Any] | None:
    """As `openqmail status --json` has it; None when nobody answers just now."""
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(str(home.path / "run/admin"))
        peer.sendall(b'{"v":1,"ask":"status"}\n')
        found: dict[str, Any] = json.loads(peer.makefile("rb").readline())
        return found if found["processes"] else None
    return None


def named(home: Home, role: str) -> set[int]:
    """The pids of a role."""
    found = status(home)
    return {one["pid"] for one in found["processes"] if one["name"] == role} if found else set()


def session(leader: int) -> list[int]:
    """Processes of a session, which all children of a service are in; those that have ended and are
    not waited for left out."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                state, _, _, sid = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(sid) == leader and state != "Z":
                    found.append(int(folder.name))
    return found


def strangers(home: Home) -> set[int]:
    """Processes of the service that its supervisor does not know, or all when nobody answers."""
    assert home.process is not None
    there, found = set(session(home.process.pid)), status(home)
    return there - {one["pid"] for one in found["processes"]} if found else there


def find_orphans(scene: Scene, who: str) -> None:
    """Whoever is not known a while after one has died has outlived it."""
    with contextlib.suppress(AssertionError):
        for _ in Waiting("every process is known", 2 * AGAIN, 0.02):
            if not strangers(scene.home):
                return
    scene.orphans.append(f"after {who}: {sorted(strangers(scene.home))}")


def weigh(pids: list[int]) -> Sample:
    memory = descriptors = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            memory += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
    return Sample(memory * 1024, descriptors)


def at_rest(scene: Scene) -> Sample:
    """The clients rest, the queue is empty, those that were replaced have gone: what is there then?"""
    home = scene.home
    scene.clients.rest()
    for _ in Waiting("all is delivered, and one process of each role is left", 60, 0.05):
        found = status(home)
        if found and not found["queue"]["messages"]:
            names = sorted(
                one["name"] for one in found["processes"] if one["name"] not in ("supervisor", "worker")
            )
            if names == sorted(ALWAYS) and not any(one["work"] for one in found["processes"]):
                break
        home.signal(signal.SIGALRM)
    found = status(home)
    assert found is not None
    # How many workers are kept warm just now is chance.
    sample = weigh([one["pid"] for one in found["processes"] if one["name"] != "worker"])
    scene.clients.work()
    return sample


# --- what happens to them -----------------------------------------------------------------


def load(scene: Scene) -> None:
    """The clients begin, and are at it."""
    before = len(scene.clients.accepted)
    scene.clients.work()
    for _ in Waiting(f"the clients are at work\n{scene.home.tail()}"):
        if len(scene.clients.accepted) >= before + FLOWING:
            return


def unload(scene: Scene) -> None:
    """The clients rest until the queue has little left: what memory it takes when much waits is not
    the question here."""
    scene.clients.rest()
    for _ in Waiting(f"the queue is nearly empty\n{scene.home.tail()}", 60):
        found = status(scene.home)
        if found and found["queue"]["messages"] < FLOWING:
            return


def kills(scene: Scene, times: int, spacing: float) -> Iterator[None]:
    """Each role so many times, in turn; one of a role not before `spacing` seconds have gone."""
    home, clients, killed = scene.home, scene.clients, dict[str, float]()
    for role in ROLES * times:
        clients.rest()
        time.sleep(max(killed.get(role, 0.0) + spacing - time.monotonic(), 0.0))
        load(scene)
        for _ in Waiting(f"there is a process for {role}\n{home.tail()}"):
            if before := named(home, role):
                break
        time.sleep(scene.dice.uniform(0, 0.05))
        with contextlib.suppress(ProcessLookupError):  # a worker may have gone by itself
            os.kill(scene.dice.choice(sorted(before)), signal.SIGKILL)
        scene.answers.append(Answer(role, *clients.one_more()))
        for _ in Waiting(f"{role} is back\n{home.tail()}"):
            if role == "worker" or named(home, role) - before:
                break
        killed[role] = time.monotonic()
        find_orphans(scene, role)
        yield
    clients.work()


def supervisor(scene: Scene, times: int, spacing: float) -> Iterator[None]:
    home = scene.home
    for _ in range(times):
        time.sleep(scene.dice.uniform(0.1, 0.5))
        assert home.process is not None
        leader, began = home.process.pid, time.monotonic()
        home.process.kill()
        home.process.wait()
        for _ in Waiting("all its processes have ended"):
            if not session(leader):
                break
        gone = time.monotonic() - began
        scene.answers.append(Answer("all others gone", gone, gone))
        home.start()
        began = time.monotonic()
        scene.answers.append(Answer("run again", *scene.clients.one_more()))
        yield


def reloads(scene: Scene, times: int, spacing: float) -> Iterator[None]:
    home = scene.home
    for number in range(times):
        load(scene)
        time.sleep(scene.dice.uniform(0, 0.05))
        greeting = f"a.example number {number}"
        home.control("smtpgreeting", greeting)
        began = time.monotonic()
        home.signal(signal.SIGHUP)
        for _ in Waiting("a greeting shows the new settings", pause=0.02):
            if greeting in _greeting(scene):
                break
        passed = time.monotonic() - began
        scene.answers.append(Answer("reload", passed, passed))
        unload(scene)
        if number in (min(9, times // 3), times - 1):
            scene.samples.append(at_rest(scene))
        yield


def upgrades(scene: Scene, times: int, spacing: float) -> Iterator[None]:
    home = scene.home
    for number in range(times):
        load(scene)
        began = time.monotonic()
        home.run("upgrade")
        passed = time.monotonic() - began
        scene.answers.append(Answer("upgrade", passed, passed))
        unload(scene)
        if number in (0, times - 1):
            scene.samples.append(at_rest(scene))
        yield


def chaos(scene: Scene, times: int, spacing: float) -> Iterator[None]:
    home, dice = scene.home, scene.dice
    assert home.process is not None
    for number in range(times):
        time.sleep(dice.uniform(0, 0.3))
        what = dice.choice(("kill", "kill", "kill", "reload", "upgrade"))
        if what == "kill":
            others = [pid for pid in session(home.process.pid) if pid != home.process.pid]
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(dice.choice(others), signal.SIGKILL)
        elif what == "reload":
            home.control("smtpgreeting", f"a.example number {number}")
            home.signal(signal.SIGHUP)
        else:
            home.signal(signal.SIGUSR2)
        yield
    began = time.monotonic()
    scene.answers.append(Answer("chaos", *scene.clients.one_more()))
    for _ in Waiting(f"one of each is there again\n{home.tail()}", 60):
        found = status(home)
        if (
            found
            and set(ALWAYS) <= {one["name"] for one in found["processes"]}
            and found["state"] == "serving"
        ):
            break
    passed = time.monotonic() - began
    scene.answers.append(Answer("serving again", passed, passed))


def _greeting(scene: Scene) -> str:
    """What a new connection is told first."""
    try:
        with (
            socket.create_connection(("127.0.0.1", scene.home.port), 30) as peer,
            peer.makefile("rwb") as file,
        ):
            said = file.readline()
            file.write(b"QUIT\r\n")
            file.flush()
            file.readline()
    except OSError as error:
        scene.clients.turned_away[f"{type(error).__name__}: {error}"] += 1
        return ""
    if not said.startswith(b"220"):
        scene.clients.turned_away[repr(said)] += 1
    return said.decode()


PHASES: dict[str, Callable[[Scene, int, float], Iterator[None]]] = {
    phase.__name__: phase for phase in (kills, supervisor, reloads, upgrades, chaos)
}
REPLACED = ("reloads", "upgrades")
"""Phases in which nobody dies, so no connection may be turned away."""


# --- a run --------------------------------------------------------------------------------


@contextlib.contextmanager
def a_home() -> Iterator[tuple[Home, dict[str, str]]]:
    """Not started; with it the user of each address."""
    if os.getuid() == 0:
        with system_home("alice", "bob") as made:
            yield made, {made.address(user): user for user in made.people}
    else:
        with Place() as place:
            yield (
                place.home("a.example", "alice", "bob"),
                {f"{user}@a.example": user for user in ("alice", "bob")},
            )


def live(phase: str, times: int, seed: int, spacing: float = 0.0) -> Outcome:
    """One phase, from a new home to a clean stop."""
    with a_home() as (home, users), Sink() as sink:
        alice, bob = users
        patterns = (alice,), (FAR,), (bob, FAR)

        def recipients(number: int) -> tuple[str, ...]:
            return patterns[number % len(patterns)]

        home.control("smtproutes", sink.routes())
        home.start()
        clients = Clients(home, recipients, CLIENTS)
        scene = Scene(home, sink, clients, random.Random(seed), [], [], [])
        bar = Progress(f"{phase}", times * (len(ROLES) if phase == "kills" else 1))
        events = 0
        for events, _ in enumerate(PHASES[phase](scene, times, spacing), 1):
            bar.to(events)
        clients.stop()
        bar.done(events)
        stuck = _empty(home)
        assert home.process is not None
        leader = home.process.pid
        code = home.stop()
        found = account(clients, recipients, chain(in_maildirs(home, users), list(sink.taken)))
        wrong = [f"failed: {one}" for one in clients.failed] + [f"lost: {one}" for one in found.lost]
        wrong += [f"damaged: {one}" for one in found.damaged] + stuck
        if wrong:
            say(f"the end of the log:\n{home.tail()}")
        return Outcome(
            phase,
            events,
            len(clients.accepted),
            len(clients.accepted) / clients.worked,
            clients.attempts,
            dict(clients.turned_away),
            wrong,
            found.repeats["a.example"],
            found.repeats[TAKES],
            found.unanswered,
            code,
            scene.orphans,
            session(leader),
            scene.answers,
            scene.samples,
        )


def _empty(home: Home) -> list[str]:
    """Have the rest delivered; what is wrong if it is not."""
    try:
        for _ in Waiting("the queue is empty", 120, 0.2):
            home.signal(signal.SIGALRM)
            found = status(home)
            if found and not found["queue"]["messages"]:
                return []
    except AssertionError as error:
        return [str(error)]
    return []


def faults(found: Outcome, again: float = AGAIN) -> list[str]:
    """What must not be, of one run; `again`: seconds in which a kill must be made good."""
    wrong = list(found.wrong[:20])
    if found.code:
        wrong.append(f"the stop ended with {found.code}")
    wrong += [f"orphans {one}" for one in found.orphans]
    wrong += [
        f"after {one.what} it took {one.greeted:.2f} s until a 220, {one.accepted:.2f} s until the 250"
        for one in found.answers
        if one.what in ROLES and one.accepted > again
    ]
    if found.left:
        wrong.append(f"processes are left: {found.left}")
    if found.phase in REPLACED:
        wrong += [f"turned away: {many} times {what}" for what, many in found.turned_away.items()]
        first, last = found.samples[0], found.samples[-1]
        if last.memory > first.memory * 1.1 + (2 << 20):
            wrong.append(f"memory grew from {first.memory >> 10} to {last.memory >> 10} KiB")
        if last.descriptors > first.descriptors + 16:  # to workers and hosts that are kept just now
            wrong.append(f"descriptors grew from {first.descriptors} to {last.descriptors}")
    return wrong


def show(outcomes: list[Outcome]) -> str:
    head = (
        "phase",
        "times",
        "accepted",
        "a second",
        "attempts",
        "turned away",
        "repeated here",
        "sent again",
        "wrong",
    )
    rows = [
        (
            found.phase,
            found.events,
            found.accepted,
            round(found.rate),
            found.attempts,
            sum(found.turned_away.values()),
            found.repeats_here,
            found.repeats_sent,
            len(faults(found)),
        )
        for found in outcomes
    ]
    parts = [table(head, rows)]
    answers = [answer for found in outcomes for answer in found.answers]
    times = [
        (what, [one for one in answers if one.what == what])
        for what in dict.fromkeys(a.what for a in answers)
    ]
    parts.append(
        table(
            ("seconds until", "220, median", "220, most", "250, median", "250, most"),
            [
                (
                    f"after {what}" if what in ROLES else what,
                    *_middle_and_most([one.greeted for one in some]),
                    *_middle_and_most([one.accepted for one in some]),
                )
                for what, some in times
            ],
        )
    )
    if weighed := [found for found in outcomes if found.samples]:
        parts.append(
            table(
                ("at rest", "memory early", "at the end, KiB", "descriptors early", "at the end"),
                [
                    (
                        found.phase,
                        found.samples[0].memory >> 10,
                        found.samples[-1].memory >> 10,
                        found.samples[0].descriptors,
                        found.samples[-1].descriptors,
                    )
                    for found in weighed
                ],
            )
        )
    return "\n\n".join(parts)


def _middle_and_most(seconds: list[float]) -> tuple[str, str]:
    return f"{statistics.median(seconds):.3f}", f"{max(seconds):.3f}"


TIMES = {"kills": 50, "supervisor": 10, "reloads": 100, "upgrades": 10, "chaos": 200}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phase", action="append", choices=list(PHASES), help="this one; may be repeated")
    parser.add_argument(
        "--times", type=int, help="instead of " + ", ".join(f"{n} {p}" for p, n in TIMES.items())
    )
    parser.add_argument("--seed", type=int, default=None, help="of the moments; told at the end")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    outcomes = []
    for phase in arguments.phase or PHASES:
        outcomes.append(live(phase, arguments.times or TIMES[phase], seed, SETTLED))
    say("\n" + show(outcomes) + f"\n\nseed {seed}")
    wrong = [f"{found.phase}: {line}" for found in outcomes for line in faults(found)]
    for line in wrong:
        say(f"WRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
