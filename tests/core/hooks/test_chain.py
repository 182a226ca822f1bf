"""The chain asks in order, ends at the first refusal, and defers when a hook is broken."""

import asyncio
from typing import Any

from openqmail.core.hooks import HookChain, Refuse, SessionFacts
from openqmail.core.log import Alert, MemoryLog
from openqmail.core.values import Reply

FACTS = SessionFacts("smtp", "192.0.2.1", 4000, "192.0.2.2", relay=False)
NO = Reply(550, b"5.7.1", (b"no",))


class Asked:
    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.seen: list[tuple[Any, ...]] = []

    def mail(self, session: SessionFacts, sender: bytes) -> Any:
        self.seen.append((session, sender))
        return self.answer


class AskedSlowly(Asked):
    async def mail(self, session: SessionFacts, sender: bytes) -> Any:
        await asyncio.sleep(0)
        return super().mail(session, sender)


class Broken:
    def mail(self, session: SessionFacts, sender: bytes) -> Any:
        raise ValueError("no idea")


def ask(*hooks: object) -> tuple[Reply | None, MemoryLog]:
    log = MemoryLog()
    chain = HookChain([(type(hook).__name__, hook) for hook in hooks], log)
    return asyncio.run(chain.ask("mail", FACTS, b"a@b.example")), log


def test_a_chain_without_hooks_has_no_step() -> None:
    chain = HookChain([], MemoryLog())
    assert not any(chain.has(step) for step in ("connect", "helo", "mail", "rcpt", "data", "message"))


def test_only_the_steps_of_a_hook_are_asked() -> None:
    chain = HookChain([("one", Asked())], MemoryLog())
    assert chain.has("mail") and not chain.has("rcpt")


def test_no_opinion_lets_the_mail_go_on() -> None:
    first, second = Asked(), AskedSlowly()
    assert ask(first, second)[0] is None
    assert first.seen == second.seen == [(FACTS, b"a@b.example")]


def test_the_first_refusal_ends_the_step() -> None:
    later = Asked()
    assert ask(AskedSlowly(Refuse(NO)), later)[0] == NO
    assert later.seen == []


def test_a_broken_hook_defers_and_the_log_names_it() -> None:
    reply, log = ask(Broken(), Asked(Refuse(NO)))
    assert reply is not None and reply.code == 451
    assert [type(event) for event in log.events] == [Alert]
    assert b"Broken" in log.lines()[0] and b"no idea" in log.lines()[0]
