"""Postfix's smtp-source: 200 messages over 10 connections that are kept, and all are delivered."""

import re
import subprocess
from collections.abc import Callable

from homes import Home

MESSAGES, CONNECTIONS, SIZE = 200, 10, 4000


def test_all_of_200_messages_over_10_kept_connections_are_delivered(
    home: Home, program: Callable[[str], str]
) -> None:
    command = [program("smtp-source"), "-d", "-s", CONNECTIONS, "-m", MESSAGES, "-l", SIZE]
    command += ["-f", "bob@a.example", "-t", "alice@a.example", f"127.0.0.1:{home.port}"]
    home.start()
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    home.wait_mails("alice", MESSAGES)
    home.wait_empty()
    mails = home.mails("alice")
    identities = {found[1] for mail in mails if (found := re.search(rb"\nMessage-Id: (\S+)\n", mail))}
    assert len(mails) == len(identities) == MESSAGES
    bodies = {mail.partition(b"\n\n")[2] for mail in mails}
    assert len(bodies) == 1 and len(bodies.pop()) > SIZE * 9 // 10
