"""A whole home of root's with users made for it, and its service, run by root; root only.

Mail goes to users of this host, in their own homes.  `SystemPlace` is to be left again: it ends
the service and takes every user with it.
"""

import os
import pwd
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import system_users
from homes import Home, free_port, openqmail
from openqmail.core.control import compile_cdb, parse_assign

ROLES = ("smtpd", "gate", "send", "remote")


class SystemHome(Home):
    """`people`: the short name of each user -> who that is on this host."""

    def __init__(
        self, room: Path, people: Sequence[str], me: str = "a.example", listen: Sequence[str] = ()
    ) -> None:
        self.path, self.me = room / "home", me
        self.port = free_port()
        self.log = room / "home.log"
        self.process = None
        self.room = room
        self.people = {who: system_users.add(who, room / who) for who in people}
        users = [word for one in self.people.values() for word in ("--user", one.pw_name)]
        lines = listen or [f"smtp 127.0.0.1:{self.port}"]
        told = [word for line in lines for word in ("--listen", line)]
        openqmail("init", self.path, "--system", "--me", me, *users, *told, *system_users.accounts())

    def account(self, role: str) -> pwd.struct_passwd:
        return pwd.getpwnam(system_users.name_of(role))

    def address(self, who: str, extension: str = "") -> str:
        return f"{system_users.name_of(who)}{extension and '-' + extension}@{self.me}"

    def maildir(self, user: str) -> Path:
        return Path(self.people[user].pw_dir) / "Maildir"

    def mailboxes(self, who: str, names: Sequence[str]) -> None:
        """Addresses whose mail one user gets, each in a Maildir of its own: `mailbox(name)`."""
        one = self.people[who]
        lines = []
        for name in names:
            folder = Path(one.pw_dir) / name
            for part in ("Maildir/tmp", "Maildir/new", "Maildir/cur"):
                (folder / part).mkdir(parents=True)
            lines.append(f"={name}:{one.pw_name}:{one.pw_uid}:{one.pw_gid}:{folder}:::\n")
        subprocess.run(["chown", "-R", f"{one.pw_uid}:{one.pw_gid}", one.pw_dir], check=True)
        assign = "".join(lines) + ".\n"
        (self.path / "users" / "assign").write_text(assign)
        found, problems = parse_assign(assign.encode())
        assert not problems
        (self.path / "users" / "cdb").write_bytes(compile_cdb(found))
        self._reader = one

    def mailbox(self, name: str) -> Path:
        """The Maildir of one of those addresses."""
        return Path(self._reader.pw_dir) / name / "Maildir"

    def write(self, who: str, name: str, text: str, mode: int = 0o644) -> Path:
        """A file in a user's home, hers."""
        file = Path(self.people[who].pw_dir) / name
        file.write_text(text)
        file.chmod(mode)
        os.chown(file, self.people[who].pw_uid, self.people[who].pw_gid)
        return file

    def pids(self) -> dict[str, int]:
        """A process of each role; of several workers the last that is named."""
        return {one["name"]: one["pid"] for one in self.status()["processes"]}

    def workers(self) -> dict[int, int]:
        """uid -> pid of each worker."""
        return {one["uid"]: one["pid"] for one in self.status()["processes"] if one["name"] == "worker"}


@contextmanager
def system_home(*people: str) -> Iterator[SystemHome]:
    """A home for these people, not started."""
    with system_users.room() as room:
        home = SystemHome(room, people)
        try:
            yield home
        finally:
            home.kill()
