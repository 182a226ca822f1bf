"""What every front end does with a message that is whole: ask the hooks, and store what they made of it.

A large message is read back from the queue's own file, by a descriptor for reading alone.  Edits of a
small one are made in memory; an edited large one is streamed into another file of the queue, so the
disk takes it twice and the memory never.
"""

import asyncio
from asyncio import Future
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from openqmail.core.hooks.body import without
from openqmail.core.hooks.conversation import Conversation
from openqmail.core.ports import LARGE, LargeBody, Submission
from openqmail.core.values import Body, BytesBody, Envelope, OpenqmailError, TemporaryFailure
from openqmail.core.values.verdict import Refusal

T = TypeVar("T")


class Examined(msgspec.Struct, frozen=True):
    """`refusal`: what the client is to be told.  `drop`: the message is taken, and nothing is stored; else
    `body` is what is to be submitted with `envelope`."""

    refusal: Refusal | None
    drop: bool
    envelope: Envelope
    body: bytes | LargeBody


async def examine(
    conversation: Conversation,
    submission: Submission,
    envelope: Envelope,
    head: bytes,
    body: bytes | LargeBody,
) -> Examined:
    """Ask about a message that has come to its end; `head` are the lines of ours that it begins with.

    Raises QueueFull, TemporaryFailure."""
    stream = conversation.stream
    if stream is not None:
        decision = await _now(stream.end())
        if decision.refusal is not None:
            return Examined(decision.refusal, False, envelope, body)
    if conversation.has("message"):
        small = isinstance(body, bytes)
        sent = BytesBody(body[len(head) :]) if isinstance(body, bytes) else await _sent(body, len(head))
        message = await _now(conversation.message(envelope, sent))
        if message.decision.refusal is not None:
            return Examined(message.decision.refusal, False, envelope, body)
        envelope = message.envelope
        if message.body is not sent and not conversation.drop:
            edited = await _stored(submission, head, message.body)
            if not small:
                body.abort()  # type: ignore[union-attr]
            body = edited
    return Examined(None, conversation.drop or not envelope.recipients, envelope, body)


async def _sent(body: LargeBody, skip: int) -> Body:
    return without(await body.so_far(), skip)


async def _stored(submission: Submission, head: bytes, body: Body) -> bytes | LargeBody:
    """A body that hooks have edited, ready to be submitted."""
    if body.data is not None and len(head) + len(body.data) < LARGE:
        return head + body.data
    loop = asyncio.get_running_loop()
    large = submission.large()
    try:
        await large.write(head)
        chunks = iter(body.chunks())
        while (chunk := await loop.run_in_executor(None, _next, chunks)) is not None:
            await large.write(chunk)
    except BaseException as error:
        large.abort()
        if isinstance(error, OpenqmailError) or not isinstance(error, Exception):
            raise
        raise TemporaryFailure(f"what hooks made of a message could not be read: {error!r}") from error
    return large


async def _now(answer: "T | Future[T]") -> T:
    return await answer if isinstance(answer, Future) else answer


def _next(chunks: Iterator[bytes]) -> bytes | None:
    return next(chunks, None)
