"""The port Submission over a socket: what it promises by a direct call, through frames; answers, lost and
renewed connections, back-pressure."""

import asyncio
import os
import socket

import msgspec
import pytest

from openqmail.core.ports import LARGE
from openqmail.core.service.frames.codec import LARGEST, PREFACE, Encoder
from openqmail.core.service.frames.submission import SubmissionClient, SubmissionServer, server
from openqmail.core.service.frames.submission.messages import Accepted, Begin, Chunk, Finish, Submit
from openqmail.core.values import (
    Envelope,
    MessageId,
    PermanentFailure,
    QueueFull,
    Recipient,
    TemporaryFailure,
)
from spawned import load, others_tests

ENVELOPE = Envelope(b"s@x.example", (Recipient(b"r@y.example", b"NEVER"),), smtputf8=True)


class RealQueue(load("send/test_submission_port.py").Queue):
    """For the tests of the port: it is asked through a socket."""

    async def told(self, story, queueing):
        ours, theirs = socket.socketpair()
        client, server = SubmissionClient(), SubmissionServer(queueing.sender)
        client.attach(ours)
        server.serve(theirs)
        await story(client, queueing.store)
        client.close()
        await server.leave(0)


@pytest.fixture
def queue(tmp_path):
    return RealQueue(tmp_path)


globals().update(others_tests("send/test_submission_port.py"))


class Body:
    def __init__(self, queue):
        self.queue, self.data, self.aborted = queue, b"", 0
        self.writes = []

    def write(self, chunk):
        future = asyncio.get_running_loop().create_future()
        self.data += chunk
        self.writes.append(future)
        if not self.queue.slow:
            future.set_result(None)
        self.queue.event.set()
        return future

    def abort(self):
        self.aborted += 1
        self.queue.event.set()


class Queue:
    """Keeps what it is given; answers at once unless `slow`."""

    def __init__(self):
        self.taken, self.answers, self.bodies = [], [], []
        self.slow = False
        self.event = asyncio.Event()

    def large(self):
        self.bodies.append(Body(self))
        return self.bodies[-1]

    def submit(self, envelope, body, hold=""):
        future = asyncio.get_running_loop().create_future()
        self.taken.append((envelope, body if isinstance(body, bytes) else body.data))
        self.answers.append(future)
        if not self.slow:
            future.set_result(MessageId(len(self.taken), b"k" * 24))
        self.event.set()
        return future

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                self.event.clear()
                await self.event.wait()


class Scene:
    def __init__(self):
        self.queue = Queue()
        self.client = SubmissionClient()
        self.servers = []

    def connect(self, new=True):
        """Attach the client to a new server, or once more to the last."""
        if new:
            self.servers.append(SubmissionServer(self.queue))
        ours, theirs = socket.socketpair()
        self.client.attach(ours)
        self.servers[-1].serve(theirs)
        return theirs

    async def close(self):
        self.client.close()
        for one in self.servers:
            await one.leave(0)
        await turns()


async def turns(count=6):
    for _ in range(count):
        await asyncio.sleep(0)


def story(work):
    async def told():
        scene = Scene()
        await work(scene, scene.queue, scene.client)
        await scene.close()

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(told())
    assert len(os.listdir("/proc/self/fd")) == before


async def soon(future):
    return await asyncio.wait_for(future, 10)


async def error_of(future, kind):
    with pytest.raises(kind) as found:
        await soon(future)
    assert type(found.value) is kind
    return str(found.value)


def test_what_the_queue_gets_and_says_is_the_same_as_by_a_direct_call():
    async def work(scene, queue, client):
        scene.connect()
        assert await soon(client.submit(ENVELOPE, b"small\n")) == MessageId(1, b"k" * 24)
        body = client.large()
        for piece in (b"x" * LARGE, b"", b"y" * 700_000):
            await soon(body.write(piece))
        assert await soon(client.submit(ENVELOPE, body)) == MessageId(2, b"k" * 24)
        assert queue.taken == [(ENVELOPE, b"small\n"), (ENVELOPE, b"x" * LARGE + b"y" * 700_000)]
        assert [one.aborted for one in queue.bodies] == [0]

    story(work)


@pytest.mark.parametrize("kind", [QueueFull, TemporaryFailure, PermanentFailure])
def test_errors_cross_with_their_kind_and_their_sentence(kind):
    async def work(scene, queue, client):
        scene.connect()
        queue.slow = True
        small = client.submit(ENVELOPE, b"x")
        body = client.large()
        write = body.write(b"y")
        await queue.until(lambda: queue.answers and queue.bodies and queue.bodies[0].writes)
        queue.answers[0].set_exception(kind("no: \udcff"))
        queue.bodies[0].writes[0].set_exception(kind("neither"))
        assert await error_of(small, kind) == "no: \\udcff"
        assert await error_of(write, kind) == "neither"
        assert await error_of(body.write(b"more"), kind) == "neither"
        assert await error_of(client.submit(ENVELOPE, body), kind) == "neither"
        body.abort()
        queue.slow = False
        await soon(client.submit(ENVELOPE, b"the connection goes on"))
        assert len(queue.taken) == 2

    story(work)


