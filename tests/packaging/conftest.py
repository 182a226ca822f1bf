"""Distributions built as their authors build them: alone, from a copy, out of reach of the checkout."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from addons import environment
from builds import EPOCH, ROOT, Build
from homes import Home, Place


@pytest.fixture(scope="session")
def packages() -> list[Path]:
    """The folders of all distributions of the house."""
    found = sorted(path.parent for path in (ROOT / "packages").glob("*/pyproject.toml"))
    assert found
    return found


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """`build(folder, "wheel" | "sdist", umask=0o022)`: the file that was built."""
    pytest.importorskip("hatchling", reason="hatchling is needed to build; `./nox` installs it")

    def run(folder: Path, kind: str, umask: int = 0o022) -> Path:
        work = tmp_path_factory.mktemp("build")
        copy = work / folder.name
        ignored = shutil.ignore_patterns("__pycache__", "dist")
        shutil.copytree(folder, copy, ignore=ignored, copy_function=shutil.copyfile)
        environ = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
        environ.pop("PYTHONPATH", None)
        command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(work / "dist")]
        ran = subprocess.run(
            command, cwd=copy, env=environ, umask=umask, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        (made,) = (work / "dist").iterdir()
        return made

    return run


@pytest.fixture(scope="session")
def core(build: Build) -> Path:
    """Core's wheel."""
    return build(ROOT / "packages" / "openqmail-core", "wheel")


@pytest.fixture(scope="session")
def installed(build: Build, core: Path) -> Iterator[Path]:
    """`openqmail` of a fresh environment that holds core and the toy."""
    with environment(core, build(Path(__file__).with_name("toy"), "wheel")) as found:
        yield found


@pytest.fixture
def make_home(installed: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Home]:
    """Homes of that environment: `make_home("a.example", "alice")`."""
    monkeypatch.setenv("OPENQMAIL", str(installed))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return place.home


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    return make_home("a.example", "alice")
