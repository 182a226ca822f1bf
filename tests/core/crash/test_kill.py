"""A short run of tests/crash: what was answered with 250 outlives kills at any moment."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from homes import Place


def load() -> ModuleType:
    file = Path(__file__).resolve().parents[2] / "crash" / "crash.py"
    spec = importlib.util.spec_from_file_location("crash_run", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(300)
def test_nothing_accepted_is_lost_by_kills(place: Place) -> None:
    found = load().crash(place, messages=400, kills=6, clients=8, seed=7)
    assert found.accepted == 400
    assert found.kills == 6
    assert found.lost == []
    assert found.damaged == []
