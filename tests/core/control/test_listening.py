"""control/listen: two lines that the system cannot serve side by side are told, and by their lines."""

import socket
from pathlib import Path

import pytest

from openqmail.core.control import Home
from openqmail.core.control.listening import listeners
from openqmail.core.control.reader import check
from openqmail.core.control.text import ControlText
from openqmail.core.service.sockets import bind


def parsed(*lines: str) -> ControlText:
    text = ControlText("control/listen", "\n".join(lines).encode())
    listeners(text)
    return text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("smtp :2525", "smtp 127.0.0.1:2525"),
        ("smtp [::1]:2525", "submission :2525"),
        ("smtp 0.0.0.0:2525", "smtp 127.0.0.1:2525"),
        ("smtp [::]:2525", "smtp :2525"),
        ("smtp 127.0.0.1:2525", "smtps 127.0.0.1:2525"),
    ],
)
def test_two_lines_for_one_port_of_an_address_are_an_error(one: str, other: str) -> None:
    (problem,) = parsed("# ours", one, other).problems
    assert problem.line == 3
    assert problem.why == "port 2525 is taken there by line 2; change a port, or remove one of them"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("smtp 0.0.0.0:2525", "smtp [::]:2525"),
        ("smtp 127.0.0.1:2525", "smtp 127.0.0.2:2525"),
        ("smtp 127.0.0.1:2525", "smtp [::1]:2525"),
        ("smtp :0", "smtp 127.0.0.1:0"),
        ("smtp :2525", "smtp :2526"),
    ],
)
def test_lines_that_stand_beside_each_other_are_taken(one: str, other: str) -> None:
    assert parsed(one, other).problems == []


def test_the_same_line_twice_is_told_as_that() -> None:
    (problem,) = parsed("smtp :25", "smtp :25 proxy=192.0.2.1").problems
    assert (problem.line, problem.why) == (2, "says the same as line 1; remove one of them")


@pytest.mark.parametrize("hosts", [("", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("0.0.0.0", "127.0.0.2")])
def test_what_is_refused_here_the_system_would_refuse(hosts: tuple[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = ControlText("control/listen", "\n".join(f"smtp {one}:{port}" for one in hosts).encode())
    listeners(text)
    wanted = listeners(ControlText("control/listen", f"smtp {hosts[0]}:{port}".encode()))
    bound = bind(wanted, {})
    try:
        with pytest.raises(OSError), socket.create_server((hosts[1], port)):
            pass
        assert text.problems
    finally:
        for some in bound.values():
            for one in some:
                one.close()


def test_figures_at_a_port_of_a_listener_are_an_error(tmp_path: Path) -> None:
    for name in ("control", "users"):
        (tmp_path / name).mkdir()
    for name, line in {"me": "a.example", "listen": "smtp :9099", "metrics": "127.0.0.1:9099"}.items():
        (tmp_path / "control" / name).write_text(line + "\n")
    told = [str(one) for one in check(Home(str(tmp_path))).errors]
    assert "control/metrics: port 9099 is taken there by smtp of control/listen; change a port" in told
