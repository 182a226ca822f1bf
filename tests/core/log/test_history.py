"""The record of what happened to messages: kept, bounded, found again, and never in the way of mail."""

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.log import (
    Alert,
    DeliveryEnded,
    DeliveryStarted,
    Event,
    MemoryLog,
    MessageEnded,
    MessageInfo,
    NewMessage,
    Notice,
    Status,
)
from openqmail.core.log.history import History, happened, recorder
from openqmail.core.log.history.files import DAY, Files, listing
from openqmail.core.log.history.lines import LINES, encode
from openqmail.core.values import Outcome
from openqmail.core.world import SimulatedClock

NOON = 1_700_049_600.0  # 2023-11-15


def life(number: int, text: bytes = b"did 1+0+0\n") -> list[Event]:
    return [
        NewMessage(number),
        MessageInfo(number, 255, b"alice@a.example", 838, 8001),
        DeliveryStarted(1, number, "local", b"bob@a.example"),
        Status(1, 10, 0, 20),
        DeliveryEnded(1, Outcome.SUCCESS, text, number),
        MessageEnded(number),
    ]


def kept(
    folder: Path, work: Callable[[History], Coroutine[Any, Any, None]], days: int = 14, now: float = NOON
) -> MemoryLog:
    log = MemoryLog()

    async def play() -> None:
        history = History(log, str(folder), SimulatedClock(now), days)
        await work(history)
        await history.close()

    asyncio.run(play())
    return log


def telling(*events: Event) -> Callable[[History], Coroutine[Any, Any, None]]:
    async def work(history: History) -> None:
        for event in events:
            history(event)

    return work


def names(folder: Path) -> list[str]:
    return [os.path.basename(path) for _, _, path in listing(str(folder))]


def test_a_message_is_found_with_all_that_was_said_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "history"
    log = kept(folder, telling(*life(7), *life(77), Notice("message 8 held", 8), Notice("serving")))
    assert log.events == [*life(7), *life(77), Notice("message 8 held", 8), Notice("serving")]
    assert happened(str(folder), 7) == [
        [
            {
                "msg": 7,
                "time": NOON,
                "event": "accepted",
                "bytes": 255,
                "sender": "alice@a.example",
                "uid": 8001,
                "pid": 838,
            },
            {
                "msg": 7,
                "time": NOON,
                "event": "starting",
                "delivery": 1,
                "channel": "local",
                "recipient": "bob@a.example",
            },
            {
                "msg": 7,
                "time": NOON,
                "event": "delivery",
                "delivery": 1,
                "outcome": "success",
                "text": "did 1+0+0\n",
            },
            {"msg": 7, "time": NOON, "event": "end"},
        ]
    ]
    assert happened(str(folder), 8)[0][0]["text"] == "message 8 held"
    assert happened(str(folder), 9) == []


def test_it_is_for_nobody_else(tmp_path: Path) -> None:
    os.umask(0o000)
    try:
        kept(tmp_path / "history", telling(*life(7)))
    finally:
        os.umask(0o022)
    assert (tmp_path / "history").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "history/2023-11-15.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_link_in_the_place_of_a_day_leads_nowhere(tmp_path: Path) -> None:
    """Else who may write to the folder has the queue's process write where that may."""
    folder, elsewhere = tmp_path / "history", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.write_text("theirs\n")
    (folder / "2023-11-15.jsonl").symlink_to(elsewhere)
    files = Files(str(folder))
    with pytest.raises(OSError, match="symbolic link"):
        files.append(b"{}\n", NOON, 14)
    assert elsewhere.read_text() == "theirs\n"


def test_a_child_knows_its_parent_and_the_parent_its_child(tmp_path: Path) -> None:
    async def work(history: History) -> None:
        history(life(7)[1])
        history.made(7, 9, "bounce")
        history(life(9)[1])
        history(life(9)[5])
        history(life(9)[1])

    kept(tmp_path, work)
    assert happened(str(tmp_path), 7)[0][-1] == {
        "msg": 7,
        "time": NOON,
        "event": "made",
        "made": "bounce",
        "child": 9,
    }
    first, second = happened(str(tmp_path), 9, all_lives=True)
    assert (first[0]["made"], first[0]["parent"]) == ("bounce", 7)
    assert "parent" not in second[0]


def test_a_number_that_came_again_shows_its_latest_life(tmp_path: Path) -> None:
    kept(tmp_path, telling(*life(7, b"first\n")), now=NOON - DAY)
    kept(tmp_path, telling(*life(7, b"second\n"), *life(7, b"third\n")))
    assert [[each.get("text") for each in one][2] for one in happened(str(tmp_path), 7)] == ["third\n"]
    lives = happened(str(tmp_path), 7, all_lives=True)
    assert [one[2]["text"] for one in lives] == ["first\n", "second\n", "third\n"]


