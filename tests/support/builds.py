"""Where the house is, and what the fixture `build` is called with."""

from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EPOCH = "1795521600"
"""The SOURCE_DATE_EPOCH of builds that are compared."""

Build = Callable[..., Path]
"""`build(folder, "wheel" | "sdist", umask=0o022)`"""
