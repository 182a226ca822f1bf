"""`openqmail status`: whether this home is served, and what goes on.

Exit code 0 while it serves, 100 when it does not, 111 when it cannot be told.
"""

import argparse
import json
import time
from typing import Any

from openqmail.core.__about__ import FOLDER, __version__
from openqmail.core.commands import client
from openqmail.core.commands.command import CANNOT, DONE, example, needed
from openqmail.core.control.home import Home
from openqmail.core.control.owner import as_owner, user_name
from openqmail.core.control.text import shown

help = "say whether the service runs, and what it does; exit 0 only while it serves"

STOPPED: dict[str, Any] = {
    "v": 1,
    "state": "stopped",
    "pid": None,
    "version": __version__,
    "since": None,
    "listen": [],
    "queue": None,
    "running": {"local": 0, "remote": 0},
    "processes": [],
    "refusals": 0,
    "refusal": "",
    "settings": None,
    "program": FOLDER,
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    example(parser, "openqmail --home mail status")


def run(home: Home | None, args: argparse.Namespace) -> int:
    here = needed(home)
    try:
        with as_owner(here):
            found = client.status(here)
    except client.Stopped:
        found = STOPPED
    print(json.dumps(found) if args.json else _for_people(_printable(found), here))
    return DONE if found.get("state") == "serving" else CANNOT


def _for_people(found: dict[str, Any], home: Home) -> str:
    state = found.get("state")
    if state == "stopped":
        return f"{home.path}: stopped\nnext: openqmail --home {home.path} run"
    since = time.strftime("%d %b %Y %H:%M:%S UTC", time.gmtime(found.get("since") or 0))
    lines = [
        f"{home.path}: {state}, process {found.get('pid')}, version {found.get('version')}, since {since}"
    ]
    lines += [f"  listens    {one.get('service')} {one.get('address')}" for one in found.get("listen") or ()]
    queue = found.get("queue")
    lines.append(f"  queue      {'not opened yet' if queue is None else totals(queue)}")
    queue = queue or {}
    if count := queue.get("unreadable"):
        lines.append(f"  unreadable {count} message{'s' * (count != 1)}; 'queue list' says why")
    if queue.get("full"):
        lines.append("  disk       too little room for the queue: new mail is refused (452)")
    running = found.get("running") or {}
    lines.append(f"  deliveries {running.get('local', 0)} local, {running.get('remote', 0)} remote")
    lines += [_process(one) for one in found.get("processes") or ()]
    return "\n".join(lines)


def _printable(value: Any) -> Any:
    """What a process told, fit for a terminal whoever it has become."""
    match value:
        case str():
            return shown(value)
        case dict():
            return {_printable(key): _printable(one) for key, one in value.items()}
        case list():
            return [_printable(one) for one in value]
    return value


def _process(one: dict[str, Any]) -> str:
    who = user_name(one.get("uid") or 0)
    what = f"{one.get('name')} {one.get('pid')}"
    size = in_units(one.get("rss") or 0)
    return f"  {what:<18} {who}, generation {one.get('generation')}, {size}, {one.get('work')} in hand"


def totals(queue: dict[str, Any]) -> str:
    """The queue in one line."""
    messages, recipients = queue.get("messages", 0), queue.get("recipients", 0)
    if not messages:
        return "empty"
    text = (
        f"{messages} message{'s' * (messages != 1)}, {recipients} recipient{'s' * (recipients != 1)} waiting"
    )
    parts = [f"{queue[name]} {name}" for name in ("deferred", "held") if queue.get(name)]
    return ", ".join([text, *parts, in_units(queue.get("bytes", 0))])


def in_units(size: int) -> str:
    if size < 1024:
        return f"{size} bytes"
    number = float(size)
    for unit in ("KiB", "MiB", "GiB"):
        number /= 1024
        if number < 1024 or unit == "GiB":
            break
    return f"{number:.1f} {unit}"
