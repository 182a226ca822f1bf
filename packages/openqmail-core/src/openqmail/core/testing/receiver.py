"""Other mail servers, as a test writes them: what each says at each attempt, and what it has taken.

A receiver speaks SMTP (RFC 5321) with PIPELINING, 8BITMIME, SMTPUTF8 and SIZE, in its own few
lines: it shares nothing with the client that it talks to.  It takes one message a connection, so
each connection is one attempt, which is answered by the next step of its script.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal, cast

import msgspec

from openqmail.core.testing.mail import Mail, text_of

Stage = Literal["connect", "greeting", "ehlo", "mail", "rcpt", "data", "message"]
"""Where in an attempt: `data` is the command, `message` what follows it and its final dot."""


class Accept(msgspec.Struct, frozen=True):
    """The message is taken."""


class Answer(msgspec.Struct, frozen=True):
    """A reply, such as Answer(450, "4.7.1 greylisted"), to what is said at that stage."""

    code: int
    text: str = "so the test says"
    at: Literal["greeting", "ehlo", "mail", "rcpt", "data", "message"] = "rcpt"


class Silence(msgspec.Struct, frozen=True):
    """Nothing is said at that stage, nor later; at `connect` not even a connection comes about."""

    at: Stage = "greeting"


class Drop(msgspec.Struct, frozen=True):
    """The connection breaks at that stage: at `message`, in the midst of it."""

    at: Literal["greeting", "ehlo", "mail", "rcpt", "data", "message"] = "message"


class Unreachable(msgspec.Struct, frozen=True):
    """The connection is refused."""


Step = Accept | Answer | Silence | Drop | Unreachable


class Attempt(msgspec.Struct, frozen=True):
    """`at`: seconds UTC since 1970 (virtual ones of a VirtualMta)."""

    at: float
    step: Step


class Receiver:
    """`steps`: one for each attempt, in order; then `then`, for ever.

    `attempts` are all that there were, `mails` what was taken."""

    def __init__(self, steps: Sequence[Step] = (), then: Step = Accept()) -> None:  # noqa: B008  # a value
        self._steps = tuple(steps)
        self._then = then
        self.attempts: list[Attempt] = []
        self.mails: list[Mail] = []

    def attempt(self, at: float) -> Step:
        """What is to be answered now."""
        done = len(self.attempts)
        step = self._steps[done] if done < len(self._steps) else self._then
        self.attempts.append(Attempt(at, step))
        return step


class Dialogue(asyncio.Protocol):
    """One connection to a receiver."""

    def __init__(self, name: str, step: Step, took: Callable[[Mail], None]) -> None:
        self._name = name
        self._step = step
        self._took = took
        self._buffer = b""
        self._in_message = False
        self._silent = False
        self._begun = False
        self._sender: str | None = None
        self._recipients: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)
        self._say("greeting", f"220 {self._name} ESMTP")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while not self._silent and not self._wire.is_closing():
            if self._in_message:
                if not self._take_message():
                    return
                continue
            line, end, rest = self._buffer.partition(b"\r\n")
            if not end:
                return
            self._buffer = rest
            self._command(line)

    def eof_received(self) -> bool:
        return False

    def _command(self, line: bytes) -> None:
        verb, _, argument = line.partition(b" ")
        match verb.upper():
            case b"EHLO":
                extensions = "".join(f"250-{word}\r\n" for word in ("PIPELINING", "8BITMIME", "SMTPUTF8"))
                self._say("ehlo", f"250-{self._name}\r\n{extensions}250 SIZE 0")
            case b"HELO":
                self._say("ehlo", f"250 {self._name}")
            case b"MAIL" if self._begun:
                self._write("421 4.3.2 one attempt a connection")
                self._wire.close()
            case b"MAIL":
                self._begun = True
                if self._say("mail", "250 2.1.0 go on"):
                    self._sender = _address(argument)
            case b"RCPT" if self._sender is None:
                self._write("503 5.5.1 MAIL first")
            case b"RCPT":
                if self._say("rcpt", "250 2.1.5 go on"):
                    self._recipients.append(_address(argument))
            case b"DATA" if self._sender is None or not self._recipients:
                self._write("503 5.5.1 MAIL and RCPT first")
            case b"DATA":
                self._in_message = self._say("data", "354 go on")
            case b"RSET":
                self._write("250 2.0.0 go on")
                if self._begun:
                    self._wire.close()
            case b"NOOP":
                self._write("250 2.0.0 go on")
            case b"QUIT":
                self._write("221 2.0.0 goodbye")
                self._wire.close()
            case _:
                self._write("500 5.5.2 not understood")

    def _take_message(self) -> bool:
        """Whether it is all there."""
        if self._step == Drop("message") and self._buffer:
            self._wire.abort()
            return False
        if self._buffer.startswith(b".\r\n"):
            data, self._buffer = b"", self._buffer[3:]
        else:
            data, end, rest = self._buffer.partition(b"\r\n.\r\n")
            if not end:
                return False
            data, self._buffer = data + b"\r\n", rest
        self._in_message = False
        if self._say("message", "250 2.0.0 taken"):
            if data.startswith(b"."):
                data = data[1:]
            raw = data.replace(b"\r\n.", b"\r\n").replace(b"\r\n", b"\n")
            self._took(Mail(self._sender or "", tuple(self._recipients), raw))
            self._wire.close()
        return True

    def _say(self, stage: str, usual: str) -> bool:
        """What the step says at this stage, or what is usual; whether it was that."""
        step = self._step
        at = getattr(step, "at", None)
        if at != stage:
            self._write(usual)
            return True
        if isinstance(step, Answer):
            self._write(f"{step.code} {step.text}")
        elif isinstance(step, Drop):
            self._wire.abort()
        else:
            self._silent = True
        return False

    def _write(self, reply: str) -> None:
        self._wire.write(reply.encode() + b"\r\n")


def _address(argument: bytes) -> str:
    """The path of MAIL or RCPT (RFC 5321 section 4.1.1), without its brackets."""
    return text_of(argument.partition(b"<")[2].rpartition(b">")[0])
