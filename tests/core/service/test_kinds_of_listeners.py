"""What listens says what it is: a service may have any name, also one that stands for something else."""

import socket
from typing import Any

import pytest

from openqmail.core.control import Listener, syntax
from openqmail.core.service.listeners import SUBMIT
from openqmail.core.service.processes.process import Inherited
from openqmail.core.service.sockets import bind
from openqmail.core.service.supervisor.legacy import BoundLeft
from openqmail.core.values import ControlError

SERVICE, FIGURES = syntax.listener("metrics 127.0.0.1:0 proxy=192.0.2.0/24"), syntax.metrics("127.0.0.1:0")


def inherited(bound: dict[Listener, list[socket.socket]]) -> Inherited:
    nothing: Any = None
    return Inherited(nothing, nothing, nothing, 1, bound, None, None, False)


def test_a_service_named_metrics_is_served_and_is_not_where_figures_are_told() -> None:
    bound = bind([SERVICE, FIGURES], {})
    try:
        assert inherited(bound).services() == {SERVICE: bound[SERVICE]}
        assert inherited(bound).metrics() == bound[FIGURES]
        assert bound[SERVICE] != bound[FIGURES]
        assert bind([FIGURES], bound) == {FIGURES: bound[FIGURES]}, "each is known again"
    finally:
        for one in bound[SERVICE] + bound[FIGURES]:
            one.close()


def test_no_line_is_taken_for_local_submission() -> None:
    assert syntax.listener("submit :0").place != SUBMIT.place


@pytest.mark.parametrize("listener", [SERVICE, FIGURES, SUBMIT])
def test_the_next_program_knows_what_it_is(listener: Listener) -> None:
    assert BoundLeft.of(listener, [], given=False).listener == listener.place


@pytest.mark.parametrize(
    ("listener", "file"), [("metrics 127.0.0.1:%d", "control/listen"), ("127.0.0.1:%d", "control/metrics")]
)
def test_what_cannot_be_bound_names_the_file_with_its_line(listener: str, file: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        text = listener % taken.getsockname()[1]
        wanted = syntax.listener(text) if file == "control/listen" else syntax.metrics(text)
        with pytest.raises(ControlError) as told:
            bind([wanted], {})
    assert str(told.value).startswith(f"{file}: cannot listen on `{text}`")
