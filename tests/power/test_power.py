"""A short run of power.py: what was answered with 250 outlives power cuts, whole."""

import pytest

import loops
from scripts import script

CUTS = {"ext4": 5, "xfs": 3}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", CUTS)
def test_nothing_accepted_is_lost_or_torn_by_power_cuts(kind: str) -> None:
    if reason := loops.why_not(kind):
        pytest.skip(reason)
    found = script("power/power.py").power(kind, CUTS[kind], seed=5)
    assert found.lost == [], found.log
    assert found.torn == [], found.log
    assert found.exits == [0, 0], found.log
    assert found.cuts >= CUTS[kind]
    assert found.accepted > 0
