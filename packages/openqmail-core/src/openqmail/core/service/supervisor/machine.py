"""The supervisor's mind: which processes there must be, and who is introduced to whom.  Pure.

Told what happened, it returns what to do, in order; it knows no pid, no socket and no clock.
Children are numbers that it gives out.  It keeps one child of each role (`smtpd`: as many as
asked), starts a dead one anew, ever later if it dies at once.  A reload has one front end try the
new settings; when that is ready it makes a new generation of those that hold settings for a
connection's life, and lets the old one go when the new one is ready.  Front ends are started when
the queue is open, and leave before the queue does.
"""

from collections.abc import Iterable
from math import inf
from typing import Literal

import msgspec

Role = Literal["gate", "local", "metrics", "remote", "send", "smtpd"]
Word = Literal["leave", "handover", "reload", "hurry"]
State = Literal["starting", "serving", "draining", "ended"]
ChildState = Literal["starting", "ready", "leaving"]

LINKS: tuple[tuple[str, Role, Role], ...] = (
    ("submission", "smtpd", "send"),
    ("gate", "smtpd", "gate"),
    ("check", "smtpd", "local"),
    ("logins", "gate", "local"),
    ("programs", "smtpd", "local"),
    ("local", "send", "local"),
    ("remote", "send", "remote"),
    ("lockouts", "send", "gate"),
)
"""Each port: its name, who asks, who serves."""

RENEWED: tuple[Role, ...] = ("local", "metrics", "remote", "smtpd")
"""Roles of which a reload makes new ones; the others take the settings as they are."""

FIRST_AGAIN = 0.05
LATEST_AGAIN = 10.0
"""Seconds until a child is started anew: at first, and at most when it dies again and again."""
LINK_AGAIN = 1.0
"""Seconds until two children are introduced again for whom there was no connection."""
SETTLED = 5.0
"""Seconds of life after which a death counts as a first one."""

FRONT = 12.0
"""Seconds that front ends have to end their connections in a stop."""
DRAIN = 20.0
"""Seconds that a stop may take in all, before what is left is told to end at once."""
LAST = 5.0
"""Seconds that a child has, told to end at once, until it is killed; the others have as many behind
front ends that were."""
HANDOVER = 30.0
"""Seconds in which the queue must be handed over in an upgrade."""


class Start(msgspec.Struct, frozen=True):
    """Make a child of this role; `trial`: with the new settings, which nobody else has yet."""

    child: int
    role: Role
    generation: int
    trial: bool = False


class Link(msgspec.Struct, frozen=True):
    """Introduce `client` to `server`, which serves this port."""

    port: str
    client: int
    server: int


class Tell(msgspec.Struct, frozen=True):
    """`seconds`: what is left, for leave; may be without end."""

    child: int
    word: Word
    seconds: float = 0.0


class Kill(msgspec.Struct, frozen=True):
    child: int


class WakeAt(msgspec.Struct, frozen=True):
    """Call `wake` then; the earliest counts."""

    time: float


class Serving(msgspec.Struct, frozen=True):
    """Everything is there, for the first time or again after a reload (`again`)."""

    again: bool


class Taken(msgspec.Struct, frozen=True):
    """The new settings have proved good: they are everybody's from here on."""


class Refused(msgspec.Struct, frozen=True):
    """Who tried the new settings has ended of it: the old ones stay."""


class Ended(msgspec.Struct, frozen=True):
    """No child is left."""


Action = Start | Link | Tell | Kill | WakeAt | Serving | Taken | Refused | Ended


class Child(msgspec.Struct):
    number: int
    role: Role
    generation: int
    state: ChildState
    began: float


