"""Distributions built as their authors build them: alone, from a copy, out of reach of the checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builds import EPOCH, ROOT, Build


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
