"""A toy add-on, built and installed beside core, comes in by each of the five doors."""

import os
import shutil
import smtplib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builds import ROOT, Build
from homes import Home, Place, Waiting, free_port

TOY = Path(__file__).with_name("toy")


def install(python: Path, *wheels: Path) -> None:
    """With what they need, by uv where it is, else pip."""
    uv = shutil.which("uv")
    command = (
        [uv, "pip", "install", "-q", "-p", str(python)] if uv else [str(python), "-m", "pip", "install", "-q"]
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        [*command, *map(str, wheels)], env=environ, capture_output=True, text=True, timeout=180, check=False
    )
    assert ran.returncode == 0, ran.stderr


@pytest.fixture(scope="module")
def installed(build: Build) -> Iterator[Path]:
    """`openqmail` of a fresh environment that holds core and the toy."""
    with tempfile.TemporaryDirectory(prefix="openqmail-toy-") as folder:
        os.chmod(folder, 0o755)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
        python = Path(folder) / "bin" / "python"
        install(python, build(ROOT / "packages" / "openqmail-core", "wheel"), build(TOY, "wheel"))
        yield python.with_name("openqmail")


@pytest.fixture
def home(installed: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of that environment."""
    monkeypatch.setenv("OPENQMAIL", str(installed))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return place.home("a.example", "alice")


def smtp(home: Home) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", home.port, "client.example", 20)
    client.ehlo()
    return client


MESSAGE = b"Subject: toy\r\n\r\nhello\r\n"


def test_its_command_runs(home: Home) -> None:
    assert home.run("toy", "--to", "you").stdout == "the toy greets you\n"
    assert "say hello" in home.run("--help").stdout


def test_its_control_file_is_known(home: Home) -> None:
    listed = home.run("control", "list").stdout
    assert "toyname" in listed and "teddy" in listed
    home.control("toyname", "bear")
    assert "bear" in home.run("control", "show", "toyname").stdout
    assert home.run("control", "check").returncode == 0
    home.control("toyname", "two words")
    wrong = home.run("control", "check", check=False)
    assert wrong.returncode == 100
    assert "toyname" in wrong.stdout + wrong.stderr


def test_its_service_listens_where_the_administrator_says(home: Home) -> None:
    port = free_port()
    home.control("listen", f"smtp 127.0.0.1:{home.port}\ntoy 127.0.0.1:{port}")
    home.start()
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        assert connection.makefile("rb").read() == b"the toy of a.example\r\n"


def test_its_transport_carries_mail_that_is_routed_to_it(home: Home) -> None:
    home.control("smtproutes", "far.example:toy![127.0.0.9]:99")
    home.start()
    with smtp(home) as client:
        client.sendmail("alice@a.example", ["bob@far.example"], MESSAGE)
    for _ in Waiting("the log shows the toy's report"):
        if "the_toy_took_it_to_127.0.0.9" in home.tail():
            break
    home.wait_empty()


def test_its_hook_refuses_once_it_is_named(home: Home) -> None:
    home.control("checkrcpt", "0")  # nobody is called so
    home.start()
    with smtp(home) as client:
        client.mail("x@client.example")
        assert client.rcpt("broken@a.example")[0] == 250
    home.stop()
    home.control("hooks", "toy")
    home.start()
    with smtp(home) as client:
        client.mail("x@client.example")
        assert client.rcpt("broken@a.example") == (550, b"5.7.1 the toy teddy is broken")
        assert client.rcpt("alice@a.example")[0] == 250


def test_installing_it_changes_nothing_in_the_flow_of_mail(home: Home) -> None:
    home.start()
    with smtp(home) as client:
        client.sendmail("x@client.example", ["alice@a.example"], MESSAGE)
    (mail,) = home.wait_mails("alice", 1)
    assert mail.endswith(b"Subject: toy\n\nhello\n")
