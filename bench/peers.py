"""The two that are measured, each behind the same face: openqmail and Debian's Postfix.

Each runs twice: one delivers, one holds what it has accepted.  Both keep their defaults of
durability, log to a file, deliver at most 20 at once, and write to Maildirs that are new in every
round.  Postfix has its own configuration, queue and data under the folder of the run; the
system's instance is neither used nor touched.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from load import CONNECTIONS, LoadError, wait_until

from homes import Home, Place, free_port

DOMAIN = "bench.example"
SINK = "sink.example"


def addresses(rounds: int) -> list[str]:
    """A loopback address a round, and one for the warm-up."""
    return [f"127.0.1.{number + 1}" for number in range(rounds + 1)]


class Peer(Protocol):
    """What a round asks of either."""

    name: str
    port: int
    pid: int

    def maildir(self, user: str) -> Path: ...

    def queued(self) -> int: ...

    def stop(self) -> None: ...


class Openqmail:
    """A home, made and run as people do."""

    name = "openqmail"

    def __init__(
        self, place: Place, hold: bool, users: Sequence[str], hosts: Sequence[str], sink: int
    ) -> None:
        self.port = free_port()
        listen = [f"smtp {host}:{self.port}" for host in hosts]
        folder = f"{'hold' if hold else 'deliver'}.{DOMAIN}"
        self._home = Home(place.path / folder, DOMAIN, users, listen, ())
        place.homes.append(self._home)
        limit = "0" if hold else str(CONNECTIONS)
        for name in ("concurrencylocal", "concurrencyremote", "concurrencydestination"):
            self._home.control(name, str(CONNECTIONS) if name == "concurrencydestination" else limit)
        self._home.control("smtproutes", f"{SINK}:[127.0.0.1]:{sink}")
        self._home.start()
        assert self._home.process is not None
        self.pid = self._home.process.pid

    def maildir(self, user: str) -> Path:
        return self._home.maildir(user)

    def queued(self) -> int:
        return int(self._home.status()["queue"]["messages"])

    def stop(self) -> None:
        self._home.kill()


MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
daemon_directory = /usr/lib/postfix/sbin
command_directory = /usr/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/postfix.log
maillog_file_prefixes = {folder}
myhostname = {domain}
mydestination =
alias_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = texthash:{folder}/mailboxes
virtual_mailbox_limit = 0
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
transport_maps = texthash:{folder}/transport
default_destination_concurrency_limit = {connections}
{hold}
"""

HOLD = "defer_transports = smtp, virtual\nqueue_run_delay = 1h\nminimal_backoff_time = 1h"

LISTEN = "{host}:{port} inet n - n - - smtpd\n"

MASTER = """\
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
showq unix n - n - - showq
"""


class Postfix:
    """An instance of its own under the folder of the run."""

    name = "postfix"

    def __init__(
        self, place: Place, hold: bool, users: Sequence[str], hosts: Sequence[str], sink: int
    ) -> None:
        self.port = free_port()
        self._folder = folder = place.path / f"postfix-{'hold' if hold else 'deliver'}"
        for name in ("etc", "queue", "data", "mail"):
            (folder / name).mkdir(parents=True)
        folder.chmod(0o755)
        os.chown(folder, 0, 0)
        os.chown(folder / "queue", 0, 0)
        os.chown(folder / "mail", 65534, 65534)
        subprocess.run(["chown", "postfix", str(folder / "data")], check=True)
        (folder / "mailboxes").write_text("".join(f"{user}@{DOMAIN} {user}/Maildir/\n" for user in users))
        (folder / "transport").write_text(f"{SINK} smtp:[127.0.0.1]:{sink}\n")
        text = MAIN.format(
            folder=folder,
            domain=DOMAIN,
            connections=CONNECTIONS,
            hold=HOLD if hold else "",
        )
        (folder / "etc" / "main.cf").write_text(text)
        listeners = "".join(LISTEN.format(host=host, port=self.port) for host in hosts)
        (folder / "etc" / "master.cf").write_text(listeners + MASTER)
        self._control("start")
        pid = folder / "queue" / "pid" / "master.pid"
        wait_until(lambda: pid.exists() and bool(pid.read_text().strip()), "postfix runs")
        self.pid = int(pid.read_text())

    def _control(self, what: str) -> None:
        command = ["/usr/sbin/postfix", "-c", str(self._folder / "etc"), what]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if ran.returncode:
            log = self._folder / "postfix.log"
            said = log.read_text()[-1000:] if log.exists() else ""
            raise LoadError(f"postfix {what}: exit {ran.returncode}: {ran.stderr}{said}")

    def maildir(self, user: str) -> Path:
        return self._folder / "mail" / user / "Maildir"

    def queued(self) -> int:
        queues = (self._folder / "queue" / name for name in ("incoming", "active", "deferred"))
        return sum(len(files) for queue in queues for _, _, files in os.walk(queue))

    def stop(self) -> None:
        self._control("abort")
