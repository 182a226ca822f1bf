"""The socket `run/admin`: a request a connection, one JSON line, answered in JSON lines.

Only the owner of the home can connect (0600).  The forms are those of
`openqmail status --json` and `openqmail queue list --json`; a list ends with a line
`{"ok":true}` and a message has its size in front, so that nothing cut off looks whole.
A verb on messages is answered when it is done: `{"ok":true,"done":[…],"missed":[…],"later":[…]}`.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Annotated

import msgspec

from openqmail.core.ports import Acted, LockoutAdmin, Missed, QueueAdmin
from openqmail.core.send.reading import READERS
from openqmail.core.service.sockets import KEPT
from openqmail.core.values import OpenqmailError

NUMBERS = 1000
"""Messages that one request may name."""

_LINE = 128 * 1024
_PATIENCE = 10.0
_MISSED = 100
"""Messages that cannot be read of which a list tells."""

_SLICE = 64


Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Key = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]*$")]


class Request(msgspec.Struct, frozen=True):
    """`ask`: status, list, show, destination, flush, settle, locked, unlock, or a verb on messages: hold,
    release, retry, delete, bounce.  `number`: of the message to show; `numbers`: of those to act on, or to
    list (none: all); `keys`: theirs, as a list tells them (none: whatever has these numbers is acted on);
    `reason`: to hold them; `text`: the report to bounce them with; `domain`: which destination; `names`:
    logins and networks to unlock."""

    v: int
    ask: str
    number: int = 0
    numbers: Annotated[tuple[Number, ...], msgspec.Meta(max_length=NUMBERS)] = ()
    keys: tuple[Key, ...] = ()
    reason: str = ""
    text: str = ""
    domain: str = ""
    names: Annotated[tuple[str, ...], msgspec.Meta(max_length=NUMBERS)] = ()


class Answer(msgspec.Struct, frozen=True):
    """What a verb did, as `ports.Acted` has it."""

    ok: bool
    done: tuple[int, ...]
    missed: tuple[Missed, ...]
    later: tuple[int, ...]


Status = Callable[[], Awaitable[msgspec.Struct]]


class AdminSocket:
    """Answers people's commands while the service runs."""

    def __init__(
        self,
        queue: QueueAdmin | None,
        status: Status,
        alert: Callable[[str], None],
        lockouts: LockoutAdmin | None = None,
    ) -> None:
        """`alert` takes a sentence for the administrator; without a `queue` only the status is told."""
        self._starting = queue is None
        if queue is not None:
            self._queue = queue
        self._status = status
        self._alert = alert
        self._lockouts = lockouts
        self._server: asyncio.Server | None = None

    async def serve(self, listening: socket.socket) -> None:
        """On a socket that listens already."""
        self._server = await asyncio.start_unix_server(self._connected, sock=listening, limit=_LINE, **KEPT)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), _PATIENCE)
            await self._answer(line, writer)
            await asyncio.wait_for(writer.drain(), _PATIENCE)
        except (ConnectionError, TimeoutError, ValueError):
            pass  # a client that left, stalled or overran its line is answered no further
        finally:
            writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            request = msgspec.json.decode(line, type=Request)
        except msgspec.DecodeError as error:
            _write(writer, {"ok": False, "error": f"not a request: {error}"})
            return
        answers: dict[str, Callable[[Request, asyncio.StreamWriter], Awaitable[None]]] = {
            "status": self._tell_status,
            "list": self._list,
            "show": self._show,
            "destination": self._destination,
            "flush": self._flush,
            "settle": self._settle,
            **({"locked": self._locked, "unlock": self._unlock} if self._lockouts else {}),
            **dict.fromkeys(("hold", "release", "retry", "delete", "bounce"), self._act),
        }
        answer = answers.get(request.ask)
        if request.v != 1 or answer is None:
            _write(writer, {"ok": False, "error": f"this service does not know how to {request.ask!r}"})
            return
        if self._starting and request.ask != "status":
            why = "the service is starting: its queue is not opened yet; try again in a moment"
            _write(writer, {"ok": False, "error": why})
            return
        try:
            await answer(request, writer)
        except (ConnectionError, TimeoutError):  # the client's
            raise
        except (OSError, OpenqmailError) as error:
            self._alert(f"run/admin: {request.ask!r} cannot be answered: {error}")
            _write(writer, {"ok": False, "error": str(error)})

    async def _tell_status(self, request: Request, writer: asyncio.StreamWriter) -> None:
        _write(writer, await self._status())

    async def _list(self, request: Request, writer: asyncio.StreamWriter) -> None:
        found, missed = iter(self._queue.messages(request.numbers or None)), list[Missed]()
        while some := list(islice(found, _SLICE)):
            told = [one for one in some if not isinstance(one, Missed)]
            missed += [one for one in some if isinstance(one, Missed)]
            writer.write(_encoder.encode_lines(told))
            await asyncio.wait_for(writer.drain(), _PATIENCE)
            await asyncio.sleep(0)  # mail goes on meanwhile
        _write(writer, {"ok": True, "missed": missed[:_MISSED]} if missed else {"ok": True})

    async def _show(self, request: Request, writer: asyncio.StreamWriter) -> None:
        body = self._queue.content(request.number)
        if body is None:
            _write(writer, {"ok": False, "error": f"no message {request.number} in the queue"})
            return
        chunks, loop = body.chunks(), asyncio.get_running_loop()
        chunk = await loop.run_in_executor(READERS, next, chunks, b"")
        _write(writer, {"ok": True, "size": body.size})
        while chunk:
            writer.write(chunk)
            await asyncio.wait_for(writer.drain(), _PATIENCE)
            try:
                chunk = await loop.run_in_executor(READERS, next, chunks, b"")
            except (OSError, OpenqmailError) as error:  # no word of ours may pass for the rest of it
                self._alert(f"run/admin: message {request.number} was cut off: {error}")
                return

    async def _destination(self, request: Request, writer: asyncio.StreamWriter) -> None:
        state = self._queue.destination(request.domain.encode("utf-8", "replace"))
        _write(writer, {"ok": True, "destination": state})

    async def _flush(self, request: Request, writer: asyncio.StreamWriter) -> None:
        _write(writer, {"ok": True, "messages": await self._queue.flush()})

    async def _settle(self, request: Request, writer: asyncio.StreamWriter) -> None:
        why = "the service is at work on the queue; end it with TERM: it settles the queue as it ends"
        _write(writer, {"ok": False, "error": why})

    async def _locked(self, request: Request, writer: asyncio.StreamWriter) -> None:
        assert self._lockouts is not None
        found = await self._lockouts.locked()
        _write(writer, {"ok": True, "locked": found.locked, "more": found.more})

    async def _unlock(self, request: Request, writer: asyncio.StreamWriter) -> None:
        assert self._lockouts is not None
        _write(writer, {"ok": True, "lifted": await self._lockouts.unlock(request.names)})

    async def _act(self, request: Request, writer: asyncio.StreamWriter) -> None:
        queue, numbers, keys = self._queue, request.numbers, request.keys
        if keys and len(keys) != len(numbers):
            _write(writer, {"ok": False, "error": "not a request: there are not as many keys as numbers"})
            return
        verbs: dict[str, Callable[[], Awaitable[Acted]]] = {
            "hold": lambda: queue.hold(numbers, request.reason, keys),
            "release": lambda: queue.release(numbers, keys),
            "retry": lambda: queue.retry(numbers, keys),
            "delete": lambda: queue.delete(numbers, keys),
            "bounce": lambda: queue.bounce(numbers, request.text, keys),
        }
        acted = await verbs[request.ask]()
        _write(writer, Answer(True, acted.done, acted.missed, acted.later))


_encoder = msgspec.json.Encoder()


def _write(writer: asyncio.StreamWriter, answer: object) -> None:
    writer.write(_encoder.encode(answer) + b"\n")
