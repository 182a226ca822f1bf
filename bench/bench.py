"""openqmail beside Debian's Postfix, in the same run: messages a second as ratios, and CPU a message.

W1   local to Maildir, until the last file is in new/ under its final name, which is what a user
     sees; a new connection a message
W1k  the same, 50 messages a connection
W2   relay: in by SMTP and out by SMTP, until the receiver has them all; over connections that stay,
     as those between relays do, and one run of the load, whose starts would else be measured
W2n  the same, in by a new connection a message
W3   accept alone, delivery held back in both

20 connections, 2 KiB.  Rounds are interleaved and change who begins; a figure is the median of
its rounds, a ratio the median of the ratios within a round.  A round counts only when every
message is where it must be.  Where the clock of W1 stops, Postfix has fsynced each file, while
the syncfs of openqmail's last checkpoint may still run: its CPU is counted, its time is not.

Ends with 1 when a ratio that is asked is not reached; fewer than 5 rounds are no result and judge
nothing.  The figures go to dist/bench.json, too.  Needs root, for Postfix; stays on loopback.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

from load import (
    PER_CONNECTION,
    SETTLING,
    Disk,
    LoadError,
    Sink,
    cpu_of,
    need,
    send,
    settled_cpu,
    settled_disk,
    wait_until,
)
from peers import DOMAIN, SINK, Openqmail, Peer, Postfix, addresses

from homes import Place, free_port
from progress import say, table

WORKS = {
    "W1": "local to Maildir",
    "W1k": "the same, kept",
    "W2": "relay, kept",
    "W2n": "relay, new",
    "W3": "accept, hold",
}
KEPT = ("W1k", "W2")
RELAYED = ("W2", "W2n")
ASKED = {"W1": 3.0, "W2": 5.0}
"""Ratios to reach now; the others are measured."""
ENOUGH = 5
"""Rounds that make a result."""
FIGURES = Path(__file__).resolve().parent.parent / "dist" / "bench.json"


class Figure(NamedTuple):
    """One round of one peer: messages a second, microseconds of CPU a message, the disk before it."""

    rate: float
    cpu: float
    disk: Disk


def line_of(figure: Figure) -> str:
    unsettled = "" if figure.disk.settled else f"; THE DISK DID NOT SETTLE in {SETTLING:.0f} s"
    return (
        f"{figure.rate:7.0f}/s {figure.cpu:6.0f} µs CPU a message  "
        f"(a new file costs {figure.disk.cost * 1e6:.0f} µs{unsettled})"
    )


def user_of(work: str, number: int) -> str:
    return f"{work.lower()}-{number}"


def measure(peer: Peer, work: str, number: int, host: str, messages: int, sink: Sink, folder: Path) -> Figure:
    """One round; raises LoadError unless every message arrived where the work ends."""
    disk = settled_disk(folder)
    before = cpu_of(peer.pid)
    user = user_of(work, number)
    to = f"{user}@{SINK if work in RELAYED else DOMAIN}"
    held = peer.queued() if work == "W3" else 0
    sunk = sink.received()
    new = peer.maildir(user) / "new"
    began = time.perf_counter()
    send(host, peer.port, to, messages, kept=work in KEPT, each=PER_CONNECTION if work == "W1k" else 0)
    if work in RELAYED:
        wait_until(lambda: sink.received() - sunk >= messages, "the receiver has them all")
    elif work != "W3":
        wait_until(lambda: new.is_dir() and len(os.listdir(new)) >= messages, f"{new} is full")
    took = time.perf_counter() - began
    cpu = settled_cpu(peer.pid) - before
    if work == "W3" and peer.queued() - held != messages:
        raise LoadError(f"{peer.name} holds {peer.queued() - held} of {messages} messages")
    if work in RELAYED and sink.received() - sunk != messages:
        raise LoadError(f"{peer.name} sent {sink.received() - sunk} messages for {messages}")
    if work in ("W1", "W1k") and len(os.listdir(new)) != messages:
        raise LoadError(f"{peer.name} delivered {len(os.listdir(new))} files for {messages} messages")
    return Figure(messages / took, 1e6 * cpu / messages, disk)


def run(place: Place, works: list[str], rounds: int, messages: int) -> dict[str, list[dict[str, Figure]]]:
    """All rounds: for each work a list of what each peer reached."""
    hosts = addresses(rounds)
    users = [user_of(work, number) for work in works for number in range(rounds + 1)]
    sink_port = free_port()
    sink = Sink(sink_port, place.path / "sink.counts")
    peers: dict[bool, list[Peer]] = {False: [], True: []}
    found: dict[str, list[dict[str, Figure]]] = {work: [] for work in works}
    try:
        for hold in {work == "W3" for work in works}:
            for make in (Openqmail, Postfix):
                peers[hold].append(make(place, hold, users, hosts, sink_port))
        for number in range(rounds + 1):
            for work in works:
                both = peers[work == "W3"]
                figures = {}
                for peer in both if number % 2 else both[::-1]:
                    count = messages if number else min(messages, 200)  # round 0 warms up
                    figure = measure(peer, work, number, hosts[number], count, sink, place.path)
                    figures[peer.name] = figure
                    if number:
                        say(f"round {number} of {rounds}  {work:<4} {peer.name:<10} {line_of(figure)}")
                if number:
                    found[work].append(figures)
    finally:
        for peer in (*peers[False], *peers[True]):
            peer.stop()
        sink.close()
    return found


def summary(found: dict[str, list[dict[str, Figure]]]) -> dict[str, dict[str, float | None]]:
    """Medians and ratios a work."""
    told: dict[str, dict[str, float | None]] = {}
    for work, rounds in found.items():
        told[work] = {
            "openqmail": statistics.median(each["openqmail"].rate for each in rounds),
            "postfix": statistics.median(each["postfix"].rate for each in rounds),
            "ratio": statistics.median(each["openqmail"].rate / each["postfix"].rate for each in rounds),
            "asked": ASKED.get(work),
            "openqmail_cpu_us": statistics.median(each["openqmail"].cpu for each in rounds),
            "postfix_cpu_us": statistics.median(each["postfix"].cpu for each in rounds),
        }
    return told


def show(told: dict[str, dict[str, float | None]]) -> str:
    head = ("work", "openqmail/s", "postfix/s", "ratio", "asked", "openqmail µs", "postfix µs", "CPU ratio")
    rows = []
    for work, each in told.items():
        figures = {name: value or 0.0 for name, value in each.items()}
        rows.append(
            (
                f"{work} {WORKS[work]}",
                f"{figures['openqmail']:.0f}",
                f"{figures['postfix']:.0f}",
                f"{figures['ratio']:.2f}",
                f"{each['asked']:.0f}" if each["asked"] else "",
                f"{figures['openqmail_cpu_us']:.0f}",
                f"{figures['postfix_cpu_us']:.0f}",
                f"{figures['postfix_cpu_us'] / max(figures['openqmail_cpu_us'], 1e-9):.2f}",
            )
        )
    return table(head, rows)


def missed(told: dict[str, dict[str, float | None]]) -> list[str]:
    """A sentence for each ratio that is asked and not reached."""
    return [
        f"{work} {WORKS[work]}: the ratio is {each['ratio']:.2f}, asked is {each['asked']:.2f}"
        for work, each in told.items()
        if each["asked"] and each["ratio"] and each["ratio"] < each["asked"]
    ]


def write(
    file: Path,
    messages: int,
    told: dict[str, dict[str, float | None]],
    found: dict[str, list[dict[str, Figure]]],
) -> None:
    """Every figure of every round, for other programs."""
    whole = {
        "v": 1,
        "machine": {
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "messages": messages,
        "result": all(len(rounds) >= ENOUGH for rounds in found.values()),
        "works": told,
        "rounds": {
            work: [
                {name: {**figure._asdict(), "disk": figure.disk._asdict()} for name, figure in each.items()}
                for each in rounds
            ]
            for work, rounds in found.items()
        },
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(whole, indent=1) + "\n")
    say(f"figures: {file}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ENOUGH, help="5, or more, make a result (5)")
    parser.add_argument("--messages", type=int, default=5000, help="a round (5000)")
    parser.add_argument("--only", action="append", choices=list(WORKS), help="this work; may be repeated")
    parser.add_argument("--json", type=Path, default=FIGURES, help="the figures go there (dist/bench.json)")
    parser.add_argument("--dir", default="/var/tmp", help="on the file system to be measured (/var/tmp)")
    parser.add_argument("--keep", action="store_true", help="leave the folder of the run in place")
    arguments = parser.parse_args()
    try:
        if os.getuid():
            raise LoadError("needs root: Postfix does not start without")
        need("postfix", "smtp-source", "smtp-sink")
        with Place(arguments.keep, arguments.dir) as place:
            found = run(place, arguments.only or list(WORKS), arguments.rounds, arguments.messages)
    except LoadError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 69
    told = summary(found)
    say("\n" + show(told))
    say("\nmedians; µs: CPU a message; ratios: above 1, openqmail is ahead")
    write(arguments.json, arguments.messages, told, found)
    if arguments.rounds < ENOUGH:
        say(f"THIS IS NO RESULT: {arguments.rounds} of at least {ENOUGH} rounds")
        return 0
    short = missed(told)
    for text in short:
        say(f"NOT REACHED: {text}")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
