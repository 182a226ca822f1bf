"""openqmail beside Debian's Postfix, in the same run: messages a second as ratios, and CPU a message.

W1   local to Maildir, until the last file is in new/ under its final name, which is what a user
     sees; a new connection a message
W1k  the same, 50 messages a connection
W2   relay: in by SMTP and out by SMTP, until the receiver has them all; over connections that stay,
     as those between relays do, and one run of the load, whose starts would else be measured
W2n  the same, in by a new connection a message
W3   accept alone, delivery held back in both
W3c, W3u, W3h, W3l  openqmail alone: W3 with all checks of clients, the same to unknown users, with ten hooks,
     with ten that hear the message, each against W3 without (costs.py; a table of its own)
W4   20 messages of 10 MiB over 4 connections to a Maildir
W8   accept alone, by STARTTLS, TLS 1.3, a session a message and none resumed (secured.py: a load of our
     own); both peers have the same certificate, ECDSA on P-256
W8a  the same with AUTH PLAIN, 400 messages a round: Postfix asks Debian's Dovecot, and both keep the
     password by argon2id with the costs of `openqmail user add`; neither remembers a verdict
W8c  the same, but argon2id with costs next to nothing, so that the servers are compared
W9   one message to 2,000 local users, until each has it: recipients a second
W9r  one message to 5,000 recipients of one other domain, until it has left the queue: recipients
     a second, and in how many transactions; Postfix groups them as it does by default
W9s, W9rs  the same two by smtp-source.  W9 and W9r come in with RCPT commands ahead of their replies
     (RFC 2920), as programs that send to thousands do it; smtp-source waits for each reply, and that
     is measured then, too: how long it takes by itself, with a server that does nothing
     (null_server.py), is timed in each round and printed beneath the table
W5   memory of all processes, idle, and with 1,000 clients that say nothing; of openqmail with 2,000 that
     say nothing under TLS (idle.py; its own table)
W6   50,000 deferred messages: restart, list, memory (deferred.py; a table of its own)
W10  50,000 messages to 1,000 domains, 100 of them dead and 100 slow: how long the others wait; and
     W10g, one message to 10,000 recipients at 100 domains: in how many transactions
     (domains.py; a table of its own, openqmail alone; `--part` runs a part)

20 connections, 2 KiB, unless said.  Rounds are interleaved and change who begins; a figure is the
median of its rounds, a ratio the median of the ratios within a round.  A round counts only when
every message is where it must be.  Where the clock of W1, W4 and W9 stops, Postfix has fsynced each
file, while the syncfs of openqmail's last checkpoint may still run: its CPU is counted, its time
is not.  Both are told to take up to 10,000 recipients a message, and 32 MiB.

`--fresh` has it all on an ext4 of its own, in an image file under `--dir`: where many files were
deleted in the last minutes, ext4 takes several times as long for a new one, and nobody has to wait.
`--million` starts openqmail alone with 1,000,000 deferred messages; `--long MINUTES` has W1 and W2
run at once for so long, and asks that rate, memory, descriptors and journal stay as they are.

Ends with 1 when what is asked is not reached; fewer than 5 rounds are no result and judge nothing.
The figures go to dist/bench.json, too.  Needs root, for Postfix; stays on loopback.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import costs
import deferred
import domains
import idle
import long_run
from costs import COSTS
from load import LoadError, Sink, need
from null_server import NullServer
from peers import Ground, Openqmail, Peer, Postfix, Sort, addresses
from works import TRANSACTIONS, WORKS, Figure, many, measure, user_of

import loops
from homes import free_port
from progress import say, table

ENOUGH = 5
"""Rounds that make a result."""
WAITING = ("W9s", "W9rs")
"""Works that measure how long smtp-source waits."""
NAMES = [*WORKS, *COSTS, "W5", "W6", "W10"]
PARTS = ("alone", "beside", "group")
"""Of W10: the healthy domains alone, beside the sick ones, and W10g."""
FIGURES = Path(__file__).resolve().parent.parent / "dist" / "bench.json"


Found = dict[str, list[dict[str, Figure]]]
"""For each work, round for round, what each peer reached."""


def run(place: Ground, works: list[str], rounds: int, messages: int) -> tuple[Found, dict[str, list[float]]]:
    """All rounds; and for each work of smtp-source's waiting how many seconds that takes by itself."""
    hosts = addresses(rounds)
    users = [user_of(work, number) for work in works for number in range(rounds + 1)]
    users += many() if {"W9", "W9s"} & set(works) else []
    sink_port = free_port()
    sink = Sink(sink_port, place.path / "sink.counts")
    peers: dict[Sort, list[Peer]] = {WORKS[work].sort: [] for work in works}
    found: Found = {work: [] for work in works}
    waiting: dict[str, list[float]] = {work: [] for work in works if work in WAITING}
    try:
        for sort, both in peers.items():
            for make in (Openqmail, Postfix):
                both.append(make(place, sort, users, hosts, sink_port))
        for number in range(rounds + 1):
            for work in works:
                both = peers[WORKS[work].sort]
                figures = {}
                for peer in both if number % 2 else both[::-1]:
                    count = messages if number else min(messages, 200)  # round 0 warms up
                    figure = measure(peer, work, number, hosts[number], count, sink, place.path)
                    figures[peer.name] = figure
                    if number:
                        say(f"round {number} of {rounds}  {work:<4} {peer.name:<10} {figure.line()}")
                if number:
                    found[work].append(figures)
                if number and work in WAITING:
                    with contextlib.closing(NullServer()) as null:
                        waiting[work].append(null.seconds(WORKS[work].each))
    finally:
        for both in peers.values():
            for peer in both:
                peer.stop()
        sink.close()
    return found, waiting


