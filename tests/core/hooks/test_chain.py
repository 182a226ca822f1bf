"""The chain asks in order, ends at the first refusal, and defers when a hook is broken."""

import asyncio
import os
import threading
from asyncio import Future
from pathlib import Path
from typing import Any

import pytest

from openqmail.core.control.settings import Route
from openqmail.core.hooks import (
    Accept,
    Defer,
    Delivery,
    Drop,
    Edits,
    HangUp,
    Hold,
    HookChain,
    Message,
    Named,
    Next,
    Reject,
    Replace,
    SessionFacts,
    SkipChecks,
)
from openqmail.core.log import Alert, MemoryLog
from openqmail.core.queue.body import FileBody
from openqmail.core.values import BytesBody, Decision, Envelope, MessageId, Recipient, Reply
from openqmail.core.values.verdict import GO_ON
from openqmail.core.world import PosixDisk

FACTS = SessionFacts("smtp", "192.0.2.1", 4000, "192.0.2.2", relay=False)
ROUTE = Route("smtp", ())
DELIVERY = Delivery(1, MessageId(1, b"k" * 24), b"s@a.example", (b"r@b.example",), b"b.example", ROUTE)
NO = Reject(Reply(550, b"5.7.1", (b"no",)))
LATER = Defer(Reply(451, b"4.7.1", (b"later",)))


class Asked:
    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.seen: list[tuple[Any, ...]] = []

    def mail(self, session: SessionFacts, sender: bytes) -> Any:
        self.seen.append((session, sender))
        return self.answer

    connect = data = lambda self, *facts: self.answer

    def rcpt(self, session: SessionFacts, recipient: Recipient) -> Any:
        self.seen.append((session, recipient))
        return self.answer


class AskedSlowly(Asked):
    async def mail(self, session: SessionFacts, sender: bytes) -> Any:
        await asyncio.sleep(0)
        return super().mail(session, sender)


class Broken:
    def mail(self, session: SessionFacts, sender: bytes) -> Any:
        raise ValueError("no idea")


class Stuck:
    async def mail(self, session: SessionFacts, sender: bytes) -> Any:
        await asyncio.Event().wait()


def ask(*hooks: object, step: str = "mail", fact: Any = b"a@b.example") -> tuple[Decision, MemoryLog]:
    log = MemoryLog()
    named = [one if isinstance(one, Named) else Named(type(one).__name__, one) for one in hooks]
    facts = (FACTS, fact) if step in ("mail", "rcpt", "data") else (FACTS,)

    async def asking() -> Decision:
        answer = HookChain(named, log).ask(step, *facts)
        return answer if isinstance(answer, Decision) else await answer

    return asyncio.run(asking()), log


def test_a_chain_without_hooks_has_no_step() -> None:
    chain = HookChain([], MemoryLog())
    assert not any(chain.has(step) for step in ("connect", "helo", "mail", "rcpt", "data", "message"))


def test_only_the_steps_of_a_hook_are_asked() -> None:
    chain = HookChain([("one", Asked())], MemoryLog())
    assert chain.has("mail") and not chain.has("helo")


def test_steps_of_another_place_are_not_asked() -> None:
    assert not HookChain([("one", Asked())], MemoryLog(), "remote").has("mail")


def test_what_is_answered_at_once_is_there_at_once() -> None:
    # without a loop, so without a task
    assert HookChain([("one", Asked()), ("two", Asked(NO))], MemoryLog()).ask(
        "mail", FACTS, b"x"
    ) == Decision(NO)


def test_no_opinion_lets_the_mail_go_on() -> None:
    first, second = Asked(), AskedSlowly()
    assert ask(first, second)[0] is GO_ON
    assert first.seen == second.seen == [(FACTS, b"a@b.example")]


@pytest.mark.parametrize("answer", [NO, LATER, HangUp(), HangUp(NO.reply)])
def test_the_first_refusal_ends_the_step(answer: Any) -> None:
    later = Asked()
    assert ask(AskedSlowly(answer), later)[0].refusal == answer
    assert later.seen == []


