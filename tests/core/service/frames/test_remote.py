"""The remote port between two processes: connections that come, go and are replaced."""

import asyncio
import os
import socket
from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.ports import RemoteJob
from openqmail.core.queue import FileBody
from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.remote import Deliver, RemoteClient, RemoteServer, Results
from openqmail.core.values import BytesBody, MessageId, Outcome, Result
from openqmail.core.world import PosixDisk
from spawned import Cut, descriptors, left_open, until

TEXT = b"Subject: t\n\n" + b"0123456789\n" * 20_000
CRASHED = b"qmail-remote crashed.\n"
ENDING = b"Sorry, this service is about to end. (#4.3.2)\n"


class Real:
    """Takes everything, and answers when the test does."""

    def __init__(self):
        self.jobs = []
        self.futures = []

    def deliver(self, job):
        self.jobs.append(job)
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]

    def answer(self, at, *texts):
        self.futures[at].set_result(tuple(Result(Outcome.SUCCESS, text) for text in texts))


class Rig:
    def __init__(self):
        self.client = RemoteClient()
        self.servers = []

    def attach(self):
        """A new server, and what it is round."""
        ours, theirs = socket.socketpair()
        real = Real()
        server = RemoteServer(real)
        server.serve(theirs)
        self.servers.append(server)
        self.client.attach(ours)
        return real

    def job(self, body=b"x\n", recipients=(b"a@x.test",), number=1, dsn=()):
        body = BytesBody(body) if isinstance(body, bytes) else body
        return RemoteJob(
            number, MessageId(7, b"k" * 24), b"s@y.test", b"x.test", recipients, body, True, *dsn
        )


@pytest.fixture
def run():
    before = descriptors()

    def life(story):
        async def main():
            rig = Rig()
            result = await story(rig)
            await rig.client.close()
            for server in rig.servers:
                server.close()
            return result

        return asyncio.run(asyncio.wait_for(main(), 30))

    yield life
    assert not left_open(before)


def texts(results):
    return [each.text for each in results]


def test_a_job_arrives_as_it_was_given(run):
    async def story(rig):
        real = rig.attach()
        wishes = ((b"SUCCESS,DELAY", b"rfc822;a@z.test"), (b"", b""))
        job = rig.job(recipients=(b"a@x.test", b"b@x.test"), dsn=(b"QQ314159", b"HDRS", wishes))
        answer = rig.client.deliver(job)
        await until(lambda: real.jobs)
        assert real.jobs == [job]
        given = (
            Result(Outcome.SUCCESS, b"no\xff\n", dsn=True),
            Result(Outcome.DEFERRAL, b"later\n", host=True, why="[2001:db8::53]:53 says SERVFAIL"),
        )
        real.futures[0].set_result(given)
        assert await answer == given

    run(story)


def test_what_is_asked_before_there_is_a_connection_waits(run):
    async def story(rig):
        answers = [rig.client.deliver(rig.job(b"%d\n" % number)) for number in range(3)]
        real = rig.attach()
        await until(lambda: len(real.jobs) == 3)
        assert [job.body.data for job in real.jobs] == [b"0\n", b"1\n", b"2\n"]
        for number in (2, 0, 1):
            real.answer(number, b"did %d\n" % number)
        assert [texts(await answer) for answer in answers] == [[b"did 0\n"], [b"did 1\n"], [b"did 2\n"]]

    run(story)


def test_a_large_body_is_read_from_its_file(run, tmp_path):
    (tmp_path / "7").write_bytes(TEXT)
    path = os.fsencode(tmp_path / "7")
    body = FileBody(PosixDisk(), path, 0, len(TEXT), blake2b(TEXT, digest_size=32).digest())

    async def story(rig):
        real = rig.attach()
        answer = rig.client.deliver(rig.job(body))
        await until(lambda: real.jobs)
        got = real.jobs[0].body
        assert (got.data, got.size, b"".join(got.chunks()) == TEXT) == (None, len(TEXT), True)
        real.answer(0, b"ok\n")
        await answer

    run(story)


