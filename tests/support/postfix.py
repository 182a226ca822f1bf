"""Debian's Postfix, an instance of its own: configuration, queue, data and log in one folder.

The system's instance is neither used nor touched.  It listens on loopback only, delivers to the
Maildirs `mail/USER/Maildir` of its folder, and sends on what `routes` names.  Needs root.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from homes import Waiting, free_port

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
"""

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


def why_not() -> str | None:
    """The reason why it cannot run here, if there is one."""
    if os.getuid() != 0:
        return "Postfix does not start without root"
    if not Path("/usr/sbin/postfix").exists():
        return "there is no /usr/sbin/postfix (Debian: apt-get install postfix)"
    return None


class Postfix:
    """One instance, for `domain`; `routes` are domains and the loopback ports they are sent to.

    It runs between `start` and `stop`, or in a `with`.
    """

    def __init__(
        self,
        folder: Path,
        domain: str,
        users: Sequence[str] = (),
        routes: Mapping[str, int] | None = None,
        settings: Mapping[str, object] | None = None,
        hosts: Sequence[str] = ("127.0.0.1",),
    ) -> None:
        self.folder, self.domain, self.port = folder, domain, free_port()
        self.pid = 0
        self.log = folder / "postfix.log"
        for name in ("etc", "queue", "data", "mail"):
            (folder / name).mkdir(parents=True)
        folder.chmod(0o755)
        for made in (folder, folder / "queue"):
            os.chown(made, 0, 0)
        os.chown(folder / "mail", 65534, 65534)
        shutil.chown(folder / "data", "postfix")
        mailboxes = "".join(f"{user}@{domain} {user}/Maildir/\n" for user in users)
        (folder / "mailboxes").write_text(mailboxes)
        sent_on = "".join(f"{name} smtp:[127.0.0.1]:{port}\n" for name, port in (routes or {}).items())
        (folder / "transport").write_text(sent_on)
        added = "".join(f"{name} = {value}\n" for name, value in (settings or {}).items())
        (folder / "etc" / "main.cf").write_text(MAIN.format(folder=folder, domain=domain) + added)
        listeners = "".join(LISTEN.format(host=host, port=self.port) for host in hosts)
        (folder / "etc" / "master.cf").write_text(listeners + MASTER)

    def start(self) -> None:
        """Starts it, and waits until it runs."""
        self._control("start")
        file = self.folder / "queue" / "pid" / "master.pid"
        for _ in Waiting("Postfix runs"):
            if file.exists() and (text := file.read_text().strip()):
                self.pid = int(text)
                return

    def stop(self) -> None:
        """Ends it, and waits until it has ended."""
        self._control("abort")
        for _ in Waiting("Postfix has ended"):
            if self._control("status", check=False):
                return

    def __enter__(self) -> "Postfix":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _control(self, what: str, check: bool = True) -> int:
        command = ["/usr/sbin/postfix", "-c", str(self.folder / "etc"), what]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if check and ran.returncode:
            raise AssertionError(f"postfix {what}: exit {ran.returncode}: {ran.stderr}{self.said()[-1000:]}")
        return ran.returncode

    def said(self) -> str:
        """Its whole log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def maildir(self, user: str) -> Path:
        return self.folder / "mail" / user / "Maildir"

    def wait_mails(self, user: str, count: int) -> list[bytes]:
        """Until a user has at least so many, and then all of them, in no order."""
        new = self.maildir(user) / "new"
        for _ in Waiting(f"{user}@{self.domain} has {count} mails\n{self.said()[-2000:]}"):
            found = list(new.iterdir()) if new.exists() else []
            if len(found) >= count:
                return [file.read_bytes() for file in found]
        raise AssertionError

    def queued(self) -> int:
        queues = (self.folder / "queue" / name for name in ("incoming", "active", "deferred"))
        return sum(len(files) for queue in queues for _, _, files in os.walk(queue))

    def wait_empty(self) -> None:
        """Until its queue is empty."""
        for _ in Waiting(f"the queue of {self.domain} is empty"):
            if not self.queued():
                return
