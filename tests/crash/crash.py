"""Kills with SIGKILL at random moments while clients send, and counts what is there.

serving      the whole service, while it serves, and one time in five while it starts
recovering   again, up to three times, while it recovers from the kill before
moving       while the other host is away, so that its mail is deferred and leaves the journal
stopping     shortly after a TERM, while what stays leaves the journal
parts        the other host, or a client in the middle of what it says; the service lives on

The clients and the account are those of tests/support/sending.py: what was accepted is looked for in
the Maildirs here and at the second home that it is relayed to.
"""

import argparse
import contextlib
import random
import signal
import sys
import time
from collections.abc import Callable
from itertools import chain
from typing import NamedTuple

from homes import Home, Place, Waiting
from progress import Progress, say, table
from sending import Clients, account, in_maildirs

RECIPIENTS = (
    ("alice@a.example",),
    ("bob@a.example",),
    ("alice@a.example", "bob@a.example"),
    ("carol@b.example",),
    ("alice@a.example", "carol@b.example"),
)
HERE = {"alice@a.example": "alice", "bob@a.example": "bob"}
THERE = {"carol@b.example": "carol"}


class Outcome(NamedTuple):
    """What a run of one phase found; `failed`, `lost` and `damaged` must be empty."""

    phase: str
    accepted: int
    kills: int
    restarts: int
    attempts: int
    recipients: int
    failed: list[str]
    lost: list[str]
    damaged: list[str]
    repeats_here: int
    repeats_relayed: int
    unanswered: int


def recipients(number: int) -> tuple[str, ...]:
    return RECIPIENTS[number % len(RECIPIENTS)]


class Scene(NamedTuple):
    """`first` takes the mail; what is for `second` is relayed."""

    first: Home
    second: Home
    clients: Clients
    dice: random.Random


class Struck(NamedTuple):
    kills: int
    starts: int


def serving(scene: Scene) -> Struck:
    kills = 1
    scene.first.kill()
    while scene.dice.random() < 0.2:
        _kill_while_it_starts(scene)
        kills += 1
    scene.first.start()
    return Struck(kills, kills)


def recovering(scene: Scene) -> Struck:
    scene.first.kill()
    times = scene.dice.randint(1, 3)
    for _ in range(times):
        _kill_while_it_starts(scene)
    scene.first.start()
    return Struck(1 + times, 1 + times)


def moving(scene: Scene) -> Struck:
    _other_host_goes_or_comes(scene)
    time.sleep(scene.dice.uniform(0, 0.3))
    scene.first.kill()
    scene.first.start()
    return Struck(1, 1)


def stopping(scene: Scene) -> Struck:
    _other_host_goes_or_comes(scene)
    time.sleep(scene.dice.uniform(0, 0.2))
    scene.first.signal(signal.SIGTERM)
    time.sleep(scene.dice.uniform(0, 0.3))
    scene.first.kill()
    scene.first.start()
    return Struck(1, 1)


def parts(scene: Scene) -> Struck:
    if scene.dice.random() < 0.5:
        scene.clients.die(scene.dice)
        return Struck(1, 0)
    scene.second.kill()
    time.sleep(scene.dice.uniform(0, 0.2))
    scene.second.start()
    scene.first.signal(signal.SIGALRM)
    return Struck(1, 1)


def _kill_while_it_starts(scene: Scene) -> None:
    scene.first.spawn()
    time.sleep(scene.dice.uniform(0, 0.6))
    scene.first.kill()


def _other_host_goes_or_comes(scene: Scene) -> None:
    """Mail for it is deferred, or what was deferred is tried from where it lies."""
    if scene.second.process is not None:
        scene.second.kill()
    else:
        scene.second.start()
        scene.first.signal(signal.SIGALRM)


PHASES: dict[str, Callable[[Scene], Struck]] = {
    strike.__name__: strike for strike in (serving, recovering, moving, stopping, parts)
}


