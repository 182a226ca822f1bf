"""Dovecot as who knows Postfix's users: an instance of its own that does nothing but SASL, for a socket.

Users are those of a passwd-file, with their passwords in plain, so that every mechanism can be served,
or as whoever starts it has them.  Needs root.
"""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from homes import Waiting

CONFIGURATION = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
auth_verbose = yes
protocols =
ssl = no
auth_mechanisms = {mechanisms}
service auth {{
  unix_listener {folder}/auth {{
    mode = 0666
  }}
}}
service stats {{
  client_limit = 100
}}
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}
}}
"""


def why_not() -> str | None:
    """The reason why it cannot run here, if there is one."""
    if os.getuid() != 0:
        return "Dovecot has to be started by root"
    if not Path("/usr/sbin/dovecot").exists():
        return "there is no Dovecot (Debian: apt-get install dovecot-core)"
    return None


class DovecotAuth:
    """One instance; it runs in a `with`.  `users`: name -> password, or {SCHEME} and what that makes of it;
    `settings` are Postfix's."""

    def __init__(self, folder: Path, users: Mapping[str, str], mechanisms: str) -> None:
        self.folder = folder
        folder.mkdir(mode=0o755)
        secrets = {name: text if text.startswith("{") else "{PLAIN}" + text for name, text in users.items()}
        (folder / "users").write_text("".join(f"{name}:{text}\n" for name, text in secrets.items()))
        (folder / "dovecot.conf").write_text(CONFIGURATION.format(folder=folder, mechanisms=mechanisms))
        self.settings = {
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_type": "dovecot",
            "smtpd_sasl_path": folder / "auth",
            "smtpd_sasl_security_options": "noanonymous",
            "smtpd_sasl_authenticated_header": "yes",
            "smtpd_recipient_restrictions": "permit_sasl_authenticated,reject",
        }

    def __enter__(self) -> "DovecotAuth":
        with (self.folder / "said").open("wb") as said:
            self._process = subprocess.Popen(
                ["/usr/sbin/dovecot", "-F", "-c", self.folder / "dovecot.conf"], stdout=said, stderr=said
            )
        for _ in Waiting("Dovecot runs"):
            assert self._process.poll() is None, self.said()
            if (self.folder / "auth").exists():
                return self
        raise AssertionError

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(20)

    @property
    def pid(self) -> int:
        return self._process.pid

    def said(self) -> str:
        files = (self.folder / "said", self.folder / "log")
        return "\n".join(file.read_text(errors="replace") for file in files if file.exists())[-4000:]