def test_a_life_goes_on_over_midnight_and_may_have_no_begin(tmp_path: Path) -> None:
    kept(tmp_path, telling(*life(7)[:3]), now=NOON - DAY)
    kept(tmp_path, telling(*life(7)[4:]))
    [one] = happened(str(tmp_path), 7)
    assert [each["event"] for each in one] == ["accepted", "starting", "delivery", "end"]
    (tmp_path / "2023-11-14.jsonl").unlink()
    [one] = happened(str(tmp_path), 7)
    assert [each["event"] for each in one] == ["delivery", "end"]


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_nothing_that_a_stranger_says_looks_like_a_line_or_moves_a_terminal(one: bytes, two: bytes) -> None:
    events = [
        MessageInfo(7, 1, one + b'\n{"msg":8,"time":1,"event":"end"}\n' + two, 1, 1),
        DeliveryEnded(1, Outcome.FAILURE, two + b'\n{"msg":8,' + one, 7),
        Alert(one.decode("utf-8", "surrogateescape"), 7),
    ]
    data = encode([LINES[type(event)](event, NOON) for event in events])
    assert data.decode().replace("\n", "").isprintable()
    assert len(data.splitlines()) == len(events)
    assert b'{"msg":8,' not in data
    assert [json.loads(line)["msg"] for line in data.splitlines()] == [7, 7, 7]


def test_days_that_are_over_go(tmp_path: Path) -> None:
    for days in range(20, 0, -1):
        kept(tmp_path, telling(*life(days)), now=NOON - days * DAY)
    (tmp_path / "notes.txt").write_text("not ours")
    kept(tmp_path, telling(*life(7)), days=3)
    assert names(tmp_path) == ["2023-11-13.jsonl", "2023-11-14.jsonl", "2023-11-15.jsonl"]
    assert (tmp_path / "notes.txt").exists()


def test_with_no_days_nothing_is_kept_and_what_was_goes(tmp_path: Path) -> None:
    kept(tmp_path, telling(*life(7)))
    log = MemoryLog()

    async def play() -> None:
        history = History(log, str(tmp_path), SimulatedClock(NOON), 14)
        history(life(8)[1])
        history.reconfigure(0)
        for event in life(9):
            history(event)
        history.made(9, 10, "bounce")
        while names(tmp_path):
            await asyncio.sleep(0.01)
        await history.close()
        history.reconfigure(14)
        for event in life(11):
            history(event)
        await history.close()

    asyncio.run(play())
    assert [bool(happened(str(tmp_path), number)) for number in (7, 8, 9, 10, 11)] == [False] * 4 + [True]
    assert log.events == [life(8)[1], *life(9), *life(11)]


def test_all_files_together_stay_below_their_most(tmp_path: Path) -> None:
    files = Files(str(tmp_path), most=10_000, part=1000)
    for number in range(300):
        files.append(b'{"msg":%d,"time":1,"event":"end"}\n' % number * 10, NOON, 14)
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 10_000
    files.close()
    assert len(names(tmp_path)) > 5
    parts = [part for _, part, _ in listing(str(tmp_path))]
    assert parts == list(range(parts[0], parts[-1] + 1)) and parts[0] > 1
    assert happened(str(tmp_path), 299) and not happened(str(tmp_path), 0)


def test_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    kept(tmp_path, telling(*life(7)))
    with (tmp_path / "2023-11-15.jsonl").open("ab") as file:
        file.write(b'{"msg":7,"time":17000')
    kept(tmp_path, telling(*life(8), *life(7)[4:]))
    assert len(happened(str(tmp_path), 8)[0]) == 4
    assert [one["event"] for one in happened(str(tmp_path), 7)[0][-2:]] == ["delivery", "end"]


def test_where_nothing_can_be_written_mail_goes_on_and_one_alert_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "history"
    folder.write_text("in the way")
    log = MemoryLog()

    async def play() -> None:
        for _ in range(3):
            await batch(life(7))
        folder.unlink()
        await batch(life(8))
        folder.rename(tmp_path / "gone")
        history._files.close()
        folder.write_text("in the way again")
        await batch(life(9))

    async def batch(events: list[Event]) -> None:
        for event in events:
            history(event)
        while history._kept or history._running is not None:
            if history._running is None:
                history._write(history._put)
            await asyncio.wait((history._running,))

    async def whole() -> None:
        nonlocal history
        history = History(log, str(folder), SimulatedClock(NOON), 14)
        await play()

    history: Any = None
    asyncio.run(whole())
    alerts = [event.text for event in log.events if isinstance(event, Alert)]
    assert len(alerts) == 2
    assert all(str(folder) in text and "gap" in text for text in alerts)
    assert [event for event in log.events if not isinstance(event, Alert)] == [
        *life(7) * 3,
        *life(8),
        *life(9),
    ]
    assert happened(str(tmp_path / "gone"), 8)


def test_the_last_tenth_of_the_disk_is_the_queues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nearly:
        f_blocks, f_bavail = 1000, 99

    monkeypatch.setattr(os, "fstatvfs", lambda descriptor: Nearly)
    log = kept(tmp_path, telling(*life(7)))
    assert [isinstance(event, Alert) for event in log.events] == [False] * 6 + [True]
    assert happened(str(tmp_path), 7) == []


