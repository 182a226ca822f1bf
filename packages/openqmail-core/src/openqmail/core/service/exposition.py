"""The figures in the words of Prometheus's text format, by prometheus-client.

The only module that imports it (`openqmail-core[metrics]`), and itself imported only by the process that
tells them.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from openqmail.core.__about__ import __version__
from openqmail.core.send.tally import BOUNDS
from openqmail.core.service.figures import FIGURES, PREFIX, SUPERVISED, Figure, Numbers, numbers_of
from openqmail.core.service.frames.supervision import Figures, Process

CONTENT_TYPE = CONTENT_TYPE_LATEST

Rows = dict[tuple[str, ...], int]
"""Values of the labels -> the number."""


class _Collected(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        told = self._figures
        known: dict[str, Rows] = {"info": {(__version__,): 1}, "start_time_seconds": {(): told.since}}
        known["processes"], known["process_resident_bytes"] = _processes(told.processes)
        for each in SUPERVISED:
            yield _gauge(each, known[each.name])
        for role in dict.fromkeys(each.role for each in FIGURES):
            numbers = numbers_of(role, told.grown.get(role, ()), told.present.get(role, ()))
            for each in FIGURES:
                if each.role == role and each.name in numbers:
                    yield _family(each, numbers[each.name])


def exposed(figures: Figures) -> bytes:
    """A whole page, UTF-8."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(figures))
    return generate_latest(registry)


def _processes(processes: Iterable[Process]) -> tuple[Rows, Rows]:
    """Number and memory by what they do, workers and generations of one kind together."""
    count: Rows = {}
    memory: Rows = {}
    for one in processes:
        count[one.name,] = count.get((one.name,), 0) + 1
        memory[one.name,] = memory.get((one.name,), 0) + one.rss
    return count, memory


def _gauge(figure: Figure, numbers: Rows) -> GaugeMetricFamily:
    family = GaugeMetricFamily(PREFIX + figure.name, figure.help, labels=figure.labels)
    for row, number in numbers.items():
        family.add_metric(row, number)
    return family


def _family(figure: Figure, numbers: Numbers) -> Metric:
    name = PREFIX + figure.name
    if figure.kind == "gauge":
        return _gauge(figure, dict(zip(figure.rows, numbers, strict=True)))
    if figure.kind == "counter":
        family = CounterMetricFamily(name, figure.help, labels=figure.labels)
        for row, number in zip(figure.rows, numbers, strict=True):
            family.add_metric(row, number)
        return family
    *between, total = numbers
    buckets, count = [], 0
    for bound, number in zip((*map(str, BOUNDS), "+Inf"), between, strict=True):
        count += number
        buckets.append((bound, count))
    return HistogramMetricFamily(name, figure.help, buckets=buckets, sum_value=total)
