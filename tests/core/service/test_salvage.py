"""`openqmail run --salvage`: a service whose queue is damaged goes on with the rest, and only once."""

import smtplib
from pathlib import Path

import pytest

from homes import Home, free_port
from openqmail.core.commands.main import main
from openqmail.core.service import run

COUNT = 6


def damage(home: Home) -> Path:
    """Early in the journal: in the first message that it holds."""
    path = sorted((home.path / "queue/journal").glob("*.seg"))[0]
    content = bytearray(path.read_bytes())
    content[content.index(b"Subject: number 0")] ^= 0x10
    path.write_bytes(content)
    return path


def test_a_service_with_a_damaged_queue_starts_when_told_and_then_as_ever(home: Home) -> None:
    home.control("smtproutes", f":127.0.0.1:{free_port()}")  # nobody is there: mail for others stays
    home.start()
    for number in range(COUNT):
        with smtplib.SMTP("127.0.0.1", home.port, timeout=30) as smtp:
            smtp.sendmail("s@c.example", ["x@far.example"], f"Subject: number {number}\r\n\r\n")
    home.kill()
    path = damage(home)
    refused = home.run("run", check=False)
    assert refused.returncode == 100
    assert str(path) in refused.stderr and "run --salvage" in refused.stderr

    home.start("--salvage")
    kept = home.queue()
    assert COUNT - 2 <= len(kept) < COUNT
    assert "damaged at byte" in home.tail()
    assert (path.parent / "damaged" / path.name).exists()
    home.kill()
    home.start()
    assert {one["id"] for one in home.queue()} == {one["id"] for one in kept}
    assert home.stop() == 0


@pytest.mark.parametrize(
    ("words", "salvage"),
    [((), False), (("--salvage",), True), (("--salvage", "--salvage"), True)],
)
def test_it_is_understood_however_it_is_said(
    home: Home, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], salvage: bool
) -> None:
    told = []
    monkeypatch.setattr(run, "run", lambda home, *, salvage: told.append((home.path, salvage)) or 0)
    assert main(["--home", str(home.path), "run", *words]) == 0
    assert told == [(str(home.path), salvage)]
