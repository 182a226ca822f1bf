"""Debian's Exim, an instance of its own: configuration, spool and log in one folder.

It listens on one port of loopback, by SMTP, delivers to the Maildirs `mail/USER` of its folder, and sends
on what `routes` names, by BDAT where the other side offers it.  Its log says ` K ` of what came or left so.
Debian's package cannot be installed beside Postfix; `.ci/run` unpacks it into `.ci/tools/exim`.  Needs root:
Exim looks for the user that it was built for, who is made for as long as it runs where he is missing.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from homes import Waiting, free_port

UNPACKED = Path(__file__).resolve().parents[2] / ".ci" / "tools" / "exim"
USER = "Debian-exim"
CONFIGURATION = """\
primary_hostname = {domain}
spool_directory = {folder}/spool
log_file_path = {folder}/log/%s
pid_file_path = {folder}/exim.pid
keep_environment = LD_LIBRARY_PATH
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
{tls}
smtputf8_advertise_hosts = *
deliver_drop_privilege
accept_8bitmime
message_size_limit = 50M
acl_smtp_rcpt = rcpt
acl_smtp_data = accept

begin acl
rcpt:
  accept domains = {relayed}
  accept local_parts = {users}
  deny message = nobody of that name

begin routers
sent_on:
  driver = manualroute
  domains = {relayed}
  route_data = 127.0.0.1
  self = send
  transport = smtp
local:
  driver = accept
  transport = maildir

begin transports
smtp:
  driver = smtp
  port = ${{lookup{{$domain}}lsearch{{{folder}/routes}}}}
  allow_localhost
maildir:
  driver = appendfile
  directory = {folder}/mail/${{lookup{{$local_part}}lsearch{{{folder}/users}}}}
  maildir_format
  create_directory
"""

NO_TLS = "tls_advertise_hosts ="
TLS = """\
tls_advertise_hosts = *
tls_certificate = {file}
tls_privatekey = {file}"""


def _program() -> Path | None:
    for root in (Path("/"), UNPACKED):
        if (found := root / "usr/sbin/exim4").exists():
            return found
    return None


def why_not() -> str | None:
    """The reason why it cannot run here, if there is one."""
    if os.getuid() != 0:
        return "Exim has to be started by root"
    if _program() is None:
        return "there is no exim4, neither installed nor in .ci/tools/exim, where .ci/run unpacks it"
    return None


class Exim:
    """One instance for `domain`; it runs in a `with`.  `users` are numbered folders, so names may be any.
    `certificate`: a file with key and chain, without which there is no TLS.  `routes`: domains that it sends
    on, and the loopback ports that it sends them to."""

    def __init__(
        self,
        folder: Path,
        domain: str,
        users: Sequence[str],
        certificate: Path | None = None,
        routes: Mapping[str, int] | None = None,
    ) -> None:
        self._certificate, self._routes = certificate, routes or {}
        self.folder, self.domain, self.users, self.port = folder, domain, users, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._made = False

    def __enter__(self) -> "Exim":
        if USER not in (one.pw_name for one in pwd.getpwall()):
            subprocess.run(
                ["useradd", "--system", "--user-group", "--no-create-home", "-d", "/nonexistent", USER],
                check=True,
            )
            self._made = True
        for name in (".", "spool", "log", "mail"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            shutil.chown(self.folder / name, USER, USER)
        (self.folder / "users").write_text("".join(f"{user}: {at}\n" for at, user in enumerate(self.users)))
        sent_on = "".join(f"{domain}: {port}\n" for domain, port in self._routes.items())
        (self.folder / "routes").write_text(sent_on)
        configuration = self.folder / "exim.conf"
        users = " : ".join(self.users)
        told = {"folder": self.folder, "domain": self.domain, "port": self.port, "users": users}
        told["relayed"] = " : ".join(self._routes)
        tls = TLS.format(file=self._certificate) if self._certificate else NO_TLS
        configuration.write_text(CONFIGURATION.format(**told, tls=tls))
        program = _program()
        assert program is not None
        libraries = {} if program.parts[1] == "usr" else {"LD_LIBRARY_PATH": self._libraries()}
        with (self.folder / "said").open("wb") as said:
            self._process = subprocess.Popen(
                [program, "-C", configuration, "-bdf"],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={"PATH": os.environ["PATH"], **libraries},
            )
        for _ in Waiting(f"Exim listens\n{self.said()}"):
            assert self._process.poll() is None, self.said()
            if (self.folder / "exim.pid").exists():
                return self
        raise AssertionError

    def _libraries(self) -> str:
        return ":".join(map(str, (UNPACKED / "usr" / "lib").glob("*-linux-gnu")))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
        if self._made:
            for _ in Waiting(f"{USER} is gone, whose last processes still end"):
                if not subprocess.run(["userdel", USER], check=False, capture_output=True).returncode:
                    return

    def log(self) -> str:
        """Its main log, whole."""
        file = self.folder / "log" / "main"
        return file.read_text(errors="replace") if file.exists() else ""

    def said(self) -> str:
        """What it wrote, and its logs."""
        files = [self.folder / "said", *sorted((self.folder / "log").glob("*"))]
        return "\n".join(file.read_text(errors="replace") for file in files if file.exists())[-4000:]

    def wait_mails(self, user: str, count: int) -> list[bytes]:
        """Until a user has at least so many, and then all of them, in no order."""
        new = self.folder / "mail" / str(self.users.index(user)) / "new"
        for _ in Waiting(f"{user}@{self.domain} has {count} mails at Exim"):
            found = list(new.iterdir()) if new.exists() else []
            if len(found) >= count:
                return [file.read_bytes() for file in found]
        raise AssertionError(self.said())