def test_a_disk_that_hangs_holds_up_nothing_and_takes_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "WAITING", 50 * recorder.EVENT)
    monkeypatch.setattr(recorder, "PAUSE", 0.0)
    hangs, log = threading.Event(), MemoryLog()

    async def play() -> None:
        history: Any = History(log, str(tmp_path), SimulatedClock(NOON), 14)
        append = history._files.append
        history._files.append = lambda *one: (hangs.wait(30), append(*one))
        history(life(7)[1])
        while history._running is None:
            await asyncio.sleep(0)
        for number in range(100, 200):
            history(life(number)[1])
        assert len(history._kept) == 50
        hangs.set()
        await history.close()

    asyncio.run(play())
    assert len(log.events) == 102
    assert "50 events" in log.events[-1].text
    assert happened(str(tmp_path), 149) and not happened(str(tmp_path), 150)


def test_long_texts_that_wait_for_a_disk_take_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "WAITING", 100_000)
    log, flood = MemoryLog(), [DeliveryEnded(n, Outcome.FAILURE, b"\xff" * 10_000, 7) for n in range(500)]

    async def play() -> None:
        history: Any = History(log, str(tmp_path), SimulatedClock(NOON), 14)
        for event in flood:
            history(event)
        assert sum(len(event.text) for _, event in history._kept) <= 100_000
        await history.close()

    asyncio.run(play())
    assert log.events[:500] == flood  # the log has all of them
    [alert] = log.events[500:]
    assert isinstance(alert, Alert) and "events were left out" in alert.text
    assert 50 < len(happened(str(tmp_path), 7)[0]) < 100


@pytest.mark.parametrize("text", [b"x", b"\xff", b"\x01", "\u202e".encode(), b'"', "\U000e0001".encode()])
def test_of_a_long_text_the_beginning_is_kept(tmp_path: Path, text: bytes) -> None:
    kept(tmp_path, telling(*life(7, b"550 " + text * 9000), Alert("y" * 9000, 7)))
    assert (tmp_path / "2023-11-15.jsonl").stat().st_size < 3500
    [[_, _, ended, _, alert]] = happened(str(tmp_path), 7)
    assert ended["text"].startswith("550 ") and ended["text"].endswith("...")
    assert len(alert["text"]) == 1003


def test_a_text_of_the_length_that_is_kept_is_whole(tmp_path: Path) -> None:
    kept(tmp_path, telling(*life(7, b"x" * 1000)))
    assert happened(str(tmp_path), 7)[0][2]["text"] == "x" * 1000


@pytest.mark.parametrize("name", ["2023-11-14.jsonl", "2023-11-16.jsonl"])
@pytest.mark.parametrize("kind", ["fifo", "link", "link to a file", "folder", "socket"])
def test_what_is_no_file_is_passed_over_and_nobody_waits_for_it(tmp_path: Path, name: str, kind: str) -> None:
    kept(tmp_path, telling(*life(7)))
    odd = tmp_path / name
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "fifo":
            os.mkfifo(odd)
        elif kind == "link":
            odd.symlink_to("/dev/zero")
        elif kind == "link to a file":
            odd.symlink_to(tmp_path / "2023-11-15.jsonl")
        elif kind == "folder":
            odd.mkdir()
        else:
            listener.bind(str(odd))
        told: list[str] = []
        [found] = happened(str(tmp_path), 7, all_lives=True, tell=told.append)
    assert [one["event"] for one in found] == ["accepted", "starting", "delivery", "end"]
    assert told == [f"{odd}: is no file"]


@pytest.mark.parametrize(
    "more",
    [
        '"time":1e300,"event":"end"',
        '"time":-1,"event":"end"',
        '"time":1.0,"event":"starting","delivery":[1]',
        '"time":1.0,"event":"accepted","bytes":"x"',
        '"time":1.0,"event":"accepted","bytes":1' + "0" * 400,
        '"time":1.0,"event":["accepted"]',
        '"event":"end"',
        '"time":1.0,"event":"end","text":' + "[" * 5000 + "]" * 5000,
    ],
)
def test_a_line_that_is_none_of_ours_is_passed_over(tmp_path: Path, more: str) -> None:
    kept(tmp_path, telling(*life(7)))
    with (tmp_path / "2023-11-15.jsonl").open("a") as file:
        file.write('{"msg":7,' + more + "}\n")
    told: list[str] = []
    [found] = happened(str(tmp_path), 7, tell=told.append)
    assert [one["event"] for one in found] == ["accepted", "starting", "delivery", "end"]
    assert told == [f"{tmp_path}/2023-11-15.jsonl: has a line about message 7 that is none of ours"]


def test_a_line_without_an_end_is_not_read_to_the_end(tmp_path: Path) -> None:
    kept(tmp_path, telling(*life(7)))
    with (tmp_path / "2023-11-15.jsonl").open("a") as file:
        file.write('{"msg":7,"time":1.0,"event":"end","text":"' + "x" * 1_000_000 + '"}\n')
    [found] = happened(str(tmp_path), 7)
    assert [one["event"] for one in found] == ["accepted", "starting", "delivery", "end"]
