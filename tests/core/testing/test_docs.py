"""What docs/testing.md shows works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "testing.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
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


def test_every_example_runs(run_pytest):
    assert len(EXAMPLES) >= 6
    code, said = run_pytest(**{f"test_{number}": text for number, text in enumerate(EXAMPLES)})
    assert code == 0, said
    assert f"{sum(text.count('def test_') for text in EXAMPLES)} passed" in said
