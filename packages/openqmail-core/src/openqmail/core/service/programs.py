"""Runs the programs of hooks in this process's name: the port `Programs`, served directly.

A program has the home as its folder, a group of its own, and no descriptor but 0, 1 and 2.  Its input
comes by a pipe, from its beginning, whoever else reads the same body; what cannot be read to its end is
told instead of a result.  It is read as it prints, kept up to `OUTPUT` bytes of each; when its time is
over, or it has ended, its whole group is killed.  At most `MOST` run at once, the others wait.
"""

import asyncio
import contextlib
import os
import signal
from asyncio import Future
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import BinaryIO

from openqmail.core.ports import OUTPUT, ProgramResult
from openqmail.core.values import Body, BytesBody, OpenqmailError, TemporaryFailure

MOST = 32
"""Programs at once."""

WAITING = 256
"""Programs that may wait for these."""

PATH = b"/usr/local/bin:/usr/bin:/bin"

Environment = Mapping[bytes, bytes] | None


class ProgramRunner:
    """`folder`: where programs are run."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._room = asyncio.Semaphore(MOST)
        self._tasks: set[asyncio.Task[ProgramResult]] = set()

    def run(
        self,
        argv: Sequence[bytes],
        stdin: bytes | Body = b"",
        env: Environment = None,
        timeout: float = 30.0,
    ) -> "Future[ProgramResult]":
        loop = asyncio.get_running_loop()
        if len(self._tasks) >= MOST + WAITING:
            refused: Future[ProgramResult] = loop.create_future()
            refused.set_result(ProgramResult(None, why="too many programs wait to be run"))
            return refused
        task = loop.create_task(self._run(tuple(argv), stdin, env, timeout))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Kill what runs."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(
        self, argv: tuple[bytes, ...], stdin: bytes | Body, env: Environment, timeout: float
    ) -> ProgramResult:
        try:
            if not argv:
                raise ValueError("no program is named")
            async with asyncio.timeout(timeout), self._room:
                given = BytesBody(stdin) if isinstance(stdin, bytes) else stdin
                return await self._carry_out(argv, given, {b"PATH": PATH} if env is None else env)
        except TimeoutError:
            return ProgramResult(None, why=f"took more than {timeout:g} seconds")
        except (OSError, OpenqmailError, ValueError) as error:
            return ProgramResult(None, why=f"cannot be run: {error}")

    async def _carry_out(
        self, argv: tuple[bytes, ...], given: Body, env: Mapping[bytes, bytes]
    ) -> ProgramResult:
        async with _given(given) as (stdin, giving), _pipe() as (output, stdout), _pipe() as (errors, stderr):
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env={os.fsdecode(name): os.fsdecode(value) for name, value in env.items()},
                cwd=self._folder,
                start_new_session=True,
            )
            stdin.close()
            stdout.close()
            stderr.close()
            try:
                # What it leaves behind may hold its output open, and is killed first.
                printed, complained, code = await asyncio.gather(
                    _read(output), _read(errors), _ended(process)
                )
            finally:
                await _ended(process, killed=True)
            if giving.done():
                giving.result()
            return ProgramResult(code, printed, complained)


class _Giving(asyncio.BaseProtocol):
    """Of a pipe that is written to: `takes` is set while it takes more, or nobody reads it any more."""

    def __init__(self) -> None:
        self.lost = False
        self.takes = asyncio.Event()
        self.takes.set()

    def pause_writing(self) -> None:
        self.takes.clear()

    def resume_writing(self) -> None:
        self.takes.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self.takes.set()


@contextlib.asynccontextmanager
async def _given(body: Body) -> "AsyncIterator[tuple[BinaryIO, asyncio.Task[None]]]":
    """What a program reads, and who writes to it, until nobody wants it any more; he raises what reading the
    body does."""
    theirs, ours = os.pipe()
    with os.fdopen(theirs, "rb", buffering=0) as reading:
        loop = asyncio.get_running_loop()
        transport, pipe = await loop.connect_write_pipe(_Giving, os.fdopen(ours, "wb", buffering=0))
        giving = loop.create_task(_give(transport, pipe, body))
        try:
            yield reading, giving
        finally:
            giving.cancel()
            await asyncio.wait([giving])
            if not pipe.lost and transport.get_write_buffer_size():  # else it has ended, or does by itself
                transport.abort()


async def _give(transport: asyncio.WriteTransport, pipe: _Giving, body: Body) -> None:
    """All of a body, as fast as the program takes it; then, or when it cannot be read, its end."""
    try:
        for chunk in body.chunks():
            transport.write(chunk)
            await pipe.takes.wait()
            if pipe.lost:  # the program has seen enough
                break
    except (Exception, SystemExit) as error:  # a hook may have made the body
        raise TemporaryFailure(f"its input: {str(error) or repr(error)}") from error
    finally:
        transport.close()


async def _ended(process: Process, killed: bool = False) -> int:
    """Its exit code, when nothing of its group is left; `killed`: it need not end by itself."""
    code = None if killed else await process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    return await process.wait() if code is None else code


@contextlib.asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[asyncio.StreamReader, BinaryIO]]:
    """What a program prints, and what it prints to.  Both are closed in the end, whoever else still holds the
    second: a program may leave a child behind that no signal to its group reaches."""
    ours, theirs = os.pipe()
    reader = asyncio.StreamReader()
    with os.fdopen(theirs, "wb", buffering=0) as writing:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", buffering=0)
        )
        try:
            yield reader, writing
        finally:
            transport.close()


async def _read(stream: asyncio.StreamReader) -> bytes:
    """All that comes, of which the first `OUTPUT` bytes are kept."""
    kept = bytearray()
    while data := await stream.read(65536):
        kept += data[: OUTPUT - len(kept)]
    return bytes(kept)
