"""What a new home has in it, whoever it belongs to: an empty queue, aliases, users/, control/."""

import os
from collections.abc import Mapping, Sequence

from openqmail.core.commands import boxes
from openqmail.core.commands.writing import Made
from openqmail.core.control.assign import Assignment, compile_cdb
from openqmail.core.control.home import Home
from openqmail.core.queue.layout import paths as layout

ALIASES = ("postmaster", "mailer-daemon", "root", "abuse")


def queue(home: Home, made: Made) -> None:
    """An empty layout in the folder, which is there; the caller's."""
    for below in layout.folders():
        made.folder(os.path.join(home.queue, os.fsdecode(below)), layout.folder_mode(below))
    for below, content, mode in layout.FILES:
        made.file(os.path.join(home.queue, os.fsdecode(below)), content, mode)


def aliases(home: Home, address: str, made: Made) -> None:
    """Who gets the mail of those who must be there (RFC 5321 section 4.5.1, RFC 2142)."""
    for alias in ALIASES:
        made.file(os.path.join(home.alias, f".qmail-{alias}"), f"&{address}\n".encode(), 0o644)


def users(home: Home, lines: Sequence[Assignment], made: Made) -> None:
    made.file(os.path.join(home.users, "assign"), boxes.written(lines) + b".\n", 0o644)
    made.file(os.path.join(home.users, "cdb"), compile_cdb(lines), 0o644)


def certificate(home: Home, pem: bytes, made: Made) -> None:
    """That of the host, with its key."""
    made.file(os.path.join(home.control, "servercert.pem"), pem, 0o400)


def control(home: Home, files: Mapping[str, str], made: Made) -> None:
    for name, text in files.items():
        made.file(os.path.join(home.control, name), text.encode(), 0o644)
