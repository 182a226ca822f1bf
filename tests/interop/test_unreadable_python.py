"""A Python, and all that is installed for it, which root alone can read, as one below /root is: what starts
as root and goes on as the owner of a home has whatever it ever needs."""

import importlib.util
import os
import shutil
import signal
import smtplib
import sys
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from urllib.request import urlopen

import pytest

from homes import OWNER, Home, Place, Waiting

if os.geteuid():
    pytest.skip("only root can keep a Python to itself", allow_module_level=True)

BEYOND_ASCII = "b\u00fccher.example"
METRICS = pytest.mark.skipif(
    importlib.util.find_spec("prometheus_client") is None, reason="openqmail-core[metrics] is not installed"
)
TAKEN = [
    pytest.param("metrics", "127.0.0.1:0", marks=METRICS),
    ("rcpthosts", f"a.example\n{BEYOND_ASCII}"),
    ("locals", f"a.example\n{BEYOND_ASCII}"),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """Not started; the command is that Python's."""
    python = tmp_path / "roots"
    (python / "bin").mkdir(parents=True)
    (python / "lib").symlink_to(os.path.join(sys.base_prefix, "lib"))
    (python / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    found = [importlib.util.find_spec(name) for name in ("openqmail.core", "idna", "prometheus_client")]
    folders = [Path(spec.submodule_search_locations[0]) for spec in found if spec]
    folders[0] = folders[0].parent
    for number, folder in enumerate(folders):
        (python / str(number)).symlink_to(folder.parent)
    paths = ":".join(str(python / str(number)) for number in range(len(folders)))
    command = python / "bin" / "openqmail"
    program = "import sys; from openqmail.core.commands.main import main; sys.exit(main())"
    command.write_text(
        f"#!/bin/sh\nexport PYTHONHOME={quote(str(python))} PYTHONPATH={quote(paths)}\n"
        f'exec {quote(str(python))}/bin/python -c {quote(program)} "$@"\n'
    )
    command.chmod(0o755)
    python.chmod(0o700)
    monkeypatch.setenv("OPENQMAIL", str(command))
    with Place() as place:
        yield place.home("a.example", "alice")


def reload(home: Home) -> str:
    """HUP, and what the log says of it."""
    before = home.log.stat().st_size
    home.signal(signal.SIGHUP)
    for _ in Waiting("the log tells what became of the settings"):
        said = home.log.read_bytes()[before:].decode()
        if "took the new settings" in said or "the settings stay" in said:
            return said
        assert home.process is not None and home.process.poll() is None, f"it ended:\n{home.tail()}"
    raise AssertionError


def greeted(home: Home) -> bytes:
    with smtplib.SMTP("127.0.0.1", home.port, "c.example", timeout=30) as client:
        return client.noop()[1]


@pytest.mark.parametrize(("name", "text"), TAKEN)
def test_a_reload_takes_what_needs_more_of_python(home: Home, name: str, text: str) -> None:
    home.start()
    home.control(name, text)
    assert "took the new settings" in reload(home)
    assert greeted(home)


@pytest.mark.parametrize(("name", "text"), TAKEN)
def test_a_start_takes_what_needs_more_of_python(home: Home, name: str, text: str) -> None:
    home.control(name, text)
    assert "no errors" in home.run("control", "check").stdout
    home.start()
    assert greeted(home)


def test_a_mistake_for_which_another_word_is_proposed_ends_nothing(home: Home) -> None:
    home.start()
    home.control("rules", '127.:allow,RELAYCLIENTS=""')
    assert "the settings stay as they were: control/rules" in reload(home)
    assert greeted(home)


def test_an_address_beyond_ascii_is_answered(home: Home) -> None:
    home.start()
    with smtplib.SMTP("127.0.0.1", home.port, "c.example", timeout=30) as client:
        client.ehlo()
        assert client.docmd("MAIL FROM:<> SMTPUTF8")[0] == 250
        client.send(f"RCPT TO:<a@{BEYOND_ASCII}>\r\n".encode())
        assert client.getreply()[0] == 250
        assert client.docmd("RCPT TO:<alice@a.example>")[0] == 250


COMMANDS = [
    "check",
    "control check",
    "mailbox list",
    "mailbox add bob",
    "queue list",
    "queue settle",
    "user list",
]


def test_roots_commands_need_no_more_of_python_than_they_have(home: Home) -> None:
    home.control("bindings", "*:127.0.0.1:*:")
    shutil.chown(home.path / "control/bindings", OWNER)
    for words in [*COMMANDS, "why alice@a.example"]:
        ran = home.run(*words.split(), check=False)
        assert (words, ran.returncode, ran.stderr) == (words, 0, ""), ran.stdout


@METRICS
def test_figures_are_told(home: Home) -> None:
    home.control("metrics", "127.0.0.1:0")
    home.start()
    [where] = [one["address"] for one in home.status()["listen"] if one["service"] == "metrics"]
    with urlopen(f"http://{where}/metrics", timeout=30) as answer:
        assert b"openqmail_" in answer.read()
