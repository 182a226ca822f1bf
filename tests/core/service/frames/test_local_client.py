"""Many workers behind one port: who gets what, how many there are, and what happens when one goes."""

import asyncio
import os
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.control import User
from openqmail.core.ports import Forward, LocalJob, LocalReport, Written
from openqmail.core.queue import FileBody
from openqmail.core.service.frames import local_client
from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.local import (
    Check,
    Checked,
    CheckServer,
    Deliver,
    LocalServer,
    Report,
    Sync,
    Synced,
    ToWorker,
)
from openqmail.core.service.frames.local_client import LocalClient
from openqmail.core.service.frames.spawning import Refused, Start, Started
from openqmail.core.values import BytesBody, MessageId, Outcome, Result, TemporaryFailure
from openqmail.core.world import PosixDisk
from spawned import Cut, Spawner, descriptors, left_open, until

ALIAS = (99, 98)
CRASHED = b"qmail-local crashed.\n"
ENDING = b"Sorry, this service is about to end. (#4.3.2)\n"
NOBODY = Result(Outcome.FAILURE, b"Sorry, no mailbox here by that name. (#5.1.1)\n")
OK = Result(Outcome.SUCCESS, b"did 1+0+0\n")


class Directory:
    """u1, u2 and so on have the uids 1001, 1002."""

    def find(self, local):
        if local == b"trouble":
            raise TemporaryFailure("users/cdb is missing")
        if local == b"root":
            return User(b"root", 0, 0, b"/root", b"", b"")
        if not local.startswith(b"u"):
            return None
        uid = 1000 + int(local[1:].partition(b"-")[0])
        return User(local, uid, uid, b"/home/" + local, b"", b"")


def who(local):
    user = Directory().find(local)
    return ALIAS if user is None else (user.uid, user.gid)


class Worker:
    """The real thing in a worker: writes a file of that name for each, and syncs as the test says."""

    def __init__(self, uid, gid):
        self.uid = uid
        self.jobs, self.futures, self.synced = [], [], []
        self.held = False
        self.durable = True
        self.holds_syncs = False
        self.syncs = []
        self.checked, self.checks = [], []
        self.tells = 1000

    def check(self, recipients):
        """Only addresses without a dash have a mailbox."""
        self.checked += recipients
        future = asyncio.get_running_loop().create_future()
        self.checks.append((recipients, future))
        if not self.held:
            self.tell(len(self.checks) - 1)
        return future

    def tell(self, at):
        recipients, future = self.checks[at]
        future.set_result({one: NOBODY if b"-" in one else None for one in recipients[: self.tells]})

    def deliver(self, job):
        self.jobs.append(job)
        future = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        if not self.held:
            self.answer(len(self.futures) - 1)
        return future

    def answer(self, at):
        job = self.jobs[at]
        self.futures[at].set_result(LocalReport(OK, (Written(b"%d/%s" % (self.uid, job.recipient), 5),)))

    def sync(self, written):
        self.synced.append([file.path for file in written])
        future = asyncio.get_running_loop().create_future()
        self.syncs.append((future, len(written)))
        if not self.holds_syncs:
            self.answer_syncs()
        return future

    def answer_syncs(self):
        for future, count in self.syncs:
            if not future.done():
                future.set_result((self.durable,) * count)


class Rig:
    def __init__(self, **options):
        self.workers = {}
        self.client = LocalClient(Directory(), ALIAS, options.pop("own", None), **options)
        self.spawners = []
        self.held = False
        self.holds_syncs = False

    def attach(self, say=who, slow=False):
        spawner = Spawner(self._make, say, slow)
        self.spawners.append(spawner)
        self.client.attach(spawner.connection)
        return spawner

    def _make(self, uid, gid):
        worker = Worker(uid, gid)
        worker.held, worker.holds_syncs = self.held, self.holds_syncs
        self.workers.setdefault(uid, []).append(worker)
        return worker

    def check(self, recipient):
        """Of it alone."""
        asked = self.client.check((recipient,))
        verdict = asyncio.get_running_loop().create_future()
        if asked.done():
            verdict.set_result(asked.result()[recipient])
        else:
            asked.add_done_callback(lambda done: verdict.set_result(done.result()[recipient]))
        return verdict

    def deliver(self, local=b"u1", body=b"x\n"):
        body = BytesBody(body) if isinstance(body, bytes) else body
        job = LocalJob(3, MessageId(7, b"k" * 24), 1_700_000_000, b"s@y.test", local + b"@h", 2, body, True)
        return self.client.deliver(job)

    async def delivered(self, *locals):
        """Files that these have now."""
        reports = [await self.deliver(local) for local in locals]
        assert {report.result for report in reports} == {OK}
        return [file for report in reports for file in report.written]

    def running(self):
        return sum(not server.idle for spawner in self.spawners for server in spawner.servers)

    def server(self, uid):
        (found,) = [
            server
            for spawner in self.spawners
            for server in spawner.servers
            if server.key[0] == uid and not server.idle
        ]
        return found


