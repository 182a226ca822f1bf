"""The page of figures, read by the parser of those who made its format."""

import pytest

pytest.importorskip("prometheus_client", reason="openqmail-core[metrics] is not installed")
from prometheus_client.parser import text_string_to_metric_families

from openqmail.core.send.tally import BOUNDS
from openqmail.core.service import figures
from openqmail.core.service.exposition import exposed
from openqmail.core.service.frames.supervision import Figures, Process


def filled(grows: bool) -> dict[str, tuple[int, ...]]:
    """1, 2, 3, … for each role."""
    return {
        role: tuple(range(1, 1 + sum(each.places for each in figures.of(role, grows=grows))))
        for role in ("send", "smtpd", "gate", "remote")
    }


PROCESSES = (
    Process("smtpd", 1, 0, 1, 100, 0),
    Process("smtpd", 2, 0, 2, 50, 0),
    Process("worker", 3, 0, 1, 7, 0),
)


def read(told: Figures) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    return {
        family.name: {
            (sample.name.removeprefix(family.name), *sorted(sample.labels.items())): sample.value
            for sample in family.samples
        }
        for family in text_string_to_metric_families(exposed(told).decode())
    }


def test_every_figure_is_there_with_every_row() -> None:
    found = read(Figures(1_700_000_000, PROCESSES, filled(True), filled(False)))
    for each in figures.FIGURES:
        samples = found[figures.PREFIX + each.name.removesuffix("_total")]
        if each.kind != "histogram":
            assert len(samples) == len(each.rows), each.name
            assert all(samples.values()), each.name
    deliveries = found["openqmail_deliveries"]
    assert deliveries["_total", ("channel", "local"), ("result", "success")] == 1
    assert deliveries["_total", ("channel", "remote"), ("result", "failure")] == 6


def test_processes_of_one_kind_stand_together() -> None:
    found = read(Figures(1_700_000_000, PROCESSES, {}, {}))
    assert found["openqmail_processes"] == {("", ("role", "smtpd")): 2, ("", ("role", "worker")): 1}
    assert found["openqmail_process_resident_bytes"]["", ("role", "smtpd")] == 150
    assert found["openqmail_start_time_seconds"] == {("",): 1_700_000_000}


def test_buckets_of_the_histogram_add_up() -> None:
    between = [1] * (len(BOUNDS) + 1)
    at = sum(each.places for each in figures.of("send", grows=True)[:-1])
    grown = (*(0,) * at, *between, 12345)
    found = read(Figures(0, (), {"send": grown}, {}))["openqmail_time_in_queue_seconds"]
    assert [found["_bucket", ("le", str(bound))] for bound in BOUNDS] == list(range(1, len(BOUNDS) + 1))
    assert found["_bucket", ("le", "+Inf")] == found["_count",] == len(between)
    assert found["_sum",] == 12345


def test_what_nobody_tells_is_left_out() -> None:
    found = read(Figures(0, (), {}, {}))
    assert not found.get("openqmail_queue_messages")
    assert found["openqmail_bounces"] == {("_total",): 0}