def test_a_body_that_is_gone_is_deferred_and_nobody_is_asked(run):
    async def story(rig):
        real = rig.attach()
        (result,) = await rig.client.deliver(rig.job(FileBody(PosixDisk(), b"/nowhere/7", 0, 200_000)))
        assert (result.outcome, result.text) == (Outcome.DEFERRAL, b"Unable to read message. (#4.3.0)\n")
        assert not real.jobs

    run(story)


def test_a_lost_process_defers_every_recipient_that_was_under_way(run):
    async def story(rig):
        real = rig.attach()
        answers = [rig.client.deliver(rig.job(recipients=(b"a@x.test",) * count)) for count in (1, 3)]
        await until(lambda: len(real.jobs) == 2)
        rig.servers[0].close()
        for answer, count in zip(answers, (1, 3), strict=True):
            results = await answer
            assert [(each.outcome, each.text) for each in results] == [(Outcome.DEFERRAL, CRASHED)] * count
        # What comes now waits for the next one.
        later = rig.client.deliver(rig.job())
        real = rig.attach()
        await until(lambda: real.jobs)
        real.answer(0, b"ok\n")
        assert texts(await later) == [b"ok\n"]

    run(story)


def test_what_a_process_said_just_before_its_end_counts(run):
    async def story(rig):
        real = rig.attach()
        first, second = rig.client.deliver(rig.job()), rig.client.deliver(rig.job())
        await until(lambda: len(real.jobs) == 2)
        real.answer(0, b"ok\n")
        await asyncio.sleep(0)
        rig.servers[0].close()
        assert (texts(await first), texts(await second)) == ([b"ok\n"], [CRASHED])

    run(story)


def test_a_replaced_server_ends_what_it_has_and_is_then_left(run):
    async def story(rig):
        old = rig.attach()
        earlier = rig.client.deliver(rig.job())
        await until(lambda: old.jobs)
        new = rig.attach()
        later = rig.client.deliver(rig.job())
        await until(lambda: new.jobs)
        new.answer(0, b"new\n")
        assert texts(await later) == [b"new\n"]
        assert not rig.servers[0].idle
        old.answer(0, b"old\n")
        assert texts(await earlier) == [b"old\n"]
        await until(lambda: rig.servers[0].idle)
        assert len(old.jobs) == 1

    run(story)


def test_a_replaced_server_with_nothing_to_do_is_left_at_once(run):
    async def story(rig):
        rig.attach()
        told = []
        rig.servers[0].on_end = lambda: told.append(True)
        rig.attach()
        await until(lambda: told)

    run(story)


def test_the_loss_of_a_replaced_server_leaves_the_new_one_alone(run):
    async def story(rig):
        old = rig.attach()
        earlier = rig.client.deliver(rig.job())
        await until(lambda: old.jobs)
        new = rig.attach()
        rig.servers[0].close()
        assert texts(await earlier) == [CRASHED]
        later = rig.client.deliver(rig.job())
        await until(lambda: new.jobs)
        new.answer(0, b"ok\n")
        assert texts(await later) == [b"ok\n"]

    run(story)


def test_closing_defers_what_waits_and_what_is_under_way(run):
    async def story(rig):
        waiting = rig.client.deliver(rig.job())
        real = rig.attach()
        await until(lambda: real.jobs)
        await rig.client.close()
        assert texts(await waiting) == [ENDING]
        assert texts(await rig.client.deliver(rig.job())) == [ENDING]
        ours, theirs = socket.socketpair()
        rig.client.attach(ours)
        assert theirs.recv(1) == b""
        theirs.close()

    run(story)


OK = ("K", b"", False)