@pytest.mark.parametrize(
    ("answer", "decision"),
    [
        (Accept(), Decision(silent=True)),
        (Next(), GO_ON),
        (SkipChecks(), Decision(skip_checks=True)),
        (Drop(), Decision(drop=True, silent=True)),
    ],
)
def test_what_ends_a_step_without_a_refusal(answer: Any, decision: Decision) -> None:
    later = Asked(NO)
    assert ask(Asked(answer), later)[0] == decision
    assert later.seen == []


def test_hold_leaves_the_others_their_say() -> None:
    assert ask(Asked(Hold("odd")), Asked(Hold("odder")))[0] == Decision(hold="odd")
    assert ask(Asked(Hold("odd")), Asked(NO))[0] == Decision(NO, hold="odd")


def test_drop_at_connect_hangs_up() -> None:
    assert ask(Asked(Drop()), step="connect")[0] == Decision(HangUp())


def test_the_next_hook_sees_a_replaced_address() -> None:
    second = AskedSlowly(Replace(b"c@d.example"))
    third = Asked()
    assert ask(Asked(Replace(b"b@c.example")), second, third)[0] == Decision(address=b"c@d.example")
    assert [seen[0][1] for seen in (second.seen, third.seen)] == [b"b@c.example", b"c@d.example"]


def test_a_replaced_recipient_keeps_what_its_sender_wants_to_be_told() -> None:
    second = Asked()
    first = Recipient(b"a@b.example", b"NEVER", b"rfc822;a@b.example")
    ask(Asked(Replace(b"c@d.example")), second, step="rcpt", fact=first)
    assert second.seen[0][1] == Recipient(b"c@d.example", b"NEVER", b"rfc822;a@b.example")


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (Broken(), b"no idea"),
        (Asked("yes"), b"answered 'yes' at mail"),
        (Asked(Reject(Reply(250, b"", (b"ok",)))), b"answered Reject"),
        (Asked(Defer(NO.reply)), b"answered Defer"),
        (Asked(Replace(b"a\nb")), b"answered Replace"),
        (Named("Stuck", Stuck(), 0.01), b"took more than 0.01 seconds at mail"),
    ],
)
def test_a_hook_that_fails_defers_and_the_log_says_why(hook: Any, said: bytes) -> None:
    named = hook if isinstance(hook, Named) else Named("toy", hook)
    decision, log = ask(named, Asked(NO))
    assert decision.refusal is not None and decision.refusal.reply.code == 451
    assert [type(event) for event in log.events] == [Alert]
    assert named.name.encode() in log.lines()[0] and said.replace(b" ", b"_")[:8] in log.lines()[0].replace(
        b" ", b"_"
    )

    decision, log = ask(named._replace(on_error="pass"), Asked(NO))
    assert decision == Decision(NO)
    assert b"passed" in log.lines()[0]


@pytest.mark.parametrize("answer", [Replace(b"x@y.example"), SkipChecks()])
def test_what_makes_no_sense_at_a_step_defers(answer: Any) -> None:
    assert ask(Asked(answer), step="data")[0].refusal.reply.code == 451  # type: ignore[union-attr]


