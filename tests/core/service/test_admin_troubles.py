"""What the socket `run/admin` answers when the disk fails, and who is told of it."""

import asyncio
import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from openqmail.core.ports import Missed
from openqmail.core.service.admin import AdminSocket
from openqmail.core.values import TemporaryFailure

EIO = OSError(errno.EIO, os.strerror(errno.EIO))


class Body:
    """Of `size` bytes, of which the disk gives these pieces before it fails."""

    def __init__(self, size: int, *pieces: bytes) -> None:
        self.size, self.pieces = size, pieces

    def chunks(self) -> Iterator[bytes]:
        yield from self.pieces
        raise EIO


class Queue:
    """A queue on a disk that fails."""

    def __init__(self, content: Body | Exception) -> None:
        self._content = content

    def messages(self, numbers) -> Iterator[Missed]:
        for number in range(64):
            yield Missed(number, "is left out")
        raise EIO

    def content(self, number: int) -> Body:
        if isinstance(self._content, Exception):
            raise self._content
        return self._content


def asked(path: Path, queue: Queue, request: dict[str, object]) -> tuple[bytes, list[str]]:
    """The answer, and the alerts."""
    alerts: list[str] = []

    async def story() -> bytes:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path / "admin"))
            listening.listen()
            admin = AdminSocket(queue, None, alerts.append)
            await admin.serve(listening)
            reader, writer = await asyncio.open_unix_connection(str(path / "admin"))
            writer.write(json.dumps({"v": 1, **request}).encode() + b"\n")
            answer = await reader.read()
            writer.close()
            admin.close()
            return answer

    return asyncio.run(asyncio.wait_for(story(), 30)), alerts


@pytest.mark.parametrize(
    ("request_", "content"),
    [
        ({"ask": "list"}, EIO),
        ({"ask": "show", "number": 7}, EIO),
        ({"ask": "show", "number": 7}, TemporaryFailure("Input/output error")),
        ({"ask": "show", "number": 7}, Body(10)),
    ],
    ids=["list", "show", "show a damaged one", "show one whose file fails"],
)
def test_a_disk_that_fails_is_told_to_who_asks_and_to_the_administrator(tmp_path, request_, content) -> None:
    answer, alerts = asked(tmp_path, Queue(content), request_)
    told = json.loads(answer.splitlines()[-1])
    assert told["ok"] is False and "Input/output error" in told["error"]
    [alert] = alerts
    assert "Input/output error" in alert and request_["ask"] in alert


def test_a_message_that_the_disk_gives_by_half_is_cut_off_and_no_word_passes_for_its_rest(tmp_path) -> None:
    answer, alerts = asked(tmp_path, Queue(Body(10_000, b"x" * 100)), {"ask": "show", "number": 7})
    assert answer == b'{"ok":true,"size":10000}\n' + b"x" * 100
    [alert] = alerts
    assert "message 7" in alert and "Input/output error" in alert


def test_who_serves_the_socket_leaves_it_to_the_others_that_have_it(tmp_path) -> None:
    asked(tmp_path, Queue(EIO), {"ask": "list"})
    assert (tmp_path / "admin").is_socket()
