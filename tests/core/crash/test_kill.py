"""Short runs of tests/crash: what was answered with 250 outlives kills at any moment."""

import pytest

from homes import Place
from scripts import script

MESSAGES = {"serving": 400, "recovering": 200, "moving": 300, "stopping": 300, "parts": 300}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("phase", MESSAGES)
def test_nothing_accepted_is_lost_by_kills(place: Place, phase: str) -> None:
    messages = MESSAGES[phase]
    found = script("crash/crash.py").crash(place, messages, kills=6, clients=8, seed=7, phase=phase)
    assert found.failed == []
    assert found.accepted == messages
    assert found.kills >= 6
    assert found.lost == []
    assert found.damaged == []
    assert found.repeats_here == 0
