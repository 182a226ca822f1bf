"""pytest in pytest: files in a folder of their own, run as their author runs them."""

import subprocess
import sys

import pytest

FIXTURES = "from openqmail.core.testing.plugin import mta, mta_factory, virtual_mta_factory\n"
"""Whether or not the entry point of this checkout is installed."""


@pytest.fixture
def run_pytest(tmp_path):
    """Runs pytest on files in a folder of their own; (exit code, output)."""

    def run(*arguments, **files):
        for name, text in {"conftest": FIXTURES, **files}.items():
            (tmp_path / f"{name}.py").write_text(text)
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
        return ran.returncode, ran.stdout + ran.stderr

    return run