def test_a_fault_of_the_queue_is_a_temporary_failure_of_that_message():
    async def work(scene, queue, client):
        scene.connect()
        queue.slow = True
        answer = client.submit(ENVELOPE, b"x")
        await queue.until(lambda: queue.answers)
        queue.answers[0].set_exception(ZeroDivisionError("oops"))
        assert "oops" in await error_of(answer, TemporaryFailure)

    story(work)


def test_answers_may_come_in_any_order():
    async def work(scene, queue, client):
        scene.connect()
        queue.slow = True
        answers = [client.submit(ENVELOPE, b"%d" % number) for number in range(5)]
        await queue.until(lambda: len(queue.answers) == 5)
        for number in (3, 0, 4, 1, 2):
            queue.answers[number].set_result(MessageId(number, b"%d" % number * 24))
            assert (await soon(answers[number])).number == number

    story(work)


def test_without_a_connection_mail_waits_in_order():
    async def work(scene, queue, client):
        first = client.submit(ENVELOPE, b"1")
        body = client.large()
        write = body.write(b"2")
        last = client.submit(ENVELOPE, body)
        given_up = client.large()
        given_up.write(b"3").add_done_callback(lambda done: done.exception())
        given_up.abort()
        await turns()
        assert not (first.done() or write.done() or last.done())
        scene.connect()
        await soon(write)
        assert [(await soon(one)).number for one in (first, last)] == [1, 2]
        assert [data for _, data in queue.taken] == [b"1", b"2"]
        assert len(queue.bodies) == 1

    story(work)


def test_a_lost_connection_fails_what_was_unanswered_and_only_that():
    async def work(scene, queue, client):
        scene.connect()
        queue.slow = True
        small, body = client.submit(ENVELOPE, b"x"), client.large()
        write = body.write(b"y")
        await queue.until(lambda: queue.bodies and queue.bodies[0].writes and queue.answers)
        for talk in scene.servers[0]._talks:
            talk.channel.abort()
        assert "nobody knows" in await error_of(small, TemporaryFailure)
        await error_of(write, TemporaryFailure)
        await error_of(body.write(b"z"), TemporaryFailure)
        await error_of(client.submit(ENVELOPE, body), TemporaryFailure)
        queue.slow = False
        later = client.submit(ENVELOPE, b"later")
        await turns()
        assert not later.done()
        scene.connect()
        await soon(later)

    story(work)


def test_an_answer_that_was_given_before_the_loss_counts():
    async def work(scene, queue, client):
        ours, theirs = socket.socketpair()
        client.attach(ours)
        answer, other = client.submit(ENVELOPE, b"x"), client.submit(ENVELOPE, b"y")
        await asyncio.sleep(0)
        theirs.send(PREFACE + Encoder().frame(Accepted(1, MessageId(7, b"k" * 24))))
        theirs.close()
        assert (await soon(answer)).number == 7
        await error_of(other, TemporaryFailure)

    story(work)


def test_a_front_end_that_is_gone_takes_only_unfinished_bodies_with_it():
    async def work(scene, queue, client):
        scene.connect()
        queue.slow = True
        client.submit(ENVELOPE, b"x").add_done_callback(lambda done: done.exception())
        client.large().write(b"y").add_done_callback(lambda done: done.exception())
        await queue.until(lambda: queue.bodies and queue.answers)
        client.close()
        await queue.until(lambda: queue.bodies[0].aborted)
        assert queue.taken == [(ENVELOPE, b"x")]
        queue.answers[0].set_result(MessageId(1, b"k" * 24))

    story(work)


def test_an_abandoned_body_is_aborted_and_the_connection_goes_on():
    async def work(scene, queue, client):
        scene.connect()
        body = client.large()
        await soon(body.write(b"y"))
        queue.slow = True
        write = body.write(b"z")
        await queue.until(lambda: len(queue.bodies[0].writes) == 2)
        body.abort()
        body.abort()
        await error_of(write, TemporaryFailure)
        await queue.until(lambda: queue.bodies[0].aborted)
        queue.bodies[0].writes[1].set_result(None)  # its answer finds nobody
        queue.slow = False
        await soon(client.submit(ENVELOPE, b"x"))
        assert queue.bodies[0].aborted == 1

    story(work)


def test_after_bye_what_was_not_taken_goes_to_the_next_connection():
    async def work(scene, queue, client):
        scene.connect()
        queue.slow = True
        taken, body = client.submit(ENVELOPE, b"taken"), client.large()
        write = body.write(b"begun")
        await queue.until(lambda: queue.answers and queue.bodies)
        leaving = asyncio.create_task(scene.servers[0].leave(10))
        await turns()
        late = [client.submit(ENVELOPE, b"late %d" % number) for number in range(3)]
        late_body = client.large()
        late_write = late_body.write(b"z")
        await turns()
        assert not leaving.done()
        queue.slow = False
        queue.answers[0].set_result(MessageId(9, b"k" * 24))
        queue.bodies[0].writes[0].set_result(None)
        assert (await soon(taken)).number == 9
        await soon(write)
        await soon(client.submit(ENVELOPE, body))
        await soon(leaving)
        await error_of(late_write, TemporaryFailure)
        await turns()
        assert not any(one.done() for one in late)
        scene.connect()
        for one in late:
            await soon(one)
        assert [data for _, data in queue.taken] == [b"taken", b"begun", b"late 0", b"late 1", b"late 2"]

    story(work)


