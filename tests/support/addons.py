"""Environments in which core and add-ons are installed, as an administrator would."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


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


@contextlib.contextmanager
def environment(*wheels: Path) -> Iterator[Path]:
    """`openqmail` of a fresh environment that holds these."""
    with tempfile.TemporaryDirectory(prefix="openqmail-toy-") as folder:
        os.chmod(folder, 0o755)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
        python = Path(folder) / "bin" / "python"
        install(python, *wheels)
        yield python.with_name("openqmail")
