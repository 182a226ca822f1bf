"""A port below 1024 without root, by a right of the Python that runs it (setcap), as docs/running.md says.

Root only, which sets it.
"""

import contextlib
import os
import pwd
import random
import site
import smtplib
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from homes import OWNER, Place

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file capabilities")


def low_port() -> int:
    for port in random.sample(range(600, 1023), 200):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    pytest.skip("every port below 1024 is in use")


@pytest.fixture
def python(place: Place, program: Callable[[str], str]) -> Path:
    """A copy of this Python in a venv, which has what is installed for this one."""
    folder = place.path / "venv"
    venv = [sys.executable, "-m", "venv", "--copies", "--without-pip", str(folder)]
    subprocess.run(venv, check=True, capture_output=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    known = [
        path for path in (*site.getsitepackages(), *sys.path) if "site-packages" in path or "/src" in path
    ]
    (packages / "installed.pth").write_text("".join(f"{path}\n" for path in dict.fromkeys(known)))
    copy = (folder / "bin/python3").resolve()
    assert copy.is_relative_to(folder), "--copies has made no copy"
    ran = subprocess.run([program("setcap"), "cap_net_bind_service=+ep", str(copy)], capture_output=True)
    if ran.returncode:
        pytest.skip(f"this file system keeps no capabilities: {ran.stderr.decode()}")
    words = [str(copy), "-c", "import openqmail.core.commands.main"]
    ran = subprocess.run(words, user=OWNER, capture_output=True, cwd="/")
    if ran.returncode:
        pytest.skip(f"{OWNER} cannot run a copy of this Python: {ran.stderr.decode()[-200:]}")
    return copy


def test_an_owners_python_with_the_right_to_binds_a_low_port(place: Place, python: Path) -> None:
    port, owner = low_port(), pwd.getpwnam(OWNER)
    home = place.home("a.example", "alice", listen=[f"smtp 127.0.0.1:{port}"])
    home.port = port
    words = [str(python), "-c", "import sys; from openqmail.core.commands.main import main; sys.exit(main())"]
    with home.log.open("ab") as log:
        home.process = subprocess.Popen(
            [*words, "--home", str(home.path), "run"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            user=owner.pw_uid,
            group=owner.pw_gid,
            extra_groups=[],
            cwd="/",
        )
    home.wait_serving()
    assert {one["uid"] for one in home.status()["processes"]} == {owner.pw_uid}
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as smtp:
        smtp.sendmail("s@c.example", ["alice@a.example"], "Subject: low\r\n\r\nbelow 1024\r\n")
    [mail] = home.wait_mails("alice", 1)
    assert mail.endswith(b"below 1024\n")
    assert home.stop() == 0
