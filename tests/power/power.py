"""Cuts the power of the disk that a service runs on, in the middle of mixed mail, and counts what is there.

The home lies on a loop device (ext4, xfs); the power is cut by FS_IOC_SHUTDOWN, by turns with
nothing, the file system's journal, and everything still written; half of the cuts find the
service halted, as a machine without power is, half find it alive.  A cut falls while mail comes in,
one in four while the service recovers from the cut before, one in five while it stops.  After each
one the service is killed, the disk mounted again, the service started, and every message whose 250
was seen must be whole in a Maildir, at the other host, in the queue or in a bounce.  So must be
all that was delivered before.  At last everything is drained.  No mail goes to
programs, as a line of dot-qmail that names one puts it off so far.  Needs root and loop devices.
"""

import argparse
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import loops
from homes import Place
from loops import Cut, LoopDisk
from progress import Progress, say, table
from sink import Sink
from traffic import HOST, USERS, Account, Books, Clients, recipients

KINDS = ("ext4", "xfs")
HOWS = (Cut.NOTHING, Cut.LOG, Cut.NOTHING, Cut.ALL)
KINDNESS = 0.3
"""How often the host that puts off takes a message after all."""


class Outcome(NamedTuple):
    """What a run found; `lost` and `torn` must be empty, `exits` all 0."""

    cuts: int
    moments: Counter[str]
    accepted: int
    recipients: int
    lost: list[str]
    torn: list[str]
    repeats_here: int
    repeats_sent: int
    exits: list[int]
    slowest: float
    last: str
    log: str


class Run:
    """One home on one disk; cuts come one after the other."""

    def __init__(self, disk: LoopDisk, place: Place, sink: Sink, dice: random.Random) -> None:
        self.disk, self.sink, self._dice = disk, sink, dice
        self.home = place.home(HOST, *USERS)
        self.home.log = disk.beside / f"{HOST}.log"  # the log's disk keeps its power
        self.home.control("smtproutes", sink.routes())
        self.home.control(
            "bouncemaxbytes", "0"
        )  # a bounce has all of its message, and is looked at to its end
        disk.sync()
        self.books = Books(self.home, sink)
        self.moments: Counter[str] = Counter()
        self.last: list[str] = []
        """What was done since things were last as they should be."""
        self.exits: list[int] = []
        self._next = 1

    @property
    def cuts(self) -> int:
        return self.moments.total()

    def cut_once(self) -> Account:
        """Mail comes in, the power goes, comes back; what is there then."""
        self.last.clear()
        clients = Clients(self.home, self._next)
        time.sleep(self._dice.uniform(0.05, 0.5))
        if self._dice.random() < 0.2:
            self.home.signal(signal.SIGTERM)
            time.sleep(self._dice.uniform(0, 0.3))
            self._cut("stopping", clients)
        else:
            self._cut("serving", clients)
        self._next = clients.stop()
        while self._dice.random() < 0.25:
            self.home.spawn()
            time.sleep(self._dice.uniform(0.2, 0.8))
            self._cut("recovering")
        self.home.start()
        return self.books.settled()

    def _cut(self, moment: str, clients: Clients | None = None) -> None:
        """Half of the cuts find the service alive, so that it meets errors.  What it answers then does
        not count: the kernel may tell a sync that is under way that it was done, although it was not."""
        self.moments[moment] += 1
        how = HOWS[self.cuts % len(HOWS)]
        alive = self._dice.random() < 0.5
        self.last.append(f"cut of {how.name} while {moment}, the service {'alive' if alive else 'halted'}")
        if not alive:
            self.home.halt()
        if clients and alive:
            self.books.accepted |= clients.accepted.copy()
        self.disk.cut(how)
        if alive:
            time.sleep(self._dice.choice((0.0, 0.02, 0.2)))
        self.home.kill()
        if clients and not alive:
            clients.stop()
            self.books.accepted |= clients.accepted
        self.disk.power()

    def end(self) -> Account:
        """A clean stop with mail in the queue, a start, and everything drained."""
        self.exits.append(self.home.stop())
        self.home.start()
        self.sink.kindness = 1.0
        account = self.books.drained()
        self.exits.append(self.home.stop())
        return account


def power(kind: str, cuts: int, seed: int, under: str | None = None) -> Outcome:
    """The whole run, of at least so many cuts; ends early when something is lost or torn."""
    dice = random.Random(seed)
    slowest = 0.0
    with ExitStack() as stack:
        disk = stack.enter_context(LoopDisk(kind, under=under))
        place = stack.enter_context(Place(under=str(disk.path)))
        sink = stack.enter_context(Sink(KINDNESS, seed))
        run = Run(disk, place, sink, dice)
        run.home.start()
        bar = Progress(f"cuts on {kind}", cuts)
        while run.cuts < cuts:
            began = time.monotonic()
            before = run.cuts
            account = _told(run.cut_once)
            slowest = max(slowest, (time.monotonic() - began) / (run.cuts - before))
            bar.to(run.cuts)
            if account.lost or account.torn:
                break
        else:
            account = _told(run.end)
        bar.done(run.cuts)
        return Outcome(
            run.cuts,
            run.moments,
            len(run.books.accepted),
            sum(len(recipients(number)) for number in run.books.accepted),
            account.lost,
            account.torn,
            account.repeats_here,
            account.repeats_sent,
            run.exits,
            slowest,
            "; ".join(run.last),
            run.home.tail(),
        )


def _told(step: Callable[[], Account]) -> Account:
    """A service that does not start, or whose queue cannot be read, has lost it all."""
    try:
        return step()
    except AssertionError as error:
        return Account([str(error)], [], 0, 0, 0, 0)


def rows_of(found: Outcome) -> list[object]:
    return [
        found.cuts,
        *(found.moments[name] for name in ("serving", "recovering", "stopping")),
        found.accepted,
        found.recipients,
        len(found.lost),
        len(found.torn),
        found.repeats_here,
        found.repeats_sent,
        f"{found.slowest:.1f}",
    ]


NAMES = (
    "cuts",
    "  while mail came in",
    "  while recovering",
    "  while stopping",
    "accepted (250 seen)",
    "recipients of these",
    "lost",
    "torn",
    "repeated in Maildirs here",
    "repeated at the other host",
    "slowest cut, seconds",
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cuts", type=int, default=50, help="on each file system (50)")
    parser.add_argument("--only", choices=KINDS, action="append", help="this file system alone")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; told in the table")
    parser.add_argument("--dir", default=None, help="where the images of the disks are made")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    found: dict[str, Outcome] = {}
    for kind in arguments.only or KINDS:
        if reason := loops.why_not(kind):
            say(f"{kind}: SKIPPED, {reason}")
        else:
            found[kind] = power(kind, arguments.cuts, seed, arguments.dir)
    if not found:
        return 69
    columns = zip(*map(rows_of, found.values()), strict=True)
    say("\n" + table(("what", *found), [(name, *row) for name, row in zip(NAMES, columns, strict=True)]))
    say(f"seed {seed}")
    wrong = False
    for kind, one in found.items():
        bad = [*one.lost[:20], *one.torn[:20]]
        if any(one.exits):
            bad.append(f"a clean stop ended with {one.exits}")
        for line in bad:
            say(f"WRONG on {kind}: {line}")
        if bad:
            say(f"cut {one.cuts}: {one.last}")
            say(f"the end of its log:\n{one.log}")
        wrong |= bool(bad)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