def summary(found: Found) -> dict[str, dict[str, float | None]]:
    """Medians and ratios a work."""
    told: dict[str, dict[str, float | None]] = {}
    for work, rounds in found.items():
        told[work] = {
            "openqmail": statistics.median(each["openqmail"].rate for each in rounds),
            "postfix": statistics.median(each["postfix"].rate for each in rounds),
            "ratio": statistics.median(each["openqmail"].rate / each["postfix"].rate for each in rounds),
            "asked": WORKS[work].asked,
            "load_us": statistics.median(figure.load for each in rounds for figure in each.values()) or None,
            "openqmail_cpu_us": statistics.median(each["openqmail"].cpu for each in rounds),
            "postfix_cpu_us": statistics.median(each["postfix"].cpu for each in rounds),
            "transactions": max(each["openqmail"].transactions for each in rounds) or None,
        }
    return told


def show(told: dict[str, dict[str, float | None]]) -> str:
    head = ("work", "openqmail/s", "postfix/s", "ratio", "asked", "openqmail µs", "postfix µs", "CPU ratio")
    rows = []
    for work, each in told.items():
        figures = {name: value or 0.0 for name, value in each.items()}
        rows.append(
            (
                f"{work} {WORKS[work].text}",
                f"{figures['openqmail']:.4g}",
                f"{figures['postfix']:.4g}",
                f"{figures['ratio']:.2f}",
                f"{each['asked']:g}" if each["asked"] else "",
                f"{figures['openqmail_cpu_us']:.0f}",
                f"{figures['postfix_cpu_us']:.0f}",
                f"{figures['postfix_cpu_us'] / max(figures['openqmail_cpu_us'], 1e-9):.2f}",
            )
        )
    return table(head, rows)


def by_itself(waiting: dict[str, list[float]], told: dict[str, dict[str, float | None]]) -> list[str]:
    """What of these works is the generator's: a line for each."""
    lines = []
    for work, seconds in waiting.items():
        took = WORKS[work].each / (told[work]["openqmail"] or 1e-9)
        lines.append(
            f"{work}: {took:.2f} s with openqmail; smtp-source by itself, with a server that does nothing, "
            f"{statistics.median(seconds):.2f} s"
        )
    return lines


def of_the_load(told: dict[str, dict[str, float | None]]) -> list[str]:
    """What our own load takes of what it and the peers share: a line for each work."""
    return [
        f"{work}: the load takes {each['load_us']:.0f} µs of CPU a message, on the peers' own processors"
        for work, each in told.items()
        if each["load_us"]
    ]


def shares(found: Found) -> str:
    """CPU a unit of each of openqmail's processes, as medians."""
    roles = list(
        dict.fromkeys(
            role for rounds in found.values() for each in rounds for role in each["openqmail"].parts
        )
    )
    rows = [
        (
            work,
            *(
                f"{statistics.median(each['openqmail'].parts.get(role, 0.0) for each in rounds):.0f}"
                for role in roles
            ),
        )
        for work, rounds in found.items()
    ]
    return table(("openqmail µs", *roles), rows)


def missed(told: dict[str, dict[str, float | None]]) -> list[str]:
    """A sentence for each ratio that is asked and not reached."""
    short = [
        f"{work} {WORKS[work].text}: the ratio is {each['ratio']:.2f}, asked is {each['asked']:.2f}"
        for work, each in told.items()
        if each["asked"] and each["ratio"] and each["ratio"] < each["asked"]
    ]
    short += [
        f"{work} {WORKS[work].text}: {each['transactions']:.0f} transactions, asked: at most {TRANSACTIONS}"
        for work, each in told.items()
        if (each["transactions"] or 0) > TRANSACTIONS
    ]
    return short


def write(file: Path, messages: int, told: dict[str, object], enough: bool) -> None:
    """Every figure of every round, for other programs."""
    whole = {
        "v": 1,
        "machine": {
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "uvloop": importlib.metadata.version("uvloop"),
        },
        "messages": messages,
        "result": enough,
        **told,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(whole, indent=1) + "\n")
    say(f"figures: {file}")


ROOM = 16 << 30
"""Bytes of a file system of its own; the image takes what is used."""


