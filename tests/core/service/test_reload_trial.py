"""Settings that can be read, but of which no front end can be made."""

import os
import signal
import smtplib
from pathlib import Path

import pytest

from homes import Home, Waiting, free_port

ADDON = """
import sys
from pathlib import Path

from openqmail.core.smtpd.service import SmtpService

def make(context):
    if Path(__file__).with_name("broken").exists():
        raise RuntimeError("no such luck")
    return SmtpService(context)
"""


@pytest.fixture
def addon(home: Home, monkeypatch) -> Path:
    """A service `moody`, which can be made when there is no file `broken` in this folder."""
    folder = home.path / "addon"
    (folder / "moody-1.dist-info").mkdir(parents=True)
    (folder / "moody-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: moody\nVersion: 1\n")
    (folder / "moody-1.dist-info/entry_points.txt").write_text("[openqmail.services]\nmoody = moody:make\n")
    (folder / "moody.py").write_text(ADDON)
    (folder / "broken").touch()
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{os.environ.get('PYTHONPATH', '')}")
    return folder


def pids(home: Home) -> dict[str, int]:
    return {one["name"]: one["pid"] for one in home.status()["processes"]}


def greeting(port: int) -> str:
    with smtplib.SMTP(timeout=30) as smtp:
        return smtp.connect("127.0.0.1", port)[1].decode()


def wait_log(home: Home, text: str, count: int = 1) -> None:
    for _ in Waiting(f"the log of {home.me} says {text!r}"):
        if home.tail(100_000).count(text) >= count:
            return


def test_a_service_that_cannot_be_made_leaves_all_as_it_was_until_it_can(home: Home, addon: Path) -> None:
    home.start()
    before = pids(home)
    old = (home.path / "control/listen").read_text()
    port = free_port()
    home.control("listen", f"{old.rstrip()}\nmoody 127.0.0.1:{port}")
    home.control("smtpgreeting", "a.example is new")
    for count in (1, 2):
        home.signal(signal.SIGHUP)
        wait_log(home, "the settings stay as they were: smtpd ended at its start", count)
    assert "no such luck" in home.tail(100_000)
    assert pids(home) == before
    assert "is new" not in greeting(home.port)
    with pytest.raises(ConnectionRefusedError):
        greeting(port)
    (addon / "broken").unlink()
    home.signal(signal.SIGHUP)
    wait_log(home, "took the new settings")
    assert greeting(home.port).startswith("a.example is new")
    assert greeting(port).startswith("a.example is new")
    assert home.stop() == 0
