"""New messages made out of queued ones: a text of ours, then the original, byte for byte."""

import asyncio

from openqmail.core.ports import LARGE, LargeBody
from openqmail.core.queue import QueueStore
from openqmail.core.send.reading import READERS


async def prefixed(store: QueueStore, text: bytes, number: int, behind: bytes = b"") -> bytes | LargeBody:
    """`text`, the stored body of message `number`, and what stands `behind` it, ready to be submitted.

    A large original is copied in pieces, read off the loop.  Raises OSError, KeyError and what
    the queue has to say about a new body.
    """
    body = store.body(number)
    if body.data is not None and len(text) + len(body.data) + len(behind) < LARGE:
        return text + body.data + behind
    loop = asyncio.get_running_loop()
    large = store.large(closes=True)
    try:
        await large.write(text)
        chunks = body.chunks()
        while chunk := await loop.run_in_executor(READERS, next, chunks, b""):
            await large.write(chunk)
        if behind:
            await large.write(behind)
    except BaseException:
        large.abort()
        raise
    return large