@contextlib.contextmanager
def ground(arguments: argparse.Namespace) -> Iterator[Ground]:
    """Where the run has its folders; raises LoadError when there can be no file system of its own."""
    with contextlib.ExitStack() as stack:
        under = arguments.dir
        if arguments.fresh:
            if why := loops.why_not("ext4"):
                raise LoadError(why)
            under = str(stack.enter_context(loops.LoopDisk("ext4", ROOM, under)).path)
        yield stack.enter_context(Ground(arguments.keep and not arguments.fresh, under))


def bench(arguments: argparse.Namespace) -> list[str]:
    """The works and W6; a sentence for each thing that is asked and not reached."""
    only = arguments.only or NAMES
    told: dict[str, object] = {}
    short: list[str] = []
    with ground(arguments) as place:
        if works := [work for work in WORKS if work in only]:
            found, waiting = run(place, works, arguments.rounds, arguments.messages)
            ratios = summary(found)
            told |= {"works": ratios, "rounds": {work: forms(rounds) for work, rounds in found.items()}}
            told["smtp_source_s"] = waiting
            say("\n" + show(ratios))
            say("\nmedians; µs: CPU a message or recipient; ratios: above 1, openqmail is ahead\n")
            say(shares(found))
            for text in (*by_itself(waiting, ratios), *of_the_load(ratios)):
                say(text)
            short += missed(ratios)
        if priced := [work for work in COSTS if work in only]:
            cost = costs.compare(place, priced, arguments.rounds, arguments.messages)
            told["costs"] = cost.form()
            say("\n" + cost.show())
            short += cost.missed()
        if "W5" in only:
            memory = idle.compare(place)
            told["W5"] = memory._asdict()
            say("\n" + memory.show())
            short += memory.missed()
        if "W6" in only:
            compared = deferred.compare(place, arguments.deferred, arguments.rounds)
            told["W6"] = compared.form()
            say("\n" + compared.show())
            short += compared.missed()
        if "W10" in only:
            parts = arguments.part or [*PARTS]
            if "group" in parts:
                grouped = domains.group(place, arguments.domains)
                told["W10g"] = grouped._asdict()
                say(grouped.show())
                short += grouped.missed()
            if parts != ["group"]:
                suffered = domains.compare(place, arguments.net, arguments.domains, arguments.rounds, parts)
                told["W10"] = suffered.form()
                say("\n" + suffered.show())
                short += suffered.missed()
    write(arguments.json, arguments.messages, told, arguments.rounds >= ENOUGH)
    return short


def forms(rounds: list[dict[str, Figure]]) -> list[dict[str, object]]:
    return [
        {name: {**figure._asdict(), "disk": figure.disk._asdict()} for name, figure in each.items()}
        for each in rounds
    ]


def alone(arguments: argparse.Namespace) -> list[str]:
    """What is asked of openqmail without a peer."""
    short: list[str] = []
    with ground(arguments) as place:
        if arguments.million:
            found = deferred.alone(place, arguments.million)
            say("\n" + found.show())
            short += found.missed()
        if arguments.long:
            minutes = long_run.measure(place, arguments.long)
            say("\n" + long_run.show(minutes))
            short += long_run.missed(minutes)
    return short


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ENOUGH, help="5, or more, make a result (5)")
    parser.add_argument("--messages", type=int, default=5000, help="a round (5000)")
    parser.add_argument("--only", action="append", choices=NAMES, help="this work; may be repeated")
    parser.add_argument("--deferred", type=int, default=50_000, help="messages of W6 (50000)")
    parser.add_argument("--net", type=int, default=50_000, help="messages of W10 (50000)")
    parser.add_argument("--part", action="append", choices=PARTS, help="this part of W10; may be repeated")
    parser.add_argument("--domains", type=int, default=1000, help="domains of W10 (1000)")
    parser.add_argument(
        "--million", type=int, nargs="?", const=1_000_000, help="start with so many deferred, alone"
    )
    parser.add_argument("--long", type=float, metavar="MINUTES", help="W1 and W2 at once, alone")
    parser.add_argument("--json", type=Path, default=FIGURES, help="the figures go there (dist/bench.json)")
    parser.add_argument("--dir", default="/var/tmp", help="on the file system to be measured (/var/tmp)")
    parser.add_argument("--fresh", action="store_true", help="on an ext4 of its own, made for the run")
    parser.add_argument("--keep", action="store_true", help="leave the folder of the run in place")
    return parser.parse_args()


def main() -> int:
    arguments = parsed()
    apart = bool(arguments.million or arguments.long)
    try:
        if os.getuid():
            raise LoadError("needs root: Postfix does not start without")
        if arguments.only != ["W10"]:
            need("postfix", "postfix", "smtp-source", "smtp-sink")
        if not apart and {"W8a", "W8c"} & set(arguments.only or NAMES):
            need("dovecot-core", "dovecot")
        short = alone(arguments) if apart else bench(arguments)
    except LoadError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 69
    if not apart and arguments.rounds < ENOUGH:
        say(f"THIS IS NO RESULT: {arguments.rounds} of at least {ENOUGH} rounds")
        return 0
    for text in short:
        say(f"NOT REACHED: {text}")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
