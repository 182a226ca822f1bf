"""The channel of processes without a loop: whatever the other side does, it costs no more than its due."""

import os
import socket
import threading
from array import array
from collections.abc import Iterator

import pytest

from openqmail.core.service.frames import blocking
from openqmail.core.service.frames import supervision as said
from openqmail.core.service.frames.blocking import BlockingChannel
from openqmail.core.service.frames.codec import DESCRIPTORS, PREFACE, Encoder, FrameError
from spawned import descriptors as open_descriptors


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The channel's end and the other side's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def frame(message, count: int = 0) -> bytes:
    return Encoder().frame(message, count)


def send_rights(connection: socket.socket, data: bytes, count: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [null] * count))
    connection.sendmsg([data], [rights])
    os.close(null)


def test_descriptors_that_belong_to_no_frame_end_the_connection(ends) -> None:
    ours, theirs = ends
    channel = BlockingChannel(ours, said.ToChild)
    theirs.send(PREFACE)
    assert channel.receive() == []
    before = open_descriptors()
    with pytest.raises(FrameError, match="belong to no frame"):
        for _ in range(DESCRIPTORS + 1):
            send_rights(theirs, frame(said.Flush()), 1)
            assert channel.receive() == [(said.Flush(), [])]
    assert open_descriptors() <= before + DESCRIPTORS + 1
    channel.close()
    assert open_descriptors() == before - 1


def test_more_descriptors_than_a_frame_may_have_end_the_connection(ends) -> None:
    ours, theirs = ends
    channel = BlockingChannel(ours, said.ToChild)
    before = open_descriptors()
    send_rights(theirs, PREFACE, 200)
    with pytest.raises(FrameError, match="more descriptors"):
        channel.receive()
    channel.close()
    assert open_descriptors() == before - 1


def test_where_none_may_come_none_is_taken(ends) -> None:
    ours, theirs = ends
    channel = BlockingChannel(ours, said.from_child("send"), descriptors=False)
    theirs.send(PREFACE)
    before = open_descriptors()
    for _ in range(50):
        send_rights(theirs, frame(said.Work(1)), 60)
        while not (found := channel.receive()):
            pass
        assert found == [(said.Work(1), [])]
    assert open_descriptors() == before
    theirs.send(frame(said.Work(1), 1))
    with pytest.raises(FrameError, match="missing"):
        channel.receive()


def test_descriptors_of_frames_before_one_that_is_not_understood_are_closed(ends) -> None:
    ours, theirs = ends
    channel = BlockingChannel(ours, said.ToChild)
    before = open_descriptors()
    send_rights(theirs, PREFACE + frame(said.Peer("port"), 1) + b"\xff" * 9, 1)
    with pytest.raises(FrameError, match="too large"):
        channel.receive()
    assert open_descriptors() == before


def test_who_does_not_read_is_told_no_more_but_what_it_has_said_is_heard(ends, monkeypatch) -> None:
    monkeypatch.setattr(blocking, "PATIENCE", 0.05)
    ours, theirs = ends
    channel = BlockingChannel(ours, said.from_child("send"))
    theirs.send(PREFACE + frame(said.Work(7)))
    while channel.send(said.Leave(1.0)):
        pass
    assert channel.stalled
    while theirs.recv(1 << 20):  # to the end: it is there although we have not closed
        pass
    assert not channel.send(said.Leave(1.0))
    assert channel.receive() == [(said.Work(7), [])]
    assert channel.receive() is None


def test_who_has_closed_is_told_no_more_but_did_not_stall(ends) -> None:
    ours, theirs = ends
    channel = BlockingChannel(ours, said.from_child("send"))
    theirs.send(PREFACE + frame(said.Work(7)))
    theirs.close()
    assert not channel.send(said.Leave(1.0))
    assert not channel.stalled
    assert channel.receive() == [(said.Work(7), [])]


def test_who_reads_in_sips_is_not_waited_for_longer(ends, monkeypatch) -> None:
    monkeypatch.setattr(blocking, "PATIENCE", 0.2)
    ours, theirs = ends
    channel = BlockingChannel(ours, said.from_child("send"))
    whole = said.State("serving", 1, 1, (("smtp", "x" * (8 << 20)),), ())
    ended = threading.Event()

    def sip() -> None:
        while not ended.wait(0.01):
            theirs.recv(2000)

    reader = threading.Thread(target=sip)
    reader.start()
    assert not channel.send(whole)
    ended.set()
    reader.join()