@pytest.mark.parametrize("step", ["message", "prepare"])
@pytest.mark.parametrize("plain", [True, False])
def test_a_plain_hook_reads_a_body_on_disk_beside_the_loop_and_no_other(
    tmp_path: Path, step: str, plain: bool
) -> None:
    """One in memory is read at once, and an async method never leaves the loop's thread."""
    read: list[tuple[bytes, bool]] = []

    def look(body: Any) -> None:
        read.append((b"".join(body.chunks()), threading.current_thread() is threading.main_thread()))

    class Plain:
        def message(self, session: SessionFacts, envelope: Envelope, body: Any, edits: Any) -> None:
            look(body)

        def prepare(self, delivery: Any, body: Any, edits: Any) -> None:
            look(body)

    class Waits:
        async def message(self, session: SessionFacts, envelope: Envelope, body: Any, edits: Any) -> None:
            look(body)

        async def prepare(self, delivery: Any, body: Any, edits: Any) -> None:
            look(body)

    (tmp_path / "body").write_bytes(b"Subject: x\n\nx\n")
    on_disk = FileBody(PosixDisk(), os.fsencode(tmp_path / "body"), 0, 14)
    hook = Plain() if plain else Waits()

    async def scene() -> None:
        for body in (on_disk, BytesBody(b"Subject: x\n\nx\n")):
            if step == "message":
                chain = HookChain([("one", hook)], MemoryLog())
                answer = chain.message(FACTS, Envelope(b"s@a.example", ()), body)
                made = await answer if isinstance(answer, Future) else answer
                assert made.body is body
            else:
                chain = HookChain([("one", hook)], MemoryLog(), "remote")
                prepared = await chain.prepare(DELIVERY, body)
                assert not prepared.failed

    asyncio.run(scene())
    end = b"\n" if step == "message" else b"\r\n"
    whole = b"Subject: x%bx%b" % (end * 2, end)
    assert read == [(whole, not plain), (whole, True)]


@pytest.mark.parametrize("step", ["connect", "helo", "auth"])
def test_there_is_nothing_to_hold_before_mail(step: str) -> None:
    hasty = type("Hasty", (), {step: lambda self, *facts: Hold("odd")})()
    decision, log = ask(hasty, step=step)
    assert decision == Decision(Defer(Reply(451, b"4.3.0", (b"a check of ours failed; try again later",))))
    assert f"answered Hold(reason='odd') at {step}" in log.lines()[0].decode()


def test_all_are_told_and_the_failure_of_one_keeps_no_other_from_it() -> None:
    told: list[str] = []

    class Slow:
        async def reset(self, session: SessionFacts, why: str) -> None:
            await asyncio.sleep(0)
            told.append("slow " + why)

    class Bad:
        def reset(self, session: SessionFacts, why: str) -> None:
            told.append("bad")
            raise ValueError

    class Quick:
        def reset(self, session: SessionFacts, why: str) -> None:
            told.append("quick")

    async def scene() -> None:
        log = MemoryLog()
        waiting = HookChain([("b", Bad()), ("s", Slow()), ("b", Bad()), ("q", Quick())], log).tell(
            "reset", FACTS, "done"
        )
        assert waiting is not None
        await waiting
        assert told == ["bad", "slow done", "bad", "quick"]
        assert len(log.events) == 2

    asyncio.run(scene())


# --- what a hook that failed has made of the message so far

LETTER = BytesBody(b"Subject: pay\n\nthe letter\n")
ENVELOPE = Envelope(b"s@a.example", (Recipient(b"r@b.example"),))


def half_made(edits: Edits) -> None:
    edits.prepend(b"X-Half: made")
    edits.remove(b"subject")
    edits.replace_body(b"")
    edits.sender = b"x@y.example"
    edits.recipients = ()


class Raises:
    def message(self, session: Any, envelope: Envelope, body: Any, edits: Edits) -> Any:
        half_made(edits)
        raise RuntimeError("the signer broke")

    def prepare(self, delivery: Any, body: Any, edits: Edits) -> Any:
        return self.message(None, ENVELOPE, body, edits)


class NeverDone(Raises):
    async def message(self, session: Any, envelope: Envelope, body: Any, edits: Edits) -> Any:
        half_made(edits)
        await asyncio.Event().wait()


class Senseless(Raises):
    def message(self, session: Any, envelope: Envelope, body: Any, edits: Edits) -> Any:
        half_made(edits)
        return "yes"


class BadBody(Raises):
    def message(self, session: Any, envelope: Envelope, body: Any, edits: Edits) -> Any:
        half_made(edits)
        edits.replace_body(lambda: 1 / 0)  # type: ignore[arg-type, return-value]


