"""Runs the programs of hooks in this process's name: the port `Programs`, served directly.

A program has the home as its folder, its input in a file without a name, a group of its own, and no
descriptor but 0, 1 and 2.  It is read as it prints, kept up to `OUTPUT` bytes of each; when its time
is over, or it has ended, its whole group is killed.  At most `MOST` run at once, the others wait.
"""

import asyncio
import contextlib
import os
import signal
from asyncio import Future
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import BinaryIO

from openqmail.core.hooks.body import Rest
from openqmail.core.ports import OUTPUT, ProgramResult
from openqmail.core.service.frames.bodies import DescriptorBody
from openqmail.core.values import Body, BytesBody, OpenqmailError

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
                with contextlib.closing(_Input(stdin)) as given:
                    return await self._carry_out(argv, given, {b"PATH": PATH} if env is None else env)
        except TimeoutError:
            return ProgramResult(None, why=f"took more than {timeout:g} seconds")
        except (OSError, OpenqmailError, ValueError) as error:
            return ProgramResult(None, why=f"cannot be run: {error}")

    async def _carry_out(
        self, argv: tuple[bytes, ...], given: "_Input", env: Mapping[bytes, bytes]
    ) -> ProgramResult:
        async with _pipe() as (output, stdout), _pipe() as (errors, stderr):
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=given.descriptor,
                stdout=stdout,
                stderr=stderr,
                env={os.fsdecode(name): os.fsdecode(value) for name, value in env.items()},
                cwd=self._folder,
                start_new_session=True,
            )
            stdout.close()
            stderr.close()
            try:
                printed, complained = await asyncio.gather(_read(output), _read(errors))
                code = await process.wait()
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            return ProgramResult(code, printed, complained)


class _Input:
    """What a program reads, as a descriptor that begins at its beginning."""

    def __init__(self, stdin: bytes | Body) -> None:
        if isinstance(stdin, bytes):
            stdin = BytesBody(stdin)
        if stdin.data == b"":
            self.descriptor = os.open(os.devnull, os.O_RDONLY)
            return
        base, skip = (stdin.base, stdin.skip) if isinstance(stdin, Rest) else (stdin, 0)
        if isinstance(base, DescriptorBody):
            self.descriptor = base.duplicate()
        else:
            skip = 0
            self.descriptor = _unnamed(small=stdin.data is not None)
            for chunk in stdin.chunks():
                _write(self.descriptor, chunk)
        os.lseek(self.descriptor, skip, os.SEEK_SET)

    def close(self) -> None:
        os.close(self.descriptor)


def _unnamed(*, small: bool) -> int:
    """A file in memory where it may be and there is such a thing, else one without a name."""
    if small and hasattr(os, "memfd_create"):
        return os.memfd_create("input")
    # As tempfile does it, which with what it imports is 1 MiB for every process of a service.
    path = os.path.join(os.environ.get("TMPDIR") or "/tmp", f"openqmail-{os.getpid()}-{os.urandom(8).hex()}")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return descriptor


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


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
