"""A port below 1024 without root, as docs/running.md shows it: with a right that the Python of openqmail
is given, which its first process alone keeps.  Root only, as setcap is root's."""

import json
import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from homes import OWNER, Waiting, openqmail
from system_users import room

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root gives rights to a file"),
    pytest.mark.timeout(600),
]

ROOT = Path(__file__).resolve().parents[2]
GUIDE = 'python3 -m venv ~/openqmail-venv\nexport PATH="$HOME/openqmail-venv/bin:$PATH"\n'
"""What the guide's install has left, when it comes to this."""

BIND = 1 << 10
"""CAP_NET_BIND_SERVICE (capabilities(7))."""


def block() -> str:
    page = (ROOT / "docs/running.md").read_text()
    section = page.partition("## Ports below 1024 without root\n")[2]
    assert section, "its heading is another now"
    lines = section.partition("\n    ")[2].partition("\n\n")[0].split("\n")
    return "\n".join(line.removeprefix("    ") for line in lines)


def free_low_port() -> int:
    for port in range(1023, 600, -1):
        try:
            with socket.socket() as trial:
                trial.bind(("127.0.0.1", port))
                return port
        except OSError:
            continue
    raise AssertionError("no port is free")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with room() as made:
        yield made


@pytest.fixture(scope="module")
def shown(folder: Path) -> Path:
    """HOME of somebody who has followed the guide, has a home there, and then does what is shown."""
    if not shutil.which("setcap", path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
        pytest.skip("there is no setcap on this machine")
    openqmail("init", folder / "mail", "--me", "a.example", "--user", "alice", "--owner", OWNER)
    with (folder / "mail/control/listen").open("a") as listen:  # as docs/guide.md, and as docs/auth.md
        listen.write("submissions :4650\nsubmission :587\n")
    tools = folder / "tools"
    tools.mkdir()
    (tools / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (tools / "sudo").chmod(0o755)
    path = f"{tools}:/usr/bin:/bin:/usr/sbin:/sbin"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ran = subprocess.run(
        ["sh", "-c", GUIDE + block()],
        cwd=ROOT,
        env=environ | {"HOME": str(folder), "PATH": path},
        umask=0o022,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return folder


def test_the_right_is_given_to_the_python_of_openqmail_and_no_other(shown: Path) -> None:
    listed = subprocess.run(
        ["getcap", "-r", str(shown), os.path.realpath("/usr/bin/python3")],
        env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    having = [line.split()[0] for line in listed.stdout.splitlines() if "cap_net_bind_service=ep" in line]
    interpreter = (shown / "openqmail-venv/bin/openqmail").read_text().split("\n")[0].removeprefix("#!")
    assert having == [interpreter]
    assert Path(interpreter).resolve().is_relative_to(shown)


def test_what_is_served_beside_port_25_is_served_on(shown: Path) -> None:
    listen = (shown / "mail/control/listen").read_text().splitlines()
    assert listen == ["smtp :25", "submissions :465", "submission :587"]


def test_its_owner_serves_such_a_port_and_the_first_process_alone_keeps_the_right(shown: Path) -> None:
    port = free_low_port()
    (shown / "mail/control/listen").write_text(f"smtp 127.0.0.1:{port}\n")
    owner = pwd.getpwnam(OWNER)
    command = [str(shown / "openqmail-venv/bin/openqmail"), "--home", str(shown / "mail")]
    environ = {"PATH": "/usr/bin:/bin"}
    with (shown / "log").open("wb") as log:
        service = subprocess.Popen(
            [*command, "run"], user=owner.pw_uid, group=owner.pw_gid, extra_groups=[], env=environ, stderr=log
        )
    try:
        for _ in Waiting(f"it serves: {(shown / 'log').read_text()}"):
            if " serving " in (shown / "log").read_text():
                break
            assert service.poll() is None, (shown / "log").read_text()
        with socket.create_connection(("127.0.0.1", port), 30) as peer:
            assert peer.recv(4) == b"220 "
        ran = subprocess.run([*command, "status", "--json"], env=environ, capture_output=True, check=True)
        processes = {one["name"]: one["pid"] for one in json.loads(ran.stdout)["processes"]}
        assert len(processes) == 6 or "worker" in processes
        for name, pid in processes.items():
            status = Path(f"/proc/{pid}/status").read_text()
            have = {int(value, 16) for value in re.findall(r"^Cap(?:Prm|Eff|Inh|Amb):\s*(\w+)", status, re.M)}
            assert have == ({0, BIND} if name == "supervisor" else {0}), (name, shlex.join(command))
    finally:
        service.terminate()
        assert service.wait(60) == 0
