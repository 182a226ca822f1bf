"""Runs of some length are scripts (tests/crash, tests/power); their short forms load them from here."""

import importlib.util
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).resolve().parents[1]


def script(name: str) -> ModuleType:
    """`script("crash/crash.py")`: the script as a module."""
    file = TESTS / name
    spec = importlib.util.spec_from_file_location(f"script_{file.stem}", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
