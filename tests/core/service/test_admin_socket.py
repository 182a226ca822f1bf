"""What the socket `run/admin` answers to requests that no command of ours would make."""

import json
import socket
from typing import Any

import pytest

from homes import Home


def ask(home: Home, request: bytes) -> list[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(30)
        peer.connect(str(home.path / "run/admin"))
        peer.sendall(request)
        with peer.makefile("rb") as answer:
            return [json.loads(line) for line in answer]


def verb(name: str, **more: Any) -> bytes:
    return json.dumps({"v": 1, "ask": name, **more}).encode() + b"\n"


@pytest.mark.parametrize(
    "request_line",
    [
        b"\n",
        b"nonsense\n",
        b'{"v":1}\n',
        verb("frobnicate"),
        verb("hold", numbers="17"),
        verb("delete", numbers=[1.5]),
        verb("delete", numbers=[10**30]),
        verb("retry", numbers=[*range(1001)]),
        verb("delete", numbers=[1, 2], keys=["00" * 24]),
        verb("delete", numbers=[1], keys=["no key"]),
    ],
)
def test_what_is_no_request_is_refused_and_the_next_is_served(home: Home, request_line: bytes) -> None:
    home.start()
    [answer] = ask(home, request_line)
    assert answer["ok"] is False and answer["error"]
    assert ask(home, verb("list")) == [{"ok": True}]


def test_a_line_beyond_all_bounds_is_not_read(home: Home) -> None:
    home.start()
    assert ask(home, verb("hold", numbers=[1], reason="x" * 140_000)) == []
    assert ask(home, verb("list")) == [{"ok": True}]


def test_a_thousand_numbers_are_answered_each(home: Home) -> None:
    home.start()
    numbers = [*range(10**15, 10**15 + 1000)]
    for name in ("hold", "release", "retry", "delete", "bounce"):
        [answer] = ask(home, verb(name, numbers=numbers, keys=["0f" * 24] * 1000))
        assert (answer["ok"], answer["done"], answer["later"]) == (True, [], [])
        assert [one["number"] for one in answer["missed"]] == numbers
        assert {one["why"] for one in answer["missed"]} == {"is not in the queue"}
    assert ask(home, verb("list", numbers=numbers)) == [{"ok": True}]


def test_settling_is_refused_while_it_serves(home: Home) -> None:
    home.start()
    [answer] = ask(home, verb("settle"))
    assert answer["ok"] is False and "TERM" in answer["error"]


def test_nothing_is_known_of_a_destination_that_nobody_writes_to(home: Home) -> None:
    home.start()
    for domain in ("b.example", "", "\\xff", "b" * 1000):
        assert ask(home, verb("destination", domain=domain)) == [{"ok": True, "destination": None}]
