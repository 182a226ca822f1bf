"""A home that takes submitted mail, over TLS, from those who log in: alice by every mechanism."""

import subprocess
from pathlib import Path
from typing import NamedTuple

from certificates import Authority
from homes import Home, command
from system_homes import SystemHome

AUTHORITY = Authority()
PASSWORD = "alice's own secret"


class Served(NamedTuple):
    """`submissions`: the port of implicit TLS; `folder` has `ca.pem`."""

    home: Home
    submissions: int
    folder: Path


EVERY = "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN CRAM-MD5 OAUTHBEARER XOAUTH2"


def prepare(home: Home, submissions: int, folder: Path, mechanisms: str = EVERY) -> None:
    """`mechanisms`: what is offered as far as anybody can use it; "": what everybody can."""
    home.control("listen", f"submission 127.0.0.1:{home.port}\nsubmissions 127.0.0.1:{submissions}")
    home.control("rules", "127.:allow")
    home.control("authfailures", "0")
    home.control("authmechanisms", mechanisms.replace(" ", "\n"))
    pem = home.path / "control" / "servercert.pem"
    pem.write_bytes(AUTHORITY.issue(hosts=("a.example",)).pem)
    pem.chmod(0o400 if isinstance(home, SystemHome) else 0o644)
    folder.mkdir(exist_ok=True)
    (folder / "ca.pem").write_bytes(AUTHORITY.certificate)
    home_user(home, "add", "alice", PASSWORD)


def home_user(home: Home, what: str, name: str, password: str, *options: str) -> None:
    said = [*command(), "--home", str(home.path), "user", what, name, *options]
    subprocess.run(said, input=password + "\n", text=True, check=True, capture_output=True, timeout=60)
