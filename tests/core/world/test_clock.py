"""Time, real and simulated."""

from openqmail.core.world import SimulatedClock, SystemClock


def test_simulated_time_passes_only_when_told() -> None:
    clock = SimulatedClock(1000.0)
    assert (clock.now(), clock.monotonic()) == (1000.0, 0.0)
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (1002.5, 2.5)


def test_the_system_clock_tells_seconds_since_the_epoch() -> None:
    assert SystemClock().now() > 1_700_000_000
