"""What is made of what a sender is to be told: bounces, notices, and forwards that keep his wishes."""

import asyncio
import email
from asyncio import Future
from typing import Any

import pytest

from memory_store import MemoryStore
from openqmail.core.log import MemoryLog, MessageInfo
from openqmail.core.ports import Forward, LocalJob, LocalReport, RemoteJob
from openqmail.core.queue.store import Change, Closes, Progress, Stored
from openqmail.core.send import Sender, SendManager
from openqmail.core.values import (
    Envelope,
    MessageId,
    Outcome,
    QueueFull,
    Recipient,
    Result,
)
from openqmail.core.world import SimulatedClock

K, Z, D = Outcome.SUCCESS, Outcome.DEFERRAL, Outcome.FAILURE
SENDER = b"alice@example.test"


def to(address: bytes, notify: bytes = b"") -> Recipient:
    return Recipient(address, notify, b"rfc822;first@old.test" if notify else b"")


class Far:
    """Takes everything, or refuses it."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.jobs: list[RemoteJob] = []

    def deliver(self, job: RemoteJob) -> "Future[tuple[Result, ...]]":
        self.jobs.append(job)
        future: Future[tuple[Result, ...]] = asyncio.get_running_loop().create_future()
        future.set_result((self.result,) * len(job.recipients))
        return future


class Here:
    """Delivers, or forwards."""

    def __init__(self, forward: Forward | None = None) -> None:
        self.forward = forward

    def deliver(self, job: LocalJob) -> "Future[LocalReport]":
        future: Future[LocalReport] = asyncio.get_running_loop().create_future()
        future.set_result(LocalReport(Result(K, b"did 1+0+0\n"), (), self.forward))
        return future

    def sync(self, written: Any) -> Any:
        raise AssertionError


class Keeping(MemoryStore):
    """Keeps every message that was ever submitted; has no room for the one in the turn `refuses`."""

    def __init__(self, refuses: int = 0) -> None:
        super().__init__()
        self.came: list[tuple[Envelope, bytes, Closes | None]] = []
        self.refuses = refuses

    def submit(self, envelope: Any, body: Any, closes: Any = None) -> Any:
        self.refuses -= 1
        if self.refuses == 0:
            future: Future[Stored] = asyncio.get_running_loop().create_future()
            future.set_exception(QueueFull("no room"))
            return future
        content = body if isinstance(body, bytes) else body.content
        self.came.append((envelope, content, closes))
        return super().submit(envelope, body, closes)


BODY = b"Subject: x\n\nbody\n"
NO = Result(
    D, b"192.0.2.1 does not like recipient.\nRemote host said: 550 5.1.1 no\nGiving up on 192.0.2.1.\n"
)


def stored(envelope: Envelope, size: int = len(BODY), **facts: Any) -> Stored:
    progress = tuple(Progress() for _ in envelope.recipients)
    return Stored(MessageId(1, b"k" * 24), 1_700_000_000, size, envelope, progress, **facts)


def story(
    settings: Any,
    envelope: Envelope,
    body: bytes = BODY,
    *,
    result: Result = NO,
    forward: Forward | None = None,
    refuses: int = 0,
    **facts: Any,
) -> tuple[Keeping, Far, MemoryLog]:
    """What comes of one message; what is made of it is held where it comes in."""

    async def main() -> tuple[Keeping, Far, MemoryLog]:
        store, far, log = Keeping(refuses), Far(result), MemoryLog()
        store.put(stored(envelope, len(body), **facts), body)
        clock = SimulatedClock()
        manager = SendManager(settings, 1, 1)
        sender = Sender(manager, store, Here(forward), far, settings, clock, log)  # type: ignore[arg-type]
        sender._offspring._accept = lambda stored: None  # type: ignore[method-assign]
        sender.start()
        async with asyncio.timeout(10):
            while 1 in store.messages:
                await asyncio.sleep(0)
            await sender.drain()
        return store, far, log

    return asyncio.run(main())


def parts(message: bytes) -> list[Any]:
    return email.message_from_bytes(message).get_payload()  # type: ignore[return-value]


FAR = Envelope(SENDER, (to(b"a@far.test", b"FAILURE"),), ret=b"", envid=b"id+2B1")


def test_a_bounce_in_the_form_of_qmail_is_as_ever(make: Any) -> None:
    store, _, _ = story(make(), FAR)
    ((envelope, message, closes),) = store.came
    assert (envelope.sender, envelope.recipients) == (b"", (Recipient(SENDER),))
    assert closes == Closes(1, (), True)
    assert message.endswith(
        b"--- Below this line is a copy of the message.\n\nReturn-Path: <alice@example.test>\n" + BODY
    )


def test_a_bounce_as_dsn_tells_what_the_sender_called_the_recipient(make: Any) -> None:
    store, _, _ = story(make(bounceformat="dsn"), FAR)
    ((envelope, message, closes),) = store.came
    assert (envelope.sender, envelope.recipients, closes) == (b"", (Recipient(SENDER),), Closes(1, (), True))
    text, status, copy = parts(message)
    head, recipient = status.get_payload()
    assert head["Original-Envelope-Id"] == "id+1" and head["Reporting-MTA"] == "dns; mail.example.test"
    assert recipient["Original-Recipient"] == "rfc822; first@old.test"
    assert recipient["Final-Recipient"] == "rfc822; a@far.test"
    assert recipient["Remote-MTA"] == "dns; [192.0.2.1]" and recipient["Status"] == "5.1.1"
    assert "<a@far.test>:\n192.0.2.1 does not like recipient.\n" in text.get_payload()
    assert copy.get_payload(0).as_bytes() == BODY


@pytest.mark.parametrize(
    ("ret", "most", "kind"),
    [
        (b"", 50_000, "message/rfc822"),
        (b"FULL", 50_000, "message/rfc822"),
        (b"HDRS", 50_000, "text/rfc822-headers"),
        (b"", len(BODY), "message/rfc822"),
        (b"FULL", len(BODY) - 1, "text/rfc822-headers"),
        (b"", 0, "message/rfc822"),
        (b"HDRS", 0, "text/rfc822-headers"),
    ],
)
def test_how_much_of_the_original_is_given_back(make: Any, ret: bytes, most: int, kind: str) -> None:
    envelope = Envelope(SENDER, (Recipient(b"a@far.test"),), ret=ret)
    store, _, _ = story(make(bounceformat="dsn", bouncemaxbytes=most), envelope)
    (_, message, _) = store.came[0]
    assert parts(message)[2].get_content_type() == kind
    assert (b"\nbody\n" in message) is (kind == "message/rfc822")


def test_of_what_smtp_cannot_carry_the_header_is_given_back(make: Any) -> None:
    envelope = Envelope(SENDER, (Recipient(b"a@far.test"),))
    store, _, _ = story(make(bounceformat="dsn"), envelope, b"Subject: x\n\nbare \r and \0\n")
    assert parts(store.came[0][1])[2].get_payload() == "Subject: x\n"


@pytest.mark.parametrize("most", [50_000, 0])
def test_a_large_original(make: Any, most: int) -> None:
    body = b"Subject: large\n\n" + b"0123456789abcde\n" * 20_000
    envelope = Envelope(SENDER, (Recipient(b"a@far.test"),))
    store, _, _ = story(make(bounceformat="dsn", bouncemaxbytes=most), envelope, body)
    copy = parts(store.came[0][1])[2]
    if most:
        assert copy.get_payload() == "Subject: large\n"
    else:
        assert copy.get_payload(0).as_bytes() == body


def test_paragraphs_that_another_qmail_recorded_are_told_as_well(make: Any) -> None:
    envelope = Envelope(SENDER, (Recipient(b"a@far.test"), Recipient(b"b@far.test")))
    bounce = b"<b@far.test>:\nUser unknown. (#5.1.1)\n\n"
    progress = (Progress(), Progress(D))

    async def main() -> Keeping:
        store = Keeping()
        one = Stored(
            MessageId(1, b"k" * 24), 1_700_000_000, len(BODY), envelope, progress, (0, 0), True,
            ("remote", "remote"), bounce,
        )  # fmt: skip
        store.put(one, BODY)
        settings = make(bounceformat="dsn")
        sender = Sender(
            SendManager(settings, 1, 1),
            store,
            Here(),  # type: ignore[arg-type]
            Far(NO),  # type: ignore[arg-type]
            settings,
            SimulatedClock(),
            MemoryLog(),
        )
        sender._offspring._accept = lambda stored: None  # type: ignore[method-assign]
        sender.start()
        async with asyncio.timeout(10):
            while 1 in store.messages:
                await asyncio.sleep(0)
            await sender.drain()
        return store

    _, status, _ = parts(asyncio.run(main()).came[0][1])
    found = [(one["Final-Recipient"], one["Status"]) for one in status.get_payload()[1:]]
    assert found == [("rfc822; b@far.test", "5.1.1"), ("rfc822; a@far.test", "5.1.1")]


def test_a_double_bounce_as_dsn(make: Any) -> None:
    store, _, _ = story(make(bounceformat="dsn"), Envelope(b"", (Recipient(b"a@far.test"),)))
    ((envelope, message, _),) = store.came
    assert (envelope.sender, envelope.recipients) == (b"#@[]", (Recipient(b"postmaster@mail.example.test"),))
    assert "the bounce bounced" in parts(message)[0].get_payload()


def test_a_bounce_to_a_mailing_list_goes_to_the_address_without_the_suffix(make: Any) -> None:
    envelope = Envelope(b"list-@example.test-@[]", (Recipient(b"a@far.test"),))
    store, _, _ = story(make(bounceformat="dsn"), envelope)
    assert store.came[0][0] == msg_to(b"list-@example.test", store.came[0][0])


def msg_to(address: bytes, envelope: Envelope) -> Envelope:
    return Envelope(b"", (Recipient(address),), envelope.origin)


def test_the_next_host_gets_what_was_asked_for(make: Any) -> None:
    ok = Result(K, b"192.0.2.1 accepted message.\nRemote host said: 250 ok\n", dsn=True)
    envelope = Envelope(
        SENDER, (to(b"a@far.test", b"SUCCESS"), Recipient(b"b@far.test")), ret=b"HDRS", envid=b"id"
    )
    store, far, _ = story(make(bounceformat="dsn"), envelope, result=ok)
    (job,) = far.jobs
    assert (job.ret, job.envid) == (b"HDRS", b"id")
    assert job.dsn == ((b"SUCCESS", b"rfc822;first@old.test"), (b"", b""))
    assert store.came == []


def test_a_notice_of_success_has_the_header_alone_and_closes_the_recipient(make: Any) -> None:
    ok = Result(K, b"192.0.2.1 accepted message.\nRemote host said: 250 2.6.0 ok\n")
    envelope = Envelope(SENDER, (to(b"a@far.test", b"SUCCESS"),), ret=b"FULL")
    store, _, _ = story(make(), envelope, result=ok)  # whatever the form of bounces is
    ((told, message, closes),) = store.came
    assert (told.sender, told.recipients) == (b"", (Recipient(SENDER),))
    assert closes == Closes(1, (Change(0, K, ok.text),), False)
    _, status, copy = parts(message)
    assert status.get_payload()[1]["Action"] == "relayed" and status.get_payload()[1]["Status"] == "2.6.0"
    assert copy.get_content_type() == "text/rfc822-headers"


def test_a_notice_that_finds_no_room_is_left_out_and_the_log_says_so(make: Any) -> None:
    envelope = Envelope(SENDER, (to(b"bob@example.test", b"SUCCESS"),))
    store, _, log = story(make(), envelope, refuses=1)
    assert store.came == [] and store.results[0][:2] == (1, (Change(0, K, b"did 1+0+0\n"),))
    assert b"alert: cannot queue a notice for message 1: no room; its sender is not told" in log.lines()


def test_what_is_made_of_a_message_names_it_in_the_log(make: Any) -> None:
    async def main() -> list[MessageInfo]:
        store, log, settings = Keeping(), MemoryLog(), make()
        store.put(stored(FAR), BODY)
        manager = SendManager(settings, 1, 1)
        sender = Sender(manager, store, Here(), Far(NO), settings, SimulatedClock(), log)  # type: ignore[arg-type]
        sender.start()
        async with asyncio.timeout(10):
            while not (told := [one for one in log.events if isinstance(one, MessageInfo)]):
                await asyncio.sleep(0)
            await sender.drain()
        return told

    (told,) = asyncio.run(main())
    assert (told.sender, told.parent) == (b"", 1)


ALIAS = Envelope(SENDER, (to(b"bob@example.test", b"SUCCESS,DELAY"),), ret=b"HDRS", envid=b"id")


def test_a_forward_to_one_keeps_what_was_asked_for(make: Any) -> None:
    store, _, _ = story(make(), ALIAS, forward=Forward(SENDER, (b"b@far.test",), b"X: y\n"))
    ((envelope, message, closes),) = store.came
    assert envelope.recipients == (Recipient(b"b@far.test", b"SUCCESS,DELAY", b"rfc822;first@old.test"),)
    assert (envelope.sender, envelope.ret, envelope.envid) == (SENDER, b"HDRS", b"id")
    assert message == b"X: y\n" + BODY and closes == Closes(1, (Change(0, K, b"did 1+0+0\n"),), False)


def test_a_forward_to_several_is_told_as_an_expansion(make: Any) -> None:
    forward = Forward(SENDER, (b"b@far.test", b"c@far.test"), b"X: y\n")
    store, _, _ = story(make(), ALIAS, forward=forward)
    (envelope, _, first), (told, message, second) = store.came
    assert told.recipients == (Recipient(SENDER),)
    assert parts(message)[1].get_payload()[1]["Action"] == "expanded"
    assert first is not None and first.changes and second == Closes(1, (), False)
    assert [one.notify for one in envelope.recipients] == [b"DELAY", b"DELAY"]
    only_success = Envelope(SENDER, (to(b"bob@example.test", b"SUCCESS"),))
    store, _, _ = story(make(), only_success, forward=forward)
    assert [one.notify for one in store.came[0][0].recipients] == [b"NEVER", b"NEVER"]


def test_a_forward_with_a_sender_of_its_own_asks_for_nothing(make: Any) -> None:
    store, _, _ = story(make(), ALIAS, forward=Forward(b"owner@example.test", (b"b@far.test",), b""))
    (envelope, _, _), (_, message, _) = store.came
    assert parts(message)[1].get_payload()[1]["Action"] == "delivered"
    assert envelope.recipients == (Recipient(b"b@far.test"),) and not envelope.envid


def test_a_forward_that_finds_no_room_is_not_told_of(make: Any) -> None:
    """It is deferred, and each try would tell again."""
    forward = Forward(SENDER, (b"b@far.test", b"c@far.test"), b"X: y\n")

    async def main() -> list[Any]:
        store = Keeping(refuses=1)
        store.put(stored(ALIAS), BODY)
        settings, log = make(), MemoryLog()
        here: Any = Here(forward)
        sender = Sender(SendManager(settings, 1, 1), store, here, None, settings, SimulatedClock(), log)  # type: ignore[arg-type]
        sender._offspring._accept = lambda stored: None  # type: ignore[method-assign]
        sender.start()
        async with asyncio.timeout(10):
            while not store.results:
                await asyncio.sleep(0)
            await sender.drain()
        assert any(b"deferral: Unable_to_forward_message:_no_room" in line for line in log.lines())
        return store.came

    assert asyncio.run(main()) == []


def test_a_notice_of_a_forward_that_finds_no_room_repeats_no_forward(make: Any) -> None:
    forward = Forward(SENDER, (b"b@far.test", b"c@far.test"), b"X: y\n")
    store, _, log = story(make(), ALIAS, forward=forward, refuses=2)
    assert [len(envelope.recipients) for envelope, _, _ in store.came] == [2]
    assert b"alert: cannot queue a notice for message 1: no room; its sender is not told" in log.lines()
    assert any(b"success: did_1+0+0/" in line for line in log.lines())


@pytest.mark.parametrize(("form", "most"), [("dsn", 900_000), ("qmail", 1_300_000)])
def test_a_host_that_says_much_of_each_of_many_makes_no_large_bounce(make: Any, form: str, most: int) -> None:
    said = (
        b"192.0.2.1 does not like recipient.\nRemote host said: 550-" + b"\xff" * 4900 + b"\n550 5.7.1 no\n"
    )
    addresses = [b"user%d@far.test" % count for count in range(1000)]
    envelope = Envelope(SENDER, tuple(map(Recipient, addresses)))
    store, _, _ = story(make(bounceformat=form), envelope, result=Result(D, said))
    ((_, message, closes),) = store.came
    assert len(message) < most and closes == Closes(1, (), True)
    kept = b"".join(change.text for _, changes, *_ in store.results for change in changes)
    assert len(kept) < 1_300_000
    if form == "dsn":
        groups = parts(message)[1].get_payload()[1:]
        assert [group["Final-Recipient"] for group in groups] == [
            f"rfc822; {one.decode()}" for one in addresses
        ]
    else:
        assert all(b"\n<%s>:\n192.0.2.1 does not like recipient.\n" % one in message for one in addresses)
