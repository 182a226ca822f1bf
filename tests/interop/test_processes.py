"""Short runs of tests/processes: nothing accepted is lost when a process dies or is replaced, nobody is
turned away while they are replaced, and none outlives the stop."""

import pytest

from scripts import script

lives = script("processes/lives.py")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("phase", "times"), [("kills", 3), ("supervisor", 2), ("reloads", 12), ("upgrades", 3)]
)
def test_nothing_accepted_is_lost_when_processes_end(phase: str, times: int) -> None:
    found = lives.live(phase, times, seed=5)
    assert lives.faults(found, again=30.0) == []  # how soon is for the long run to say, on a machine at rest
    assert found.accepted > 0
    assert found.events == times * (len(lives.ROLES) if phase == "kills" else 1)
    assert found.repeats_here <= found.events
