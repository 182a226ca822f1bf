"""What every front end does with a message that is whole: ask the hooks, and store what they made of it.

A large message is read back from the queue's own file, by a descriptor for reading alone.  Edits of a
small one are made in memory; an edited large one is streamed into another file of the queue, so the
disk takes it twice and the memory never.
"""

import asyncio
from asyncio import Future
from collections.abc import Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

import msgspec

from openqmail.core.hooks.body import without
from openqmail.core.hooks.conversation import Conversation
from openqmail.core.hooks.passage import Passage
from openqmail.core.hooks.round import Message
from openqmail.core.log import Alert, Log
from openqmail.core.ports import LARGE, LargeBody, Submission
from openqmail.core.values import Body, BytesBody, Decision, Envelope, OpenqmailError, TemporaryFailure
from openqmail.core.values.verdict import GO_ON, Refusal

T = TypeVar("T")


class Examined(msgspec.Struct, frozen=True):
    """`error`: why that could not be found out; it is the queue's, the disk's or ours.  `refusal`: what the
    client is to be told.  `drop`: the message is taken, and nothing is stored; else `body` is what is to be
    submitted with `envelope`."""

    refusal: Refusal | None
    drop: bool
    envelope: Envelope
    body: bytes | LargeBody
    error: Exception | None = None

    def abandon(self) -> None:
        """Nobody is there any more who could submit it."""
        if not isinstance(self.body, bytes):
            self.body.abort()


def examine(
    conversation: Conversation,
    submission: Submission,
    envelope: Envelope,
    head: bytes,
    body: bytes | LargeBody,
    log: Log,
) -> "Examined | Future[Examined]":
    """Ask about a message that has come to its end; `head` are the lines of ours that it begins with.

    What is small is there at once where no hook waits; else it comes, without fail, while the future is
    kept."""
    passage = conversation.passage
    heard = GO_ON if passage.stream is None else passage.stream.end()
    if not isinstance(heard, Decision) or not isinstance(body, bytes):
        asking = _Examination(conversation, submission, envelope, head, body)
        return asking.later(asking.from_the_stream(heard), log)
    if heard.refusal is not None:
        return _examined(passage, heard.refusal, envelope, body)
    sent = BytesBody(body[len(head) :])
    message = conversation.message(envelope, sent)
    if isinstance(message, Message) and message.body is sent:  # what nearly all come to
        return _examined(passage, message.decision.refusal, message.envelope, body)
    asking = _Examination(conversation, submission, envelope, head, body)
    if isinstance(message, Message) and asking.is_small(message):
        return asking.small(message)
    return asking.later(asking.from_the_message(message, sent), log)


class _Examination:
    """Of one message."""

    def __init__(
        self,
        conversation: Conversation,
        submission: Submission,
        envelope: Envelope,
        head: bytes,
        body: bytes | LargeBody,
    ) -> None:
        self._conversation, self._passage = conversation, conversation.passage
        self._submission = submission
        self._envelope = envelope
        self._head = head
        self._body = body

    def later(self, finding: "Coroutine[Any, Any, Examined]", log: Log) -> "Future[Examined]":
        return asyncio.get_running_loop().create_task(self._found(finding, log))

    async def _found(self, finding: "Coroutine[Any, Any, Examined]", log: Log) -> Examined:
        why: Exception
        try:
            return await finding
        except (OpenqmailError, OSError) as error:
            why = error
        except Exception as error:  # a fault of ours must not leave the client without an answer
            log(Alert(f"hooks could not be asked about a message: {error!r}; deferred"))
            why = error
        return Examined(None, False, self._envelope, self._body, why)

    async def from_the_stream(self, heard: "Decision | Future[Decision]") -> Examined:
        """All that is left, from the end of what hooks saw on the way."""
        decision = await _now(heard)
        if decision.refusal is not None or "message" not in self._passage.asked:
            return self._made(decision.refusal, self._envelope, self._body)
        skip, body = len(self._head), self._body
        sent = BytesBody(body[skip:]) if isinstance(body, bytes) else without(await body.so_far(), skip)
        if self._passage.over:  # the client is gone, and what comes next may be under way
            return self._made(None, self._envelope, self._body)
        return await self.from_the_message(self._conversation.message(self._envelope, sent), sent)

    async def from_the_message(self, asked: "Message | Future[Message]", sent: Body) -> Examined:
        """All that is left, from what hooks say of the whole; they were given `sent`."""
        message = await _now(asked)
        refusal = message.decision.refusal
        dropped = self._passage.drop or not message.envelope.recipients
        if refusal is not None or dropped or message.body is sent:
            return self._made(refusal, message.envelope, self._body)
        if self.is_small(message):
            found = self.small(message)
        else:
            stored = await _stored(self._submission, self._conversation.readers, self._head, message.body)
            found = self._made(None, message.envelope, stored)
        if not isinstance(self._body, bytes):
            self._body.abort()
        return found

    def is_small(self, message: Message) -> bool:
        data = message.body.data
        return data is not None and len(self._head) + len(data) < LARGE

    def small(self, message: Message) -> Examined:
        return self._made(message.decision.refusal, message.envelope, self._head + (message.body.data or b""))

    def _made(self, refusal: Refusal | None, envelope: Envelope, body: bytes | LargeBody) -> Examined:
        return _examined(self._passage, refusal, envelope, body)


def _examined(
    passage: Passage, refusal: Refusal | None, envelope: Envelope, body: bytes | LargeBody
) -> Examined:
    return Examined(refusal, passage.drop or not envelope.recipients, envelope, body)


async def _stored(submission: Submission, readers: Executor, head: bytes, body: Body) -> LargeBody:
    """A large body that hooks have edited, ready to be submitted."""
    loop = asyncio.get_running_loop()
    large = submission.large()
    try:
        await large.write(head)
        chunks = iter(body.chunks())
        while chunk := await loop.run_in_executor(readers, next, chunks, b""):
            await large.write(chunk)
    except BaseException as error:
        large.abort()
        if isinstance(error, OpenqmailError) or not isinstance(error, Exception):
            raise
        raise TemporaryFailure(f"what hooks made of a message could not be read: {error!r}") from error
    return large


async def _now(answer: "T | Future[T]") -> T:
    return await answer if isinstance(answer, Future) else answer
