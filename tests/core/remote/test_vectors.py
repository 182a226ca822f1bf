"""Beside the recorded reports of notqmail's qmail-remote: the same words, the same decisions.

Where we differ, we differ on purpose; `DIFFERENT` says how.
"""

import asyncio
import json
import os
import re
from pathlib import Path

import pytest

from openqmail.core.control.settings import Route


def _folder():
    given = os.environ.get("OPENQMAIL_VECTORS")
    return Path(given) if given else Path(__file__).parents[4] / "shared" / "vectors"


INDEX = _folder() / "notqmail" / "remote" / "index.json"
CASES = json.loads(INDEX.read_text()) if INDEX.exists() else []

DIFFERENT = [
    # Any 2xx is a greeting, and any 2xx an answer to EHLO (RFC 5321 section 4.3.2 by its first digit).
    (r"(greeting|helo)-(200|250|299)$", "success"),
    # A peer that breaks the protocol has not refused the message: the connection is given up.
    (r"(greeting|helo|mail|rcpt|data|after-data)-(999|bare-lf|garbage|short|letters|long)$", "died"),
    (r"(greeting|helo|mail|rcpt)-(3\d\d)$|data-(300|399)$", "died or refused"),
    (r"data-(2\d\d)$", "died"),
    (r"after-data-(3\d\d)$", "died"),
    (r"greeting-220-lf$|multiline-different-codes", "died"),
    # What SMTP cannot carry is a failure, not a mended message; a final newline is added.
    (r"body-(bare-cr|cr-|crlf|lf-dot-cr|nul|long-line|trailing-cr|cr$)", "unfit"),
    (r"body-8bit$", "8BITMIME"),
    (r"body-no-final-newline", "success"),
    # What is no path of RFC 5321 is not sent as if it were one; VERP's sender is for qmail-send to resolve.
    (r"address-(8bit|newline|tab|noat|verp)$", "unable"),
]


def _difference(name):
    return next((how for pattern, how in DIFFERENT if re.search("^(" + pattern + ")", name)), None)


def _expected(report, count):
    """qmail-rspawn's reading of a report: an outcome and a text for each recipient."""
    parts = report.encode("latin-1").split(b"\0")[:-1]
    recipients, (message,) = parts[:-1], parts[-1:]
    if not recipients:
        return [(message[:1], message[1:])] * count
    recipients += [b"r"] * (count - len(recipients))
    letters = {b"s": b"Z", b"h": b"D"}
    return [
        (message[:1], message[1:])
        if each[:1] == b"r"
        else (letters[each[:1]], each[1:] + b"Giving up on 127.0.0.2.\n")
        for each in recipients
    ]


class Script:
    """The recorded server: replies in order, one for each command or message."""

    def __init__(self, replies):
        self.replies = list(replies)
        refused = self.replies[1] if len(self.replies) > 1 else None
        if refused and refused.startswith("5"):
            # We say EHLO first, and HELO when that is refused.
            self.replies.insert(1, refused)

    async def __call__(self, reader, writer):
        writer.write(b"")
        try:
            await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _talk(self, reader, writer):
        verb, last = b"", ""
        for at, reply in enumerate(self.replies):
            if at:
                if verb == b"DATA" and last.startswith(("2", "3")):
                    body = b"\r\n"
                    while not body.endswith(b"\r\n.\r\n"):
                        body += await reader.readuntil(b"\n")
                    verb = b"."
                else:
                    verb = (await reader.readuntil(b"\n"))[:4].upper()
            if reply is None:
                return
            if reply == "HANG":
                await asyncio.Event().wait()
            text = reply.encode("latin-1")
            partial = at + 1 < len(self.replies) and self.replies[at + 1] is None and b"partial" in text
            writer.write(text if text.endswith(b"\n") or partial else text + b"\r\n")
            last = reply
            if partial:
                return


async def _deliver(scene, case):
    server = await asyncio.start_server(Script(case["server_script"]), "127.0.0.2", 0, limit=1 << 20)
    port = server.sockets[0].getsockname()[1]
    given = scene.settings(smtproutes={b"": Route("smtp", (b"[127.0.0.2]",), port)}, timeoutremote=0.3)
    try:
        async with scene.remote(given) as remote:
            body = case["message"].encode("latin-1")
            recipients = [each.encode() for each in case["recipients"]]
            job = scene.job(body, recipients, case["sender"].encode())
            return await remote.deliver(job)
    finally:
        server.close()


SCRIPTED = [case for case in CASES if isinstance(case["server_script"], list) and case["recipients"]]


@pytest.mark.skipif(not CASES, reason=f"no recorded behaviour at {INDEX}")
@pytest.mark.parametrize("case", SCRIPTED, ids=lambda case: case["case"])
def test_the_report_is_notqmails(scene, case):
    results = asyncio.run(asyncio.wait_for(_deliver(scene, case), 20))
    got = [(each.outcome.value, each.text) for each in results]
    expected = _expected(case["report"], len(case["recipients"]))
    how = _difference(case["case"])
    if how is None:
        assert got == expected
    elif how == "success":
        assert got == [(b"K", b"127.0.0.2 accepted message.\nRemote host said: 250 accepted\n")]
    elif how in ("unfit", "8BITMIME", "unable"):
        assert got[0][0] == b"D"
    else:
        assert got != [(b"K", expected[0][1])] or got == expected
        assert got[0][0] == b"Z"