@pytest.fixture
def run():
    before = descriptors()

    def life(story, **options):
        async def main():
            rig = Rig(**options)
            result = await story(rig)
            await rig.client.close()
            for spawner in rig.spawners:
                await until(lambda one=spawner: one.ended)
                spawner.close()
            return result

        return asyncio.run(asyncio.wait_for(main(), 30))

    yield life
    assert not left_open(before)


@pytest.mark.parametrize(
    ("outcome", "forward"),
    [
        (Outcome.SUCCESS, Forward(b"s", (b"a\0b",), b"")),
        (Outcome.SUCCESS, Forward(b"s\n", (b"a",), b"")),
        (Outcome.SUCCESS, Forward(b"s", (b"a" * 1001,), b"")),
        (Outcome.SUCCESS, Forward(b"s", (), b"")),
        (Outcome.DEFERRAL, Forward(b"s", (b"a",), b"")),
    ],
)
def test_a_forward_that_no_worker_of_ours_makes_is_a_deferral_and_ends_the_worker(run, outcome, forward):
    async def story(rig):
        rig.held = True
        rig.attach()
        job = LocalJob(3, MessageId(7, b"k" * 24), 1, b"s", b"u1@h", 0, BytesBody(b"x\n"), False)
        answer = rig.client.deliver(job)
        await until(lambda: rig.workers and rig.workers[1001][0].jobs)
        rig.workers[1001][0].futures[0].set_result(LocalReport(Result(outcome, b"did\n"), (), forward))
        report = await answer
        assert (report.result.outcome, report.forward) == (Outcome.DEFERRAL, None)

    run(story)


def test_a_worker_that_does_not_answer_to_a_sync_is_killed_and_holds_nobody_up(run):
    async def story(rig):
        spawner = rig.attach()
        rig.holds_syncs = True
        (mine,) = await rig.delivered(b"u1")
        rig.holds_syncs = False
        (theirs,) = await rig.delivered(b"u2")
        assert await rig.client.sync((mine, theirs)) == (False, True)
        await until(lambda: len(spawner.killed) == 1)
        rig.server(1002)  # who had nothing to do with it goes on

    run(story, kept=0.4, silent=(0.2, 900.0))


def test_a_worker_that_does_not_end_its_delivery_is_killed_and_the_delivery_deferred(run):
    async def story(rig):
        spawner = rig.attach()
        rig.held = True
        stuck = rig.deliver(b"u1")
        await until(lambda: rig.workers)
        rig.held = False
        await rig.delivered(b"u2")
        report = await stuck
        assert report.result.outcome is Outcome.DEFERRAL and b"does not answer" in report.result.text
        await until(lambda: len(spawner.killed) == 1)
        await rig.delivered(b"u1")  # by a new one

    run(story, kept=0.4, silent=(900.0, 0.2))


def test_who_is_silent_is_killed_by_the_spawner_that_started_it(run):
    """Ids are each spawner's own: the newer one knows another user's worker by the same."""

    async def story(rig):
        rig.held = True
        older = rig.attach()
        stuck = rig.deliver(b"u1")
        await until(lambda: rig.workers and rig.workers[1001][0].jobs)
        newer = rig.attach()
        rig.held = False
        await rig.delivered(b"u2")
        assert (await stuck).result.outcome is Outcome.DEFERRAL
        await until(lambda: older.ended)
        assert (older.killed, newer.killed) == ([1], [])
        assert (older.asked, newer.asked) == ([b"u1"], [b"u2"])

    run(story, kept=0.4, silent=(900.0, 0.2))


# --- who gets what ----------------------------------------------------------------------


def test_a_job_and_its_report_cross_as_they_are(run):
    async def story(rig):
        rig.held = True
        rig.attach()
        body = BytesBody(b"x\n")
        job = LocalJob(3, MessageId(7, b"k" * 24), 1_700_000_000, b"s", b"u1@h", 2, body, True, synced=True)
        answer = rig.client.deliver(job)
        await until(lambda: rig.workers and rig.workers[1001][0].jobs)
        worker = rig.workers[1001][0]
        assert worker.jobs == [job]
        report = LocalReport(
            Result(Outcome.SUCCESS, b"did\xff\n", why="why"),
            (Written(b"p", 5),),
            Forward(b"s", (b"a", b"b"), b"Received: x\n"),
        )
        worker.futures[0].set_result(report)
        assert await answer == report
        assert await rig.client.sync(report.written) == (True,)

    run(story)


