"""Streams each message to a filter on a Unix socket as it comes, and does what that says at its end.

A frame is a letter, a length of four bytes, and data, in the manner of milters: M sender, H field, B piece
of the body, E end.  Each is answered by one: c go on, r refuse, a add this field and go on.
"""

import asyncio

from openqmail.core.hooks import Answer, Edits, Field, HookContext, MessageBody, Reject, SessionFacts
from openqmail.core.values import Envelope, Reply

NO = Reject(Reply(550, b"5.7.1", (b"the filter does not want it",)))

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Milter:
    def __init__(self, context: HookContext) -> None:
        self._path = str(context.settings.added["toyfilter"])
        self._open: dict[int, Streams] = {}

    async def mail(self, session: SessionFacts, sender: bytes) -> Answer:
        self._open[session.id] = await asyncio.open_unix_connection(self._path)
        return await self._say(session, b"M", sender)

    async def header(self, session: SessionFacts, field: Field) -> Answer:
        return await self._say(session, b"H", field.name + b":" + field.value)

    async def chunk(self, session: SessionFacts, data: bytes) -> Answer:
        return await self._say(session, b"B", data)

    async def message(
        self, session: SessionFacts, envelope: Envelope, body: MessageBody, edits: Edits
    ) -> Answer:
        return await self._say(session, b"E", b"", edits)

    async def reset(self, session: SessionFacts, why: str) -> None:
        streams = self._open.pop(session.id, None)
        if streams is not None:
            streams[1].close()

    async def _say(
        self, session: SessionFacts, letter: bytes, data: bytes, edits: Edits | None = None
    ) -> Answer:
        reader, writer = self._open[session.id]
        writer.write(letter + len(data).to_bytes(4, "big") + data)
        await writer.drain()
        head = await reader.readexactly(5)
        text = await reader.readexactly(int.from_bytes(head[1:], "big"))
        if head[:1] == b"a" and edits is not None:
            edits.prepend(text)
        return NO if head[:1] == b"r" else None