class Marks:
    """Another hook, behind."""

    def message(self, session: Any, envelope: Envelope, body: Any, edits: Edits) -> None:
        edits.prepend(b"X-Next: %d" % body.size)

    def prepare(self, delivery: Any, body: Any, edits: Edits) -> None:
        edits.prepend(b"X-Next: %d" % body.size)


@pytest.mark.parametrize("hook", [Raises(), NeverDone(), Senseless(), BadBody()])
@pytest.mark.parametrize("on_error", ["pass", "defer"])
def test_a_failed_hook_leaves_nothing_of_what_it_made_of_a_message(hook: Any, on_error: Any) -> None:
    async def scene() -> None:
        chain = HookChain([Named("toy", hook, 0.01, on_error), ("next", Marks())], MemoryLog())
        made = chain.message(FACTS, ENVELOPE, LETTER)
        made = await made if isinstance(made, asyncio.Future) else made
        assert made.envelope == ENVELOPE
        if on_error == "pass":
            assert made.decision is GO_ON
            assert made.body.data == b"X-Next: 25\n" + LETTER.data
        else:
            assert made.decision.refusal is not None
            assert made.body.data == LETTER.data

    asyncio.run(scene())


@pytest.mark.parametrize("hook", [Raises(), NeverDone(), Senseless(), BadBody()])
def test_a_failed_hook_leaves_nothing_of_what_it_made_of_a_body_on_its_way_out(hook: Any) -> None:
    async def scene() -> None:
        log = MemoryLog()
        chain = HookChain([Named("toy", hook, 0.01, "pass"), ("next", Marks())], log, "remote")
        made = await chain.prepare(None, LETTER)  # type: ignore[arg-type]
        assert not made.failed
        assert made.body.data == b"X-Next: 28\n" + LETTER.data
        assert len(log.events) == 1

        made = await HookChain([Named("toy", hook, 0.01)], log, "remote").prepare(None, LETTER)  # type: ignore[arg-type]
        assert made.failed

    asyncio.run(scene())


def test_what_a_hook_wishes_after_its_answer_counts_as_nobodys() -> None:
    kept: list[Edits] = []

    class Keeps:
        def message(self, session: Any, envelope: Envelope, body: Any, edits: Edits) -> None:
            for late in kept:
                half_made(late)
            kept.append(edits)

    hooks = [("one", Keeps()), ("two", Keeps()), ("three", Keeps())]
    made = HookChain(hooks, MemoryLog()).message(FACTS, ENVELOPE, LETTER)
    assert isinstance(made, Message)
    assert made == Message(GO_ON, ENVELOPE, LETTER)


class OnDisk:
    data = None
    size = len(LETTER.data)

    def chunks(self) -> Any:
        yield LETTER.data


def test_a_thread_that_took_too_long_writes_into_nothing_that_counts() -> None:
    goes_on, wrote = threading.Event(), threading.Event()

    class Late:
        def message(self, session: Any, envelope: Envelope, body: Any, edits: Edits) -> None:
            goes_on.wait(60)
            half_made(edits)
            wrote.set()

    class Waits(Marks):
        async def message(self, session: Any, envelope: Envelope, body: Any, edits: Edits) -> None:
            goes_on.set()
            await asyncio.to_thread(wrote.wait, 60)
            super().message(session, envelope, body, edits)

    async def scene() -> None:
        chain = HookChain([Named("late", Late(), 0.01, "pass"), ("next", Waits())], MemoryLog())
        made = chain.message(FACTS, ENVELOPE, OnDisk())  # type: ignore[arg-type]
        assert isinstance(made, asyncio.Future)
        made = await made
        assert made.envelope == ENVELOPE
        assert b"".join(made.body.chunks()) == b"X-Next: 25\n" + LETTER.data

    asyncio.run(scene())