def test_each_user_has_a_worker_and_alias_has_what_nobody_has(run):
    async def story(rig):
        spawner = rig.attach()
        await rig.delivered(b"u1", b"u2", b"u1", b"nobody", b"else")
        assert spawner.asked == [b"u1", b"u2", b"nobody"]
        assert {uid: [len(one.jobs) for one in found] for uid, found in rig.workers.items()} == {
            1001: [2],
            1002: [1],
            99: [2],
        }

    run(story)


def test_in_a_home_of_its_owner_there_is_one_worker(run):
    async def story(rig):
        spawner = rig.attach(lambda local: (5, 6))
        await rig.delivered(b"u1", b"trouble", b"root", b"nobody")
        assert spawner.asked == [b"u1"]

    run(story, own=(5, 6))


def test_trouble_with_users_cdb_defers_and_root_gets_no_mail(run):
    async def story(rig):
        spawner = rig.attach()
        report = await rig.deliver(b"trouble")
        assert report == LocalReport(Result(Outcome.DEFERRAL, b"Trouble reading users/cdb. (#4.3.0)\n"))
        report = await rig.deliver(b"root")
        assert report.result.outcome is Outcome.DEFERRAL
        assert report.result.text == b"Not allowed to perform deliveries as root.\n"
        assert spawner.asked == []

    run(story)


def test_jobs_come_in_order_however_late_the_worker(run):
    async def story(rig):
        answers = [rig.deliver(body=b"0\n"), rig.deliver(body=b"1\n")]
        spawner = rig.attach(slow=True)
        await until(lambda: spawner.pending)
        answers.append(rig.deliver(body=b"2\n"))
        spawner.answer(spawner.pending.pop())
        await asyncio.gather(*answers)
        assert [job.body.data for job in rig.workers[1001][0].jobs] == [b"0\n", b"1\n", b"2\n"]
        assert spawner.asked == [b"u1"]

    run(story)


def test_a_refusal_is_the_report_of_all_that_waited_and_the_next_asks_again(run):
    async def story(rig):
        spawner = rig.attach(lambda local: b"Unable to fork. (#4.3.0)\n")
        reports = await asyncio.gather(rig.deliver(), rig.deliver())
        assert {each.result for each in reports} == {Result(Outcome.DEFERRAL, b"Unable to fork. (#4.3.0)\n")}
        spawner.who = who
        await rig.delivered(b"u1")
        assert spawner.asked == [b"u1", b"u1"]

    run(story)


def test_a_worker_of_another_user_than_ours_gets_nothing(run):
    async def story(rig):
        rig.attach(lambda local: (1002, 1002))
        report = await rig.deliver()
        assert report.result.outcome is Outcome.DEFERRAL
        assert not rig.workers[1002][0].jobs
        await until(lambda: not rig.running())

    run(story)


def test_a_body_that_is_gone_is_deferred_and_the_worker_goes_on(run):
    async def story(rig):
        rig.attach()
        report = await rig.deliver(body=FileBody(PosixDisk(), b"/nowhere/7", 0, 200_000))
        assert report.result == Result(Outcome.DEFERRAL, b"Unable to read message. (#4.3.0)\n")
        await rig.delivered(b"u1")

    run(story)


# --- how many ---------------------------------------------------------------------------


def test_the_one_that_was_idle_longest_goes_when_another_is_wanted(run):
    async def story(rig):
        rig.attach()
        for local in (b"u1", b"u2", b"u3", b"u1"):
            assert await rig.client.sync(await rig.delivered(local)) == (True,)
        await rig.delivered(b"u4")
        await until(lambda: rig.running() == 3)
        assert rig.server(1001) and rig.server(1003) and rig.server(1004)

    run(story, most=3)


def test_when_all_are_busy_what_is_asked_waits_in_order(run):
    async def story(rig):
        rig.held = True
        spawner = rig.attach()
        first = [rig.deliver(b"u1"), rig.deliver(b"u2")]
        later = [rig.deliver(local) for local in (b"u4", b"u3", b"u4", b"u5")]
        await until(lambda: len(rig.workers) == 2 and all(one.jobs for (one,) in rig.workers.values()))
        assert spawner.asked == [b"u1", b"u2"]
        rig.held = False
        rig.workers[1002][0].answer(0)
        await asyncio.gather(*later)
        assert spawner.asked == [b"u1", b"u2", b"u4", b"u3", b"u5"]
        assert not first[0].done() and first[1].done()
        rig.workers[1001][0].answer(0)
        await first[0]

    run(story, most=2)