@pytest.mark.parametrize("wrong", [Results(99, (OK,)), Results(1, ()), Results(1, (OK, OK))])
def test_an_answer_that_fits_no_question_ends_the_connection_and_defers(run, wrong):
    async def story(rig):
        ours, theirs = socket.socketpair()
        heard, lost = [], []
        liar = Channel(theirs, Deliver, lambda message, _: heard.append(message), lost.append)
        rig.client.attach(ours)
        answer = rig.client.deliver(rig.job())
        await until(lambda: heard)
        liar.send(wrong)
        assert texts(await answer) == [CRASHED]
        await until(lambda: lost)

    run(story)


def test_a_fault_of_the_real_thing_is_a_deferral_and_the_loop_is_told(run):
    async def story(rig):
        faults = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        real = rig.attach()
        answer = rig.client.deliver(rig.job(recipients=(b"a@x.test", b"b@x.test")))
        await until(lambda: real.jobs)
        real.futures[0].set_exception(RuntimeError("a fault"))
        assert texts(await answer) == [b"The delivery broke. (#4.3.0)\n"] * 2
        assert [str(context["exception"]) for context in faults] == ["a fault"]
        real.deliver = None
        assert texts(await rig.client.deliver(rig.job())) == [b"The delivery broke. (#4.3.0)\n"]

    run(story)


def test_results_that_no_frame_can_hold_keep_their_outcomes(run):
    async def story(rig):
        real = rig.attach()
        answer = rig.client.deliver(rig.job(recipients=(b"a@x.test",) * 40))
        await until(lambda: real.jobs)
        real.futures[0].set_result((Result(Outcome.FAILURE, b"no" * 300_000),) * 40)
        results = await answer
        assert {each.outcome for each in results} == {Outcome.FAILURE}
        assert {each.text[:100] for each in results} == {b"no" * 50}

    run(story)


def test_a_client_that_is_gone_leaves_deliveries_to_end(run):
    async def story(rig):
        real = rig.attach()
        rig.client.deliver(rig.job())
        await until(lambda: real.jobs)
        await rig.client.close()
        told = []
        rig.servers[0].on_end = lambda: told.append(True)
        await until(lambda: not rig.servers[0]._channels)
        assert (rig.servers[0].active, told) == (1, [])
        real.answer(0, b"ok\n")
        await until(lambda: told)
        assert rig.servers[0].idle

    run(story)


def test_a_hundred_large_bodies_under_way_and_a_loss_leave_no_descriptor_open(run, tmp_path):
    (tmp_path / "7").write_bytes(TEXT)

    async def story(rig):
        real = rig.attach()
        body = FileBody(PosixDisk(), os.fsencode(tmp_path / "7"), 0, len(TEXT))
        answers = [rig.client.deliver(rig.job(body)) for _ in range(100)]
        await until(lambda: real.jobs)
        rig.servers[0].close()
        assert {each.text for answer in answers for each in await answer} == {CRASHED}
        for future in real.futures:
            future.set_result((Result(Outcome.SUCCESS, b""),))
        await until(lambda: not rig.servers[0].active)

    run(story)


@settings(max_examples=150)
@given(st.integers(1, 600), st.integers(1, 200))
def test_wherever_a_connection_breaks_each_delivery_has_one_true_end(bytes_out, bytes_in):
    async def main():
        (ours, left), (right, theirs) = socket.socketpair(), socket.socketpair()
        cut = Cut(left, right, bytes_out, bytes_in)
        client, real = RemoteClient(), Real()
        server = RemoteServer(real)
        server.serve(theirs)
        client.attach(ours)
        rig = Rig()
        answers = [client.deliver(rig.job(b"%d\n" % number, number=number)) for number in range(5)]

        def go_on():
            for at, future in enumerate(real.futures):
                if not future.done():
                    real.answer(at, b"did %d\n" % real.jobs[at].delivery)
            return all(answer.done() for answer in answers)

        await until(go_on)
        for number, answer in enumerate(answers):
            assert texts(answer.result()) in ([b"did %d\n" % number], [CRASHED])
        await client.close()
        cut.end()
        await until(lambda: go_on() and server.idle)

    before = descriptors()
    asyncio.run(asyncio.wait_for(main(), 30))
    assert not left_open(before)
