"""Dovecot's LMTP server as a receiver: an instance of its own, on loopback, for users of a passwd-file.

Mail goes to the Maildirs `mail/USER` of its folder, all of `nobody`'s.  Needs root.
"""

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from homes import Waiting, free_port

CONFIGURATION = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = lmtp
listen = 127.0.0.1
ssl = no
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:{folder}/mail/%n
auth_username_format = %n
lmtp_rcpt_check_quota = yes
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service stats {{
  client_limit = 100
}}
userdb {{
  driver = passwd-file
  args = {folder}/users
}}
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
"""


def why_not() -> str | None:
    """The reason why it cannot run here, if there is one."""
    if os.getuid() != 0:
        return "Dovecot has to be started by root"
    if not Path("/usr/sbin/dovecot").exists() or not Path("/usr/lib/dovecot/lmtp").exists():
        return "there is no LMTP server of Dovecot's (Debian: apt-get install dovecot-lmtpd)"
    return None


class DovecotLmtp:
    """One instance; it runs in a `with`."""

    def __init__(self, folder: Path, users: Sequence[str]) -> None:
        self.folder, self.users, self.port = folder, users, free_port()

    def __enter__(self) -> "DovecotLmtp":
        owner = pwd.getpwnam("nobody")
        (self.folder / "mail").mkdir(parents=True)
        os.chown(self.folder / "mail", owner.pw_uid, owner.pw_gid)
        lines = (f"{user}:{{PLAIN}}x:{owner.pw_uid}:{owner.pw_gid}::{self.folder}::\n" for user in self.users)
        (self.folder / "users").write_text("".join(lines))
        configuration = self.folder / "dovecot.conf"
        configuration.write_text(CONFIGURATION.format(folder=self.folder, port=self.port))
        with (self.folder / "said").open("wb") as said:
            self._process = subprocess.Popen(
                ["/usr/sbin/dovecot", "-F", "-c", configuration], stdout=said, stderr=said
            )
        for _ in Waiting("Dovecot runs"):
            assert self._process.poll() is None, self.said()
            if (self.folder / "run" / "master.pid").exists():
                return self
        raise AssertionError

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(20)

    def said(self) -> str:
        files = (self.folder / "said", self.folder / "log")
        return "\n".join(file.read_text(errors="replace") for file in files if file.exists())[-4000:]

    def wait_mails(self, user: str, count: int) -> list[bytes]:
        """Until a user has at least so many, and then all of them, in no order."""
        new = self.folder / "mail" / user / "new"
        for _ in Waiting(f"{user} has {count} mails at Dovecot"):
            found = list(new.iterdir()) if new.exists() else []
            if len(found) >= count:
                return [file.read_bytes() for file in found]
        raise AssertionError(self.said())