class Machine:
    """`fronts`: how many processes of smtpd; `metrics`: whether one tells the figures."""

    def __init__(self, fronts: int = 1, *, metrics: bool = False) -> None:
        self.state: State = "starting"
        self.generation = 1
        self.children: dict[int, Child] = {}
        self._fronts, self._metrics = fronts, int(metrics)
        self._last = 0
        self._partners: dict[tuple[str, int], int] = {}
        """Port and who asks -> whom it knows."""
        self._deaths: dict[Role, int] = {}
        self._again: list[tuple[float, Role]] = []
        self._told: set[tuple[int, Word]] = set()
        self._deadlines: list[tuple[float, Word | Literal["kill", "kill all"]]] = []
        self._until = 0.0
        self._adopted = False
        """This goes on for another program: a death before all is there is no failed start."""
        self._handing = False
        self._renewing = False
        self._asked: tuple[int, int] | None = None
        """How many front ends, and processes for figures, there are to be by settings not taken yet."""
        self.trial = 0
        """The front end that tries them."""
        self._out: list[Action] = []

    # --- what happens -------------------------------------------------------------------

    def begin(self, now: float) -> list[Action]:
        """The first start, or the one after `adopt`."""
        self._out = []
        for role in ("gate", "local", "remote"):
            self._start(role, now)
        if self._metrics:
            self._start("metrics", now)
        if not self._handing and not self._alive("send"):
            self._start("send", now)
        self._link()
        return self._out

    def adopt(self, children: Iterable[Child], generation: int, now: float) -> None:
        """Before `begin`: the children of the program that this one has replaced."""
        for child in children:
            self.children[child.number] = child
            self._last = max(self._last, child.number)
        self.generation = max([generation, *(child.generation for child in self.children.values())]) + 1
        self._adopted = True
        self._handing = any(child.role == "send" for child in self.children.values())

    def hand_over(self, now: float) -> list[Action]:
        """After `begin`: the old queue is asked to end."""
        self._out = []
        for child in self._alive("send"):
            if child.generation < self.generation:
                self._tell(child, "handover")
        self._deadlines.append((now + HANDOVER, "kill"))
        self._out.append(WakeAt(now + HANDOVER))
        return self._out

    def ready(self, number: int, now: float) -> list[Action]:
        """A child does its work."""
        self._out = []
        child = self.children.get(number)
        if child is not None and child.state == "starting":
            child.state = "ready"
            if number == self.trial:
                self._take(now)
            self._link()
            self._settle(now)
        return self._out

    def ended(self, number: int, now: float) -> list[Action]:
        """A child is no more, for whatever reason."""
        self._out = []
        child = self.children.pop(number, None)
        if child is None:
            return self._out
        self._told = {one for one in self._told if one[0] != number}
        for (port, client), server in list(self._partners.items()):
            if number in (client, server):
                del self._partners[port, client]
        if self.state == "draining":
            self._withdraw(now)
        elif child.role == "send" and self._handing:
            self._handing = False
            self._deadlines.clear()
            self._start("send", now)
            self._link()
        elif number == self.trial:
            self.trial, self._asked = 0, None
            self._out.append(Refused())
        elif child.state == "leaving":
            pass
        elif self.state == "starting" and not self._adopted:
            self.terminate_now(now)
        else:
            self._start_later(child, now)
        return self._out

    def not_linked(self, link: Link, now: float) -> list[Action]:
        """There was no room for a connection; there may be soon."""
        self._out = [WakeAt(now + LINK_AGAIN)]
        self._partners.pop((link.port, link.client), None)
        return self._out

    def reload(self, fronts: int, now: float, *, metrics: bool = False) -> list[Action]:
        """The settings are new; they could be read.  `Taken` or `Refused` follows, unless others come
        or it is the end before."""
        self._out = []
        if self.state == "draining":
            return self._out
        if self.trial:
            self._tell(self.children[self.trial], "leave")
            self.trial = 0
        self._asked = fronts, int(metrics)
        self._try(now)
        self._link()
        return self._out

    def terminate(self, now: float) -> list[Action]:
        """The first time: let everything end well.  Again: at once."""
        self._out = []
        if self.state == "draining":
            self._hurry(now)
            return self._out
        self.state = "draining"
        self._told = {one for one in self._told if one[1] != "leave"}  # who has long hears how long now
        self.trial = 0
        self._until = now + DRAIN
        self._deadlines = [(now + FRONT, "hurry"), (now + DRAIN + LAST, "kill")]
        self._out += [WakeAt(when) for when, _ in self._deadlines]
        self._withdraw(now)
        return self._out

    def terminate_now(self, now: float) -> list[Action]:
        """Something went wrong before anything was served: end all."""
        self.state = "draining"
        self._hurry(now)
        self._withdraw(now)
        return self._out

    def wake(self, now: float) -> list[Action]:
        """It is the time that was asked for."""
        self._out = []
        for when, word in [one for one in self._deadlines if one[0] <= now]:
            self._deadlines.remove((when, word))
            self._overdue(word, now)
        due = [role for when, role in self._again if when <= now]
        self._again = [one for one in self._again if one[0] > now]
        for role in due:
            if self.state != "draining" and self._missing(role):
                if role == "smtpd" and not self._queue_open():
                    continue  # comes when the queue is open
                self._start(role, now)
        self._link()
        self._out += [WakeAt(when) for when, _ in [*self._again, *self._deadlines]]
        return self._out

    # --- parts --------------------------------------------------------------------------

    def _alive(self, role: Role, *states: str) -> list[Child]:
        states = states or ("starting", "ready")
        return [child for child in self.children.values() if child.role == role and child.state in states]

    def _wanted(self, role: Role) -> int:
        return {"smtpd": self._fronts, "metrics": self._metrics}.get(role, 1)

    def _missing(self, role: Role) -> bool:
        current = [child for child in self._alive(role) if child.generation == self.generation]
        if not current and role not in RENEWED:
            current = self._alive(role)
        return len(current) < self._wanted(role)

    def _queue_open(self) -> bool:
        return bool(self._alive("send", "ready"))

    def _start(self, role: Role, now: float, *, trial: bool = False) -> None:
        self._last += 1
        generation = self.generation + trial
        self.children[self._last] = Child(self._last, role, generation, "starting", now)
        self._out.append(Start(self._last, role, generation, trial))

    def _try(self, now: float) -> None:
        """Front ends come when the queue is open, this one too."""
        if self._asked is not None and not self.trial and self._queue_open():
            self._start("smtpd", now, trial=True)
            self.trial = self._last

    def _take(self, now: float) -> None:
        self.trial = 0
        if self._asked is not None:
            (self._fronts, self._metrics), self._asked = self._asked, None
        self.generation += 1
        self._renewing = True
        self._out.append(Taken())
        for role in ("send", "gate"):
            for child in self._alive(role):
                self._out.append(Tell(child.number, "reload"))
        for role in RENEWED:
            while (role != "smtpd" or self._queue_open()) and self._missing(role):
                self._start(role, now)

    def _start_later(self, child: Child, now: float) -> None:
        role = child.role
        lived = now - child.began
        self._deaths[role] = (
            0 if lived > SETTLED and child.state == "ready" else self._deaths.get(role, 0) + 1
        )
        wait = min(LATEST_AGAIN, FIRST_AGAIN * 2 ** min(self._deaths[role], 20))
        self._again.append((now + wait, role))
        self._out.append(WakeAt(now + wait))

    def _settle(self, now: float) -> None:
        """What is due when one more child is ready."""
        if self.state == "draining":
            return
        if self._queue_open():
            while self._missing("smtpd") and not any(role == "smtpd" for _, role in self._again):
                self._start("smtpd", now)
            self._try(now)
            self._link()
        everything = all(not self._missing(role) and not self._alive(role, "starting") for role in _ROLES)
        for role in (*RENEWED, "gate"):
            self._relieve(role)
        if everything and (self.state == "starting" or self._renewing):
            again = self.state == "serving"
            self.state = "serving"
            self._renewing = False
            self._out.append(Serving(again))

    def _relieve(self, role: Role) -> None:
        """Older ones leave when all of the newest generation are ready, in as long as what they have in hand
        takes: its own time-outs bound it."""
        newest = [child for child in self._alive(role, "ready") if child.generation == self.generation]
        if len(newest) < self._wanted(role):
            return
        if role in ("local", "remote", "gate") and self._handing:
            return  # the old queue still works with the old ones
        for child in self._alive(role):
            if child.generation < self.generation:
                self._tell(child, "leave", inf)
        if role == "smtpd":
            for child in newest[self._wanted(role) :]:
                self._tell(child, "leave", inf)

    def _tell(self, child: Child, word: Word, seconds: float = 0.0) -> None:
        if (child.number, word) not in self._told:
            self._told.add((child.number, word))
            if word in ("leave", "handover"):
                child.state = "leaving"
            self._out.append(Tell(child.number, word, seconds))

    def _link(self) -> None:
        """Whoever asks knows the newest who serves; who leaves keeps whom it has while that lives."""
        for port, asks, serves in LINKS:
            ready = self._alive(serves, "ready") or self._alive(serves)
            if not ready:
                continue
            server = max(ready, key=lambda child: child.number).number
            for child in self._alive(asks, "starting", "ready", "leaving"):
                known = self._partners.get((port, child.number))
                if known == server or (child.state == "leaving" and (known or asks == "send")):
                    continue
                self._partners[port, child.number] = server
                self._out.append(Link(port, child.number, server))

    # --- the end ------------------------------------------------------------------------

    def _withdraw(self, now: float) -> None:
        """The next who leave: front ends, the queue, the others; nobody: it is over."""
        left = max(self._until - now, 0.0)
        for roles in (("smtpd",), ("send",), ("gate", "local", "metrics", "remote")):
            there = [child for child in self.children.values() if child.role in roles]
            if there:
                for child in there:
                    self._tell(child, "leave", left)
                return
        if self.state != "ended":
            self.state = "ended"
            self._out.append(Ended())

    def _hurry(self, now: float) -> None:
        for child in self.children.values():
            self._tell(child, "hurry")
        self._deadlines = [(now + LAST, "kill")]
        self._out.append(WakeAt(now + LAST))

    def _overdue(self, word: str, now: float) -> None:
        if word.startswith("kill"):
            there = list(self.children.values())
            fronts = [child for child in there if child.role == "smtpd"]
            if self.state != "draining":
                there = self._alive("send", "leaving")
            elif word == "kill" and fronts:  # the queue waits for them; then it can be closed
                there = fronts
                self._until = now + LAST / 2
                self._deadlines.append((now + LAST, "kill all"))
            self._out += [Kill(child.number) for child in there]
        elif self.state == "draining":
            for child in self._alive("smtpd", "starting", "ready", "leaving"):
                self._tell(child, "hurry")


_ROLES: tuple[Role, ...] = ("gate", "local", "metrics", "remote", "send", "smtpd")