def test_a_busy_one_with_endless_mail_does_not_starve_who_waits(run):
    async def story(rig):
        rig.attach()
        done = []

        def again(_):
            if not done:
                rig.deliver(b"u1").add_done_callback(again)

        rig.deliver(b"u1").add_done_callback(again)
        await rig.deliver(b"u2")
        done.append(True)

    run(story, most=1)


def test_a_thousand_users_share_a_few_workers_and_every_file_is_synced_where_it_was_written(run):
    async def story(rig):
        rig.attach()
        most = 0
        answers = [rig.deliver(b"u%d" % number) for number in range(1000)]
        for answer in answers:
            await answer
            most = max(most, rig.running())
        written = [file for answer in answers for file in answer.result().written]
        assert await rig.client.sync(written) == (True,) * 1000
        assert most <= 9  # one that was told to go may not have gone
        for uid, found in rig.workers.items():
            for worker in found:
                assert worker.synced == [[b"%d/u%d@h" % (uid, uid - 1000)]]

    run(story, most=8)


def test_an_idle_one_goes_after_a_while(run):
    async def story(rig):
        rig.attach()
        await rig.client.sync(await rig.delivered(b"u1"))
        await until(lambda: not rig.running())
        await rig.delivered(b"u1")
        assert len(rig.workers[1001]) == 2

    run(story, kept=0.02)


# --- files --------------------------------------------------------------------------------


def test_all_workers_sync_at_the_same_time(run):
    async def story(rig):
        rig.holds_syncs = True
        rig.attach()
        written = await rig.delivered(*[b"u%d" % number for number in range(32)])
        syncing = rig.client.sync(written)
        workers = [worker for found in rig.workers.values() for worker in found]
        await until(lambda: all(worker.syncs for worker in workers))  # none of them has answered yet
        assert len(workers) == 32 and not syncing.done()
        workers[5].durable = False
        for worker in workers:
            worker.answer_syncs()
        assert await syncing == tuple(number != 5 for number in range(32))

    run(story)


def test_a_file_of_a_worker_that_was_lost_is_not_known_to_be_durable(run):
    async def story(rig):
        spawner = rig.attach()
        written = await rig.delivered(b"u1", b"u2")
        spawner.kill(rig.server(1001))
        await until(lambda: (1001, 1001) not in rig.client._workers)
        await rig.delivered(b"u1")  # the new worker of that user knows nothing of it
        assert await rig.client.sync([*written, Written(b"never heard of", 1)]) == (False, True, False)

    run(story)


def test_a_worker_that_is_lost_while_it_syncs_proves_nothing(run):
    async def story(rig):
        rig.holds_syncs = True
        spawner = rig.attach()
        written = await rig.delivered(b"u1", b"u2")
        syncing = rig.client.sync(written)
        await until(lambda: all(found[0].syncs for found in rig.workers.values()))
        spawner.kill(rig.server(1001))
        rig.workers[1002][0].answer_syncs()
        assert await syncing == (False, True)

    run(story)


def test_a_worker_that_makes_room_syncs_before_and_its_word_holds(run):
    async def story(rig):
        rig.attach()
        good = await rig.delivered(b"u1")
        await rig.delivered(b"u2")
        assert rig.workers[1001][0].synced == [[b"1001/u1@h"]]
        rig.workers[1002][0].durable = False
        await rig.delivered(b"u3")
        await until(lambda: rig.running() == 1)
        bad = [Written(b"1002/u2@h", 5)]
        assert await rig.client.sync([*bad, *good]) == (False, True)
        assert rig.workers[1001][0].synced == [[b"1001/u1@h"]]

    run(story, most=1)


def test_one_file_that_was_reported_twice_is_synced_for_both(run):
    async def story(rig):
        rig.attach()
        (once,) = await rig.delivered(b"u1")
        (twice,) = await rig.delivered(b"u1")
        assert once == twice
        assert await rig.client.sync([once]) == (True,)
        await rig.delivered(b"u2")  # whoever had nothing to sync any more would go for this one
        assert await rig.client.sync([twice]) == (True,)
        assert await rig.client.sync([once]) == (False,)

    run(story, most=1)


def test_many_files_are_asked_for_in_frames_that_hold_them(run):
    async def story(rig):
        rig.attach()
        written = []
        for _ in range(70):
            reports = await asyncio.gather(*[rig.deliver(b"u1") for _ in range(100)])
            written += [file for report in reports for file in report.written]
        assert await rig.client.sync(written) == (True,) * 7000
        assert [len(each) for each in rig.workers[1001][0].synced] == [3000, 3000, 1000]

    run(story)