def kill_at_random(scene: Scene, strike: Callable[[Scene], Struck], messages: int, kills: int) -> Struck:
    """Kills, spread over the whole run.  Returns how many kills and starts there were."""
    done = starts = 0
    bar = Progress(f"accepted, {strike.__name__}", messages)
    marks = sorted(scene.dice.sample(range(1, messages), min(kills, messages - 1)))
    while (busy := scene.clients.busy) or done < kills:
        count = len(scene.clients.accepted)
        bar.to(count)
        # When the clients are through, what is queued and delivered is not.
        if done < kills and (not busy or count >= marks[min(done, len(marks) - 1)]):
            time.sleep(scene.dice.uniform(0, 0.05))
            struck = strike(scene)
            done, starts = done + struck.kills, starts + struck.starts
        time.sleep(0.002)
    bar.done(len(scene.clients.accepted), f", {done} kills")
    return Struck(done, starts)


def crash(
    place: Place, messages: int, kills: int, clients: int, seed: int, phase: str = "serving"
) -> Outcome:
    """One phase, the whole of it."""
    first = place.home("a.example", "alice", "bob")
    second = place.home("b.example", "carol")
    first.control("smtproutes", f"b.example:127.0.0.1:{second.port}")
    for home in (second, first):
        home.start()
    scene = Scene(first, second, Clients(first, recipients, clients, messages), random.Random(seed))
    struck = kill_at_random(scene, PHASES[phase], messages, kills)
    senders = scene.clients
    if second.process is None:
        second.start()
    with contextlib.suppress(AssertionError):  # what is still queued then shows as lost
        for _ in Waiting("both queues are empty", 120, 0.3):
            first.signal(signal.SIGALRM)
            second.signal(signal.SIGALRM)
            if not first.status()["queue"]["messages"] and not second.status()["queue"]["messages"]:
                break
    arrived = chain(in_maildirs(first, HERE), in_maildirs(second, THERE))
    found = account(senders, recipients, arrived)
    if found.lost or found.damaged or senders.failed:
        say(f"the end of the log:\n{first.tail()}")
    return Outcome(
        phase,
        len(senders.accepted),
        struck.kills,
        struck.starts,
        senders.attempts,
        found.recipients,
        senders.failed,
        found.lost,
        found.damaged,
        found.repeats["a.example"],
        found.repeats["b.example"],
        found.unanswered,
    )


def show(found: Outcome, seed: int) -> str:
    """One phase, in full."""
    rows = [
        ("accepted (250 seen)", found.accepted),
        ("recipients of these", found.recipients),
        ("kills", found.kills),
        ("starts after a kill", found.restarts),
        ("failed (not accepted)", len(found.failed)),
        ("lost", len(found.lost)),
        ("damaged", len(found.damaged)),
        ("repeated in Maildirs here", found.repeats_here),
        ("repeated at the other host", found.repeats_relayed),
        ("attempts of clients", found.attempts),
        ("attempts without an answer that arrived as well", found.unanswered),
        ("seed", seed),
    ]
    return table((found.phase, "count"), rows)


def show_phases(outcomes: list[Outcome]) -> str:
    head = ("phase", "accepted", "kills", "failed", "lost", "damaged", "repeated here", "at the other host")
    rows = [
        (
            found.phase,
            found.accepted,
            found.kills,
            len(found.failed),
            len(found.lost),
            len(found.damaged),
            found.repeats_here,
            found.repeats_relayed,
        )
        for found in outcomes
    ]
    return table(head, rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=20_000, help="while serving; a fifth in the others")
    parser.add_argument("--kills", type=int, default=200, help="while serving; a fifth in the others")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--phase", action="append", choices=list(PHASES), help="this one; may be repeated")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; told in the table")
    parser.add_argument("--keep", action="store_true", help="leave the homes in place")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    outcomes = []
    wrong: list[str] = []
    for phase in arguments.phase or PHASES:
        messages, kills = arguments.messages, arguments.kills
        if phase != "serving":
            messages, kills = max(messages // 5, 2), max(kills // 5, 1)
        with Place(arguments.keep) as place:
            found = crash(place, messages, kills, arguments.clients, seed, phase)
        outcomes.append(found)
        wrong += [f"{phase}: {line}" for line in found.failed[:20] + found.lost[:20] + found.damaged[:20]]
        if found.accepted != messages:
            wrong.append(f"{phase}: {messages - found.accepted} of {messages} messages were not accepted")
    say("\n" + show(outcomes[0], seed))
    if len(outcomes) > 1:
        say("\n" + show_phases(outcomes))
    for line in wrong:
        say(f"WRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
