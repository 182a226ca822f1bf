"""Runs a program for each command and does what it prints, as qmail-spp: a letter, then a text."""

from openqmail.core.hooks import (
    Answer,
    Defer,
    Edits,
    HangUp,
    HookContext,
    MessageBody,
    Next,
    Reject,
    Replace,
    SessionFacts,
    SkipChecks,
)
from openqmail.core.values import Envelope, Recipient, Reply

BROKEN = Defer(Reply(451, b"4.3.0", (b"a plugin of ours failed",)))


class Plugins:
    def __init__(self, context: HookContext) -> None:
        self._programs = context.programs
        self._log = context.log
        self._lines: tuple[tuple[str, tuple[bytes, ...]], ...] = context.settings.added["toyplugins"]  # type: ignore[assignment]
        self._headers: dict[int, list[bytes]] = {}
        self._off: set[int] = set()

    async def mail(self, session: SessionFacts, sender: bytes) -> Answer:
        return await self._ask("mail", session, {b"SMTPMAILFROM": sender})

    async def rcpt(self, session: SessionFacts, recipient: Recipient) -> Answer:
        known = {
            b"SMTPMAILFROM": session.sender or b"",
            b"SMTPRCPTTO": recipient.address,
            b"SMTPRCPTCOUNT": b"%d" % session.count,
            b"SMTPRCPTHOSTSOK": b"%d" % session.listed,
        }
        return await self._ask("rcpt", session, known)

    async def message(
        self, session: SessionFacts, envelope: Envelope, body: MessageBody, edits: Edits
    ) -> Answer:
        for line in self._headers.get(session.id, ()):
            edits.prepend(line)
        for step, argv in self._lines:
            if step == "message" and self._programs is not None:
                result = await self._programs.run(argv, body, timeout=20)
                edits.prepend(b"Toy-Said: " + (result.output.strip() or result.why.encode() or b"nothing"))
        return None

    def reset(self, session: SessionFacts, why: str) -> None:
        self._headers.pop(session.id, None)
        if why == "end":
            self._off.discard(session.id)

    async def _ask(self, step: str, session: SessionFacts, known: dict[bytes, bytes]) -> Answer:
        if session.id in self._off or self._programs is None:
            return None
        env = {b"PATH": b"/usr/bin:/bin", b"TCPREMOTEIP": session.client.encode(), **known}
        for _, argv in [line for line in self._lines if line[0] == step]:
            result = await self._programs.run(argv, env=env, timeout=5)
            if result.code is None or result.code < 0 or result.code == 120:
                return BROKEN
            for line in result.output.splitlines():
                found = self._act(session, line[:1], line[1:])
                if found is not BROKEN:
                    return found
        return None

    def _act(self, session: SessionFacts, letter: bytes, text: bytes) -> Answer:
        """What a line decides; BROKEN: nothing."""
        if letter in (b"E", b"R"):
            reply = Reply(int(text[:3]), b"", (text[4:],))
            return HangUp(reply) if letter == b"R" else Defer(reply) if text[:1] == b"4" else Reject(reply)
        if letter == b"A":
            self._off.add(session.id)
            return None
        if letter == b"H":
            self._headers.setdefault(session.id, []).append(text)
        decided = {b"N": Next(), b"O": SkipChecks(), b"D": HangUp(), b"C": Replace(text)}
        return decided.get(letter, BROKEN)
