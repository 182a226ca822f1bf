"""A folder that the owner of a home can reach, and the command called in this process."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from openqmail.core.commands.main import main

OWNER = ["--owner", "nobody"] if os.geteuid() == 0 else []


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def room() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="oq"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("queue", "list")`: exit code, standard output and error."""
    monkeypatch.delenv("OPENQMAIL_HOME", raising=False)

    def run(*words: object) -> Ran:
        capfdbinary.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capfdbinary.readouterr()
        return Ran(code, out.decode("utf-8", "backslashreplace"), err.decode())

    return run


@pytest.fixture
def owner() -> list[str]:
    return OWNER


@pytest.fixture
def made(room: Path, run: Run) -> Path:
    """A home a.example with alice and bob."""
    ran = run("init", room / "home", "--me", "a.example", "--user", "alice", "--user", "bob", *OWNER)
    assert ran.code == 0, ran.err
    return room / "home"
