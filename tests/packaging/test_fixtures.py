"""Somebody's project whose tests use the fixtures of an installed core, and nothing else of this house."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builds import ROOT, Build

SHOP = Path(__file__).with_name("shop")


def run(*command: object, cwd: Path | None = None) -> str:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def project(build: Build, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The project's folder, and the Python of a fresh environment with all that it needs."""
    folder = tmp_path_factory.mktemp("shop")
    copy = folder / "shop"
    shutil.copytree(SHOP, copy, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    core, shop = build(ROOT / "packages" / "openqmail-core", "wheel"), build(SHOP, "wheel")
    uv = shutil.which("uv")
    install = [uv, "pip", "install", "-q", "-p", python] if uv else [python, "-m", "pip", "install", "-q"]
    run(*install, core, f"{shop}[test]")
    return copy, python


def test_its_tests_find_the_fixtures_by_themselves(project: tuple[Path, Path]) -> None:
    copy, python = project
    assert "5 passed" in run(python, "-m", "pytest", "-q", cwd=copy)


def test_its_tests_run_in_several_processes_at_once(project: tuple[Path, Path]) -> None:
    copy, python = project
    assert "5 passed" in run(python, "-m", "pytest", "-q", "-n", "3", cwd=copy)