# --- what goes away -----------------------------------------------------------------------


def test_a_lost_worker_defers_what_it_had_and_the_next_job_starts_another(run):
    async def story(rig):
        rig.held = True
        spawner = rig.attach()
        answers = [rig.deliver(), rig.deliver(), rig.deliver(b"u2")]
        await until(lambda: len(rig.workers) == 2 and len(rig.workers[1001][0].jobs) == 2)
        spawner.kill(rig.server(1001))
        for answer in answers[:2]:
            assert (await answer).result == Result(Outcome.DEFERRAL, CRASHED)
        assert not answers[2].done()
        rig.held = False
        await rig.delivered(b"u1")
        assert len(rig.workers[1001]) == 2

    run(story)


def test_a_lost_worker_makes_room_for_who_waits(run):
    async def story(rig):
        rig.held = True
        spawner = rig.attach()
        rig.deliver(b"u1")
        waiting = rig.deliver(b"u2")
        await until(lambda: rig.workers)
        rig.held = False
        spawner.kill(rig.server(1001))
        assert (await waiting).result == OK

    run(story, most=1)


def test_a_lost_spawner_defers_what_was_asked_of_it_and_what_comes_then_waits(run):
    async def story(rig):
        spawner = rig.attach(slow=True)
        asked = rig.deliver(b"u1")
        await until(lambda: spawner.pending)
        spawner.channel.close()
        spawner.ended = True
        assert (await asked).result == Result(Outcome.DEFERRAL, CRASHED)
        waiting = rig.deliver(b"u1")
        again = rig.attach()
        assert (await waiting).result == OK
        assert again.asked == [b"u1"]

    run(story)


def test_workers_outlive_the_connection_to_a_spawner(run):
    async def story(rig):
        spawner = rig.attach()
        await rig.delivered(b"u1")
        spawner.channel.close()
        spawner.ended = True
        await rig.delivered(b"u1")
        assert len(rig.workers[1001]) == 1

    run(story)


def test_a_newer_spawner_has_what_is_new_and_the_old_one_is_left_when_its_workers_are_done(run):
    async def story(rig):
        rig.held = True
        old = rig.attach()
        under_way = rig.deliver(b"u1")
        await until(lambda: rig.workers and rig.workers[1001][0].jobs)
        rig.held = False
        new = rig.attach()
        written = await rig.delivered(b"u1", b"u2")
        assert (old.asked, new.asked) == ([b"u1"], [b"u1", b"u2"])
        assert not old.ended, "whose workers would be ended with it"
        rig.workers[1001][0].answer(0)
        files = (await under_way).written
        await until(lambda: old.ended)
        assert rig.workers[1001][0].synced == [[b"1001/u1@h"]]
        assert await rig.client.sync([*written, *files]) == (True,) * 3

    run(story)


def test_a_worker_that_an_old_spawner_still_starts_ends_what_waits_for_it(run):
    async def story(rig):
        old = rig.attach(slow=True)
        waiting = rig.deliver(b"u1")
        await until(lambda: old.pending)
        new = rig.attach()
        old.answer(old.pending.pop())
        assert (await waiting).result == OK
        await until(lambda: old.ended)
        await rig.delivered(b"u1")
        assert new.asked == [b"u1"]

    run(story)


def test_closing_defers_whatever_is_not_done(run):
    async def story(rig):
        rig.held = True
        spawner = rig.attach()
        answers = [rig.deliver(b"u1"), rig.deliver(b"u2")]
        await until(lambda: len(rig.workers) == 1 and rig.workers[1001][0].jobs)
        spawner.slow = True
        await rig.client.close()
        answers.append(rig.deliver(b"u1"))
        assert {(await answer).result for answer in answers} == {Result(Outcome.DEFERRAL, ENDING)}
        ours, theirs = socket.socketpair()
        rig.client.attach(ours)
        assert theirs.recv(1) == b""
        theirs.close()

    run(story, most=1)