def test_a_server_that_leaves_with_something_in_the_queues_hands_does_not_say_that_it_was_not_taken():
    async def work(scene, queue, client):
        scene.connect()
        queue.slow = True
        answer = client.submit(ENVELOPE, b"x")
        await queue.until(lambda: queue.answers)
        await scene.servers[0].leave(0)
        await error_of(answer, TemporaryFailure)
        scene.connect()
        await turns()
        assert len(queue.taken) == 1, "it may have been taken: sending it again is the client's decision"

    story(work)


def test_a_newer_connection_gets_what_is_new_while_the_older_finishes():
    async def work(scene, queue, client):
        scene.connect()
        queue.slow = True
        old, body = client.submit(ENVELOPE, b"old"), client.large()
        write = body.write(b"large")
        await queue.until(lambda: queue.answers and queue.bodies)
        first, second = scene.servers[0], scene.connect() and scene.servers[1]
        new = client.submit(ENVELOPE, b"new")
        await queue.until(lambda: len(queue.answers) == 2)
        assert len(first._talks) == len(second._talks) == 1
        queue.slow = False
        queue.bodies[0].writes[0].set_result(None)
        for number, future in enumerate(list(queue.answers)):
            future.set_result(MessageId(number, b"k" * 24))
        assert [(await soon(one)).number for one in (old, new)] == [0, 1]
        await soon(write)
        assert first._talks
        await soon(client.submit(ENVELOPE, body))
        await turns()
        assert not first._talks, "nothing is owed on it any more"
        await soon(client.submit(ENVELOPE, b"newest"))

    story(work)


def test_no_more_is_read_than_the_disk_can_be_behind(monkeypatch):
    monkeypatch.setattr(server, "MOST", 1 << 20)

    async def work(scene, queue, client):
        scene.connect()
        queue.slow = True
        answers = [client.submit(ENVELOPE, bytes(100_000)) for _ in range(100)]
        await queue.until(lambda: len(queue.answers) > 10)
        await turns(50)
        assert len(queue.answers) < 20
        queue.slow = False
        for future in list(queue.answers):
            future.set_result(MessageId(0, b"k" * 24))
        for one in answers:
            await soon(one)
        assert len(queue.taken) == 100

    story(work)


def test_an_envelope_beyond_a_frame_is_refused_alone():
    async def work(scene, queue, client):
        scene.connect()
        many = Envelope(b"s", (Recipient(bytes(1000)),) * (LARGEST // 1000 + 1))
        await error_of(client.submit(many, b"x"), PermanentFailure)
        body = client.large()
        await soon(body.write(b"y"))
        await error_of(client.submit(many, body), PermanentFailure)
        await queue.until(lambda: queue.bodies[0].aborted)
        await soon(client.submit(ENVELOPE, b"x"))

    story(work)


@pytest.mark.parametrize(
    "wire",
    [
        b"EHLO x\r\n",
        PREFACE + b"\xff" * 9,
        PREFACE + Encoder().frame(Chunk(1, b"x")),
        PREFACE + Encoder().frame(Finish(1, ENVELOPE)),
        PREFACE + Encoder().frame(Begin(1)) * 2,
        PREFACE + Encoder().frame(Submit(1, ENVELOPE, b"x"), 1),
        PREFACE + Encoder().frame(Submit("1", ENVELOPE, b"x")),
        PREFACE + Encoder().frame(Submit(1, msgspec.structs.replace(ENVELOPE, sender=b"a\0b"), b"x")),
        PREFACE + Encoder().frame(Submit(1, Envelope(b"", (Recipient(b"a\nb@x"),)), b"x")),
        PREFACE + Encoder().frame(Submit(1, Envelope(b"", (Recipient(b"a" * 1001),)), b"x")),
    ],
)
def test_who_breaks_the_form_is_closed_alone_and_leaves_nothing(wire):
    async def work(scene, queue, client):
        scene.connect()
        ours, theirs = socket.socketpair()
        scene.servers[0].serve(theirs)
        ours.setblocking(False)
        ours.send(wire)
        loop = asyncio.get_running_loop()
        while await asyncio.wait_for(loop.sock_recv(ours, 4096), 10):
            pass
        ours.close()
        assert all(body.aborted for body in queue.bodies)
        assert not queue.taken
        await soon(client.submit(ENVELOPE, b"x"))

    story(work)


def test_closing_the_client_fails_what_waits():
    async def work(scene, queue, client):
        waiting = client.submit(ENVELOPE, b"x")
        client.close()
        await error_of(waiting, TemporaryFailure)
        await error_of(client.submit(ENVELOPE, b"x"), TemporaryFailure)

    story(work)
