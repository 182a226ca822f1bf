"""What happened to one message: the record of it, and what the queue has of it now."""

import os
import pwd
import sys
import time
from typing import Any

import msgspec

from openqmail.core.commands import client
from openqmail.core.commands.command import DONE, NONE
from openqmail.core.commands.queue import clean, for_people, sentence
from openqmail.core.commands.status import in_units
from openqmail.core.control.accounts import as_send, find_accounts
from openqmail.core.control.home import Home
from openqmail.core.control.owner import as_owner
from openqmail.core.control.reader import read_settings
from openqmail.core.log.history import Life, happened
from openqmail.core.values import OpenqmailError, TemporaryFailure


def tell(home: Home, number: int, *, all_lives: bool, as_json: bool) -> int:
    """Print it; the exit code.  Raises OpenqmailError."""
    present, trouble, running = _present(home, number)
    passed_over: list[str] = []
    try:
        with as_send(home):
            lives = happened(
                os.path.join(home.queue, "history"), number, all_lives=all_lives, tell=passed_over.append
            )
    except OSError as error:
        raise TemporaryFailure(f"{home.queue}/history: cannot be read: {error.strerror or error}") from None
    if passed_over:
        more = f", and {len(passed_over) - 1} more" if len(passed_over) > 1 else ""
        print(f"openqmail: {clean(passed_over[0])}{more}; passed over", file=sys.stderr)
    if as_json:
        told = {"v": 1, "message": number, "lives": lives, "queue": present}
        print(msgspec.json.encode(told).decode())
    else:
        smtpd = _smtpd(home) if lives else None
        for life in lives:
            print("\n".join(_life(number, life, smtpd)))
        if present is not None:
            print("now in the queue:")
            print(for_people(present, running=running))
        elif trouble:
            print(f"now: {clean(trouble)}")
        elif lives:
            print("now: not in the queue")
    if lives or present is not None:
        return DONE
    if not as_json:
        days = _days(home)
        kept = (
            f"the record goes back {days} days at most" if days else "control/historydays is 0: none is kept"
        )
        print(f"nothing is known of a message {number}; {kept}")
    return NONE


def _present(home: Home, number: int) -> tuple[dict[str, Any] | None, str, bool]:
    """As `queue list` has it, why that cannot be told, and whether a service runs."""
    from openqmail.core.commands import offline  # noqa: PLC0415  # as commands.queue does

    for queue in (client, offline):
        try:
            with as_owner(home):
                lines = b"".join(queue.messages(home, (number,)))
        except client.Stopped:
            continue
        except TemporaryFailure as error:
            return None, str(error), queue is client
        found = msgspec.json.Decoder(dict[str, Any]).decode_lines(lines)
        return (found[0] if found else None), "", queue is client
    return None, "the service has just ended; ask again", False


def _smtpd(home: Home) -> int | None:
    """The uid of the process that speaks SMTP, where nobody else has it."""
    if home.uid:
        return None
    try:
        return find_accounts(home).smtpd.uid
    except OpenqmailError:
        return None


def _days(home: Home) -> int:
    with as_owner(home):
        return read_settings(home).historydays


Began = dict[int, tuple[float, str]]
"""When deliveries began, and to whom."""


def _life(number: int, life: Life, smtpd: int | None) -> list[str]:
    """A line an event; `smtpd`: the uid by which it is known what came by SMTP."""
    began: Began = {}
    lines = []
    if life[0]["event"] != "accepted":
        lines.append(f"#{number}  (the begin is not on record)")
    for entry in life:
        lines.append(f"{_stamp(entry['time'])}  {clean(_words(number, entry, began, smtpd))}")
    return lines


def _stamp(seconds: float) -> str:
    thousandths = round(seconds * 1000)
    second = time.strftime("%d %b %Y %H:%M:%S", time.gmtime(thousandths // 1000))
    return f"{second}.{thousandths % 1000:03d}"


def _words(number: int, entry: dict[str, Any], began: Began, smtpd: int | None) -> str:
    event, delivery, text = entry["event"], entry.get("delivery"), sentence(str(entry.get("text", "")))
    if event == "accepted":
        made = f", a {entry['made']} made of message {entry.get('parent')}" if entry.get("made") else ""
        size, uid = in_units(entry.get("bytes", 0)), entry.get("uid")
        who = f"uid {uid}{_name(uid)}, process {entry.get('pid')}"
        if uid == smtpd:
            who += f": by SMTP; 'smtpd: accepted msg {number}' in the log names the client"
        return f"message {number} accepted: {size} from <{entry.get('sender')}>, handed in by {who}{made}"
    if event == "starting":
        began[delivery or 0] = entry["time"], str(entry.get("recipient"))
        return f"delivery {delivery} begins: {entry.get('channel')} to {entry.get('recipient')}"
    if event == "delivery":
        begin, recipient = began.pop(delivery or 0, (None, ""))
        took = "" if begin is None else f" after {entry['time'] - begin:.2f} s"
        to = f" to {recipient}" if recipient else ""
        return f"delivery {delivery}{to}, {entry.get('outcome')}{took}: {text}"
    if event == "made":
        return f"a {entry.get('made')} was made of it: message {entry.get('child')}"
    if event == "end":
        return f"message {number} ended"
    if event == "triple_bounce":
        return "it could not be given back to anybody: a bounce of a bounce of a bounce is not made"
    return f"{event}: {text}"


def _name(uid: Any) -> str:
    try:
        return f" ({pwd.getpwuid(uid).pw_name})"
    except (KeyError, TypeError, OverflowError):
        return ""