@settings(max_examples=150)
@given(st.integers(1, 700), st.integers(1, 400))
def test_wherever_a_worker_is_cut_off_each_job_has_an_end_and_only_what_was_synced_is_durable(out, back):
    async def main():
        (ours, left), (right, theirs) = socket.socketpair(), socket.socketpair()
        cut = Cut(left, right, out, back)
        worker = Worker(5, 6)
        server = LocalServer(worker)
        server.serve(theirs)
        here, there = socket.socketpair()

        def started(message, _):
            if ours.fileno() >= 0:
                spawner.send(Started(message.id, 5, 6), (ours.detach(),))

        spawner = Channel(there, Start, started, lambda _: None)
        client = LocalClient(Directory(), ALIAS, (5, 6))
        client.attach(here)
        jobs = [
            LocalJob(at, MessageId(at, b"k"), 17, b"s", b"u%d@h" % at, 0, BytesBody(b"x\n"), False)
            for at in range(5)
        ]
        reports = [await answer for answer in [client.deliver(job) for job in jobs[:3]]]
        spawner.abort()  # no other worker comes
        written = [file for report in reports for file in report.written]
        flags = await client.sync(written)
        synced = {path for each in worker.synced for path in each}
        for at, report in enumerate(reports):
            assert report.result.text == CRASHED or report.written == (Written(b"5/u%d@h" % at, 5),)
        assert all(file.path in synced for file, flag in zip(written, flags, strict=True) if flag)
        await client.close()
        cut.end()
        await until(lambda: server.idle)

    before = descriptors()
    asyncio.run(asyncio.wait_for(main(), 30))
    assert not left_open(before)


# --- checks -------------------------------------------------------------------------------


def test_a_check_is_asked_of_the_user_of_the_address_and_answered(run):
    async def story(rig):
        spawner = rig.attach()
        found = await asyncio.gather(*[rig.check(one) for one in (b"u1@h", b"u2-x@h", b"who@h", b"u1")])
        assert found == [None, NOBODY, None, None]
        assert {uid: worker.checked for uid, (worker,) in rig.workers.items()} == {
            1001: [b"u1@h", b"u1"],
            1002: [b"u2-x@h"],
            ALIAS[0]: [b"who@h"],
        }
        assert len(spawner.asked) == 3

    run(story)


def test_what_a_delivery_would_be_told_before_it_has_a_worker_is_told_of_a_check(run):
    async def story(rig):
        spawner = rig.attach()
        for local in (b"trouble", b"root"):
            assert await rig.check(local + b"@h") == (await rig.deliver(local)).result
        assert not spawner.asked

    run(story)


@pytest.mark.parametrize("lost", ["worker", "spawner", "refused", "closed early", "closed"])
def test_a_check_that_is_lost_says_that_nobody_can_tell(run, lost):
    early = lost in ("spawner", "refused", "closed early")

    async def story(rig):
        rig.held = True
        spawner = rig.attach(slow=early)
        verdict = rig.check(b"u1@h")
        await until(lambda: spawner.pending if early else rig.workers and rig.workers[1001][0].checked)
        if lost == "worker":
            spawner.kill(rig.server(1001))
        elif lost == "spawner":
            spawner.channel.abort()
            spawner.ended = True
        elif lost == "refused":
            spawner.who = lambda local: b"Too many deliveries run already. (#4.3.0)\n"
            spawner.answer(spawner.pending[0])
        else:
            await rig.client.close()
        assert await verdict is None
        if lost == "closed":
            assert await rig.check(b"u1@h") is None

    run(story)


def test_a_worker_that_does_not_answer_is_asked_no_more_when_enough_wait_for_it(run, monkeypatch):
    monkeypatch.setattr(local_client, "CHECKS", 3)

    async def story(rig):
        rig.held = True
        rig.attach()
        waiting = [rig.check(b"u1-%d@h" % at) for at in range(5)]
        assert [verdict.done() for verdict in waiting] == [False] * 3 + [True] * 2
        assert {verdict.result() for verdict in waiting[3:]} == {None}
        await until(lambda: rig.workers and len(rig.workers[1001][0].checked) == 3)
        assert rig.check(b"u1-6@h").done()
        rig.held = False
        assert await rig.check(b"u2-x@h") == NOBODY, "another user's are told"
        for at in range(3):
            rig.workers[1001][0].tell(at)
        assert [await verdict for verdict in waiting[:3]] == [NOBODY] * 3

    run(story)


@pytest.mark.parametrize("early", [True, False])
def test_a_worker_that_was_waited_for_in_vain_is_not_waited_for_again_before_it_answers(
    run, monkeypatch, early
):
    """Its user may have stopped it: each recipient would cost a client ten seconds."""

    async def story(rig):
        rig.held = True
        spawner = rig.attach(slow=early)
        first = rig.check(b"u1-1@h")
        await until(lambda: spawner.pending if early else rig.workers and rig.workers[1001][0].checked)
        second = rig.check(b"u1-2@h")
        monkeypatch.setattr(local_client, "CHECKING", -1.0)  # for longer than that, whenever it is
        assert await rig.check(b"u1-3@h") is None, "nobody can tell"
        assert not first.done() and not second.done()
        if early:
            spawner.answer(spawner.pending[0])
        await until(lambda: rig.workers and len(rig.workers[1001][0].checks) == 2)
        worker = rig.workers[1001][0]
        worker.held = False
        worker.tell(0)
        worker.tell(1)
        assert [await first, await second] == [NOBODY, NOBODY]
        assert await rig.check(b"u1-4@h") == NOBODY, "it answers again"

    run(story)


