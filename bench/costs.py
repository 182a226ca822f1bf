"""What openqmail's own checks and hooks cost: W3 with them on against W3 without, openqmail alone.

W3c: rules of a thousand networks, lists of bad addresses and names, recipients looked up, every limit
of connections, sessions and hours.  W3u: the same, each message to a user of its own of whom nobody has
heard, in both homes: W3 sends a round to one, and an answer about a mailbox is kept for some seconds.  W3h:
ten hooks that are plain Python and say nothing, asked at every step but those that see a message as it comes;
W3l: at these, too; and what a step costs that no hook has a say in (session.py).  Two homes a work, rounds
interleaved.  Clients are strangers where there are limits, since relay clients are not counted.
"""

import os
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import plain_hooks
import session
from load import Sink
from peers import HOLDING, Ground, Openqmail, addresses
from works import Figure, measure, numbered, user_of

from homes import free_port
from progress import say, table

Files = Mapping[str, str | None]
"""Control files; None: one that is not there."""

LEAST = 0.9
"""Of the rate without."""
STEP = 1.0
"""Microseconds that a step may take that no hook has a say in."""
WORK = "W3"
WARM_UP = 200
"""Messages of the round that does not count."""


class Cost(NamedTuple):
    """`asked`: of the rate without, the least with.  `apart`: each message has a recipient of its own."""

    text: str
    off: Files
    on: Files
    asked: float | None = None
    apart: bool = False


_RATES = ("connectionsperhour", "messagesperhour", "recipientsperhour")
_OFF: Files = {"rules": None, "checkrcpt": "0"} | dict.fromkeys(
    (
        "concurrencynetwork",
        "maxmessages",
        "maxconnectionrecipients",
        "maxbadrcpt",
        "tarpit",
        "mindatarate",
        *_RATES,
    ),
    "0",
)
_NETWORKS = "".join(f"10.{at // 256}.{at % 256}.:allow\n" for at in range(1000))
_ON: Files = {
    "rules": _NETWORKS + "127.:allow\n:deny\n",
    "checkrcpt": "1",
    "badmailfrom": "@bad.example\n.worse.example",
    "badrcptto": "former@bench.example",
    "badhelo": "bench.example\n.invalid",
    "morercpthosts": "more.example",
    "concurrencynetwork": "50",
    "maxmessages": "100",
    "maxbadrcpt": "20",
    "tarpit": "1",
    "mindatarate": "100",
    "maxconnectionrecipients": "10000",
    **dict.fromkeys(_RATES, "100000000"),
}


def _hooked(kind: type[plain_hooks.Plain]) -> Files:
    return {"hooks": "\n".join(plain_hooks.names(kind))}


COSTS = {
    "W3c": Cost("recipient check, rules, limits", _OFF, _ON, LEAST),
    "W3u": Cost("the same, each to another", _OFF, _ON, apart=True),
    "W3h": Cost("ten hooks", {}, _hooked(plain_hooks.Plain), LEAST),
    "W3l": Cost("ten that hear the message", {}, _hooked(plain_hooks.Listening)),
}


class Costs(NamedTuple):
    """For each work, round for round, what each side reached: `off` and `on`.  `step`: microseconds of one
    that no hook has a say in, where hooks were measured."""

    rounds: dict[str, list[dict[str, Figure]]]
    step: float | None

    def ratio(self, work: str) -> float:
        return statistics.median(each["on"].rate / each["off"].rate for each in self.rounds[work])

    def show(self) -> str:
        rows = []
        for work, rounds in self.rounds.items():
            cost = COSTS[work]
            off, on = (statistics.median(each[side].rate for each in rounds) for side in ("off", "on"))
            took = [statistics.median(each[side].cpu for each in rounds) for side in ("off", "on")]
            rows.append(
                (
                    f"{work} {cost.text}",
                    f"{off:.4g}",
                    f"{on:.4g}",
                    f"{self.ratio(work):.2f}",
                    f"{cost.asked:g}" if cost.asked else "",
                    *(f"{micro:.0f}" for micro in took),
                )
            )
        head = ("W3, and what it is with", "without/s", "with/s", "ratio", "asked", "without µs", "with µs")
        step = ""
        if self.step is not None:
            step = f"\na step that no hook has a say in: {self.step:.2f} µs, asked: less than {STEP:g}"
        return table(head, rows) + step

    def missed(self) -> list[str]:
        short = [
            f"{work} {COSTS[work].text}: {self.ratio(work):.2f} of the rate without, asked is {asked:.2f}"
            for work in self.rounds
            if (asked := COSTS[work].asked) and self.ratio(work) < asked
        ]
        if self.step is not None and self.step >= STEP:
            short.append(f"W3h: a step that no hook has a say in takes {self.step:.2f} µs, asked is {STEP:g}")
        return short

    def form(self) -> dict[str, object]:
        ratios = {work: {"ratio": self.ratio(work), "asked": COSTS[work].asked} for work in self.rounds}
        return {"works": ratios, "step_us": self.step}


def compare(place: Ground, works: list[str], rounds: int, messages: int) -> Costs:
    addon = place.room / "addon"
    plain_hooks.install(addon)
    found: dict[str, list[dict[str, Figure]]] = {}
    with _path(str(addon)):
        for work in works:
            found[work] = _rounds(place, work, rounds, messages)
    hooked = any(work in ("W3h", "W3l") for work in works)
    return Costs(found, session.step_without_hooks() if hooked else None)


def _rounds(place: Ground, work: str, rounds: int, messages: int) -> list[dict[str, Figure]]:
    hosts, apart = addresses(rounds), COSTS[work].apart
    counts = [min(messages, WARM_UP), *[messages] * rounds]
    users = [user_of(WORK, number) for number in range(rounds + 1)]
    if apart:
        users += [one for user, count in zip(users, counts, strict=True) for one in numbered(user, count)]
    sink = Sink(port := free_port(), place.path / "sink.counts")
    sides: dict[str, Openqmail] = {}
    found = []
    try:
        for name, files in (("off", COSTS[work].off), ("on", COSTS[work].on)):
            sides[name] = Openqmail(place, HOLDING, users, hosts, port, files)
        for number, count in enumerate(counts):
            figures = {}
            for name in ("off", "on") if number % 2 else ("on", "off"):
                told = measure(sides[name], WORK, number, hosts[number], count, sink, place.path, apart)
                figures[name] = told
                if number:
                    say(f"round {number} of {rounds}  {work:<4} {name:<4} {told.line()}")
            if number:
                found.append(figures)
    finally:
        for side in sides.values():
            side.stop()
        sink.close()
    return found


@contextmanager
def _path(folder: str) -> Iterator[None]:
    """What is in there is installed for services that start now."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{before}" if before else folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