def test_checks_keep_to_their_number_of_workers_and_to_what_may_wait_for_one(run, monkeypatch):
    monkeypatch.setattr(local_client, "CHECKERS", 4)

    async def story(rig):
        rig.held = True
        spawner = rig.attach()
        waiting = [rig.check(b"u%d-x@h" % at) for at in range(1, 9)]
        await until(lambda: len(rig.workers) == 2 and all(one[0].checked for one in rig.workers.values()))
        assert [verdict.done() for verdict in waiting] == [False] * 6 + [True] * 2
        assert len(spawner.asked) == 2
        rig.held = False
        for uid in (1001, 1002):
            rig.workers[uid][0].tell(0)
        assert [await verdict for verdict in waiting] == [NOBODY] * 6 + [None] * 2
        assert rig.running() <= 2

    run(story, most=2)


def test_those_whose_worker_is_asked_come_along_and_the_others_are_not_told_of(run):
    async def story(rig):
        spawner = rig.attach()
        asked = (b"u1@h", b"u1-x@h", b"u2-x@h", b"trouble@h", b"u1-y@h", b"who@h")
        assert await rig.client.check(asked) == {b"u1@h": None, b"u1-x@h": NOBODY, b"u1-y@h": NOBODY}
        assert rig.workers[1001][0].checked == [b"u1@h", b"u1-x@h", b"u1-y@h"]
        assert spawner.asked == [b"u1"]

    run(story)


@pytest.mark.parametrize("nobody", [b"root", b"trouble"])
def test_those_who_get_no_worker_either_are_told_of_along_with_the_first(run, nobody):
    async def story(rig):
        rig.attach()
        asked = (nobody + b"@h", b"u1@h", nobody + b"@g", b"u2-x@h", nobody)
        told = await rig.client.check(asked)
        assert list(told) == [asked[0], asked[2], asked[4]]
        assert set(told.values()) == {(await rig.deliver(nobody)).result}

    run(story)


def test_of_those_that_come_along_only_what_the_worker_tells_is_known(run):
    async def story(rig):
        rig.held = True
        rig.attach()
        verdict = rig.client.check((b"u1@h", b"u1-x@h", b"u1-y@h"))
        await until(lambda: rig.workers and rig.workers[1001][0].checks)
        worker = rig.workers[1001][0]
        worker.tells = 2
        worker.tell(0)
        assert await verdict == {b"u1@h": None, b"u1-x@h": NOBODY}

    run(story)


@pytest.mark.parametrize("early", [False, True])
def test_of_those_that_came_along_with_a_lost_check_nothing_is_told(run, early):
    async def story(rig):
        rig.held = True
        spawner = rig.attach(slow=early)
        verdict = rig.client.check((b"u1@h", b"u1-x@h"))
        await until(lambda: spawner.pending if early else rig.workers and rig.workers[1001][0].checked)
        await rig.client.close()
        assert await verdict == {b"u1@h": None}

    run(story)


def test_so_many_come_along_that_nobody_waits_long_behind_them(run, monkeypatch):
    monkeypatch.setattr(local_client, "ALONG", 3)

    async def story(rig):
        rig.held = True
        rig.attach()
        asked = [tuple(b"u1-%d-%d@h" % (at, each) for each in range(3)) for at in range(4)]
        waiting = [rig.client.check(some) for some in asked]
        await until(lambda: rig.workers and len(rig.workers[1001][0].checks) == 4)
        worker = rig.workers[1001][0]
        for at in range(4):
            worker.tell(at)
        assert [len(await verdict) for verdict in waiting] == [3, 2, 1, 1]
        worker.held = False
        assert len(await rig.client.check(asked[0])) == 3, "they have left"

    run(story)


@pytest.mark.parametrize(
    "message",
    [Deliver(1, 1, MessageId(1, b"k"), 1, b"", b"u@h", 0, False, False, 2, b"", b"x\n"), Sync(1, ())],
)
def test_a_worker_that_was_made_for_checks_cuts_off_who_wants_it_to_deliver(run, message):
    async def story(rig):
        worker, heard, lost = Worker(5, 6), [], []
        server = CheckServer(worker)
        ours, theirs = socket.socketpair()
        server.serve(theirs)
        client = Channel(ours, Checked, lambda message, _: heard.append(message), lost.append)
        client.send(Check(1, b"u-x@h"))
        await until(lambda: heard)
        assert heard == [Checked(1, "D", NOBODY.text)]
        client.send(message)
        await until(lambda: lost)
        assert not worker.jobs and not worker.synced
        server.close()
        client.abort()

    run(story)


# --- who does not keep to the form ----------------------------------------------------------


class Liar:
    """A spawner whose only worker is the test."""

    def __init__(self, client):
        ours, theirs = socket.socketpair()
        self.heard, self.lost = [], []
        self.spawner = Channel(theirs, Start, self._asked, self.lost.append)
        client.attach(ours)

    def _asked(self, message, _):
        ours, theirs = socket.socketpair()
        self.worker = Channel(ours, ToWorker, lambda message, _: self.heard.append(message), self.lost.append)
        self.spawner.send(Started(message.id, 1001, 1001), (theirs.detach(),))


@pytest.mark.parametrize(
    "wrong",
    [
        Checked(99, "K", b""),
        Report(99, "K", b"", (), None),
        Synced(99, (True,)),
        Synced(1, ()),
        Start(1, b"x"),
        Refused(1, b""),
    ],
)
def test_a_worker_that_answers_what_was_not_asked_is_cut_off_and_its_jobs_deferred(run, wrong):
    async def story(rig):
        liar = Liar(rig.client)
        answer = rig.deliver()
        await until(lambda: liar.heard)
        liar.worker.send(wrong)
        assert (await answer).result == Result(Outcome.DEFERRAL, CRASHED)
        await until(lambda: liar.lost)

    run(story)


def test_a_worker_that_tells_of_more_mailboxes_than_were_asked_for_is_cut_off(run):
    async def story(rig):
        liar = Liar(rig.client)
        verdict = rig.client.check((b"u1@h", b"u1-x@h"))
        await until(lambda: liar.heard)
        assert liar.heard == [Check(1, b"u1@h", (b"u1-x@h",))]
        liar.worker.send(Checked(1, "K", b"", (("K", b""), ("K", b""))))
        await until(lambda: liar.lost)
        assert await verdict == {b"u1@h": None}

    run(story)


def test_too_few_words_on_files_make_none_of_them_durable(run):
    async def story(rig):
        liar = Liar(rig.client)
        answer = rig.deliver()
        await until(lambda: liar.heard)
        liar.worker.send(Report(liar.heard[0].id, "K", b"", ((b"p", 1), (b"q", 1)), None))
        written = (await answer).written
        syncing = rig.client.sync(written)
        await until(lambda: len(liar.heard) == 2)
        liar.worker.send(Synced(liar.heard[1].id, (True,)))
        assert await syncing == (False, False)

    run(story)


def pair_end():
    ours, theirs = socket.socketpair()
    ours.close()
    return theirs.detach()


@pytest.mark.parametrize(
    "answer, opened",
    [
        (lambda id: Started(id, 1001, 1001), []),
        (lambda id: Started(id, 1001, 1001), [lambda: os.open("/dev/null", os.O_RDONLY)]),
        (lambda id: Started(id, 1001, 1001), [pair_end, pair_end]),
        (lambda id: Started(id + 5, 1001, 1001), [pair_end]),
        (lambda id: Refused(id, b"no\n"), [pair_end]),
        (lambda id: Refused(id + 5, b"no\n"), []),
    ],
)
def test_a_spawner_that_answers_nonsense_is_left_and_what_was_asked_deferred(run, answer, opened):
    async def story(rig):
        ours, theirs = socket.socketpair()
        lost = []

        def asked(message, _):
            spawner.send(answer(message.id), tuple(one() for one in opened))

        spawner = Channel(theirs, Start, asked, lost.append)
        rig.client.attach(ours)
        assert (await rig.deliver()).result == Result(Outcome.DEFERRAL, CRASHED)
        await until(lambda: lost)

    run(story)


@pytest.mark.parametrize("body, count", [(None, 0), (b"x", 1)])
def test_a_client_whose_frames_do_not_bring_a_body_is_cut_off(run, body, count):
    async def story(rig):
        spawner = rig.attach()
        await rig.delivered(b"u1")
        server, lost = spawner.servers[0], []
        ours, theirs = socket.socketpair()
        server.serve(theirs)
        liar = Channel(ours, Report | Synced, lambda *_: None, lost.append)
        message = Deliver(1, 1, MessageId(1, b""), 1, b"", b"", 0, False, False, 1, b"", body)
        liar.send(message, tuple(os.open("/dev/null", os.O_RDONLY) for _ in range(count)))
        await until(lambda: lost)
        await rig.delivered(b"u1")

    run(story)
