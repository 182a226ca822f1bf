"""A home on a real disk with alice in users/cdb, and local deliveries into it."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from openqmail.core.control import Home, Settings, compile_cdb, parse_assign, read_settings
from openqmail.core.local import LocalDeliveries
from openqmail.core.ports import LocalJob, LocalReport
from openqmail.core.values import Body, BytesBody, MessageId, Outcome
from openqmail.core.world import File, Filesystem, PosixDisk, SimulatedClock

T = TypeVar("T")

KEY = b"0123456789abcdef01234567"
STANDARD = b"Subject: x\n\nHello.\n"


class StreamedBody:
    """A body that is never whole in memory."""

    def __init__(self, data: bytes, says: int | None = None) -> None:
        self._data = data
        self.size = len(data) if says is None else says
        self.data: bytes | None = None

    def chunks(self) -> Iterator[bytes]:
        for at in range(0, len(self._data), 1000):
            yield self._data[at : at + 1000]


class WatchedDisk(PosixDisk):
    """A real disk that notes what is synced, and can be told to fail or to be slow."""

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock
        self.trusted = True
        self.fails = False
        self.takes = 0.0
        self.whole = 0
        self.files: list[bytes] = []
        self.folders: list[bytes] = []
        self.file_fails = False
        self.folder_fails = False
        self.full = False

    def create(self, path: bytes, mode: int = 0o600) -> File:
        return _WatchedFile(super().create(path, mode), path, self)

    def write_new(self, path: bytes, pieces: Sequence[bytes], mode: int = 0o600) -> int:
        if self.full:
            super().create(path, mode).close()
            raise OSError(28, "No space left on device")
        return super().write_new(path, pieces, mode)

    def open(self, path: bytes, *, write: bool = False) -> File:
        return _WatchedFile(super().open(path, write=write), path, self)

    def sync_file(self, path: bytes) -> None:
        self.files.append(path)
        super().sync_file(path)

    def sync_folder(self, folder: bytes) -> None:
        self.folders.append(folder)
        if self.folder_fails:
            raise OSError(5, "Input/output error")
        super().sync_folder(folder)

    def filesystem(self, folder: bytes) -> Filesystem | None:
        return _WatchedFilesystem(self, self._clock) if self.trusted else None


class _WatchedFile:
    def __init__(self, file: File, path: bytes, disk: WatchedDisk) -> None:
        self._file, self._path, self._disk = file, path, disk
        self.read_at, self.size, self.facts = file.read_at, file.size, file.facts
        self.truncate, self.close = file.truncate, file.close

    def append(self, pieces: tuple[bytes, ...]) -> int:
        if self._disk.full:
            raise OSError(28, "No space left on device")
        return self._file.append(pieces)

    def sync(self) -> None:
        self._disk.files.append(self._path)
        if self._disk.file_fails:
            raise OSError(5, "Input/output error")
        self._file.sync()


class _WatchedFilesystem:
    device = 0

    def __init__(self, disk: WatchedDisk, clock: SimulatedClock) -> None:
        self._disk, self._clock = disk, clock

    def sync(self) -> None:
        self._disk.whole += 1
        self._clock.advance(self._disk.takes)
        if self._disk.fails:
            raise OSError(5, "Input/output error")

    def close(self) -> None:
        pass


class Rig:
    """What a test does with the home; each `run` is one life of the process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.alice = root / "mail" / "alice"
        self.maildir = self.alice / "Maildir"
        for folder in ("control", "users", "alias"):
            (root / folder).mkdir()
        self.make_maildir(self.maildir)
        (root / "control" / "me").write_text("mx.example.test\n")
        lines = "".join(
            f"{sign}alice{dash}:alice:{os.getuid()}:{os.getgid()}:{self.alice}:{dash}::\n"
            for sign, dash in (("=", ""), ("+", "-"))
        )
        assignments, problems = parse_assign((lines + ".\n").encode())
        assert not problems
        (root / "users" / "cdb").write_bytes(compile_cdb(assignments))
        self.settings: Settings = read_settings(Home(str(root)))
        self.clock = SimulatedClock()
        self.disk = WatchedDisk(self.clock)

    @staticmethod
    def streamed(data: bytes, says: int | None = None) -> StreamedBody:
        return StreamedBody(data, says)

    @staticmethod
    def make_maildir(folder: Path) -> None:
        for part in ("tmp", "new", "cur"):
            (folder / part).mkdir(parents=True)

    def job(
        self,
        recipient: bytes = b"alice@example.test",
        body: bytes | Body = STANDARD,
        again: bool = False,
        sender: bytes = b"bob@example.test",
        synced: bool = False,
    ) -> LocalJob:
        stored = BytesBody(body) if isinstance(body, bytes) else body
        return LocalJob(1, MessageId(7, KEY), 1_700_000_000, sender, recipient, 0, stored, again, synced)

    def run(self, story: Callable[[LocalDeliveries], Awaitable[T]]) -> T:
        async def life() -> T:
            local = LocalDeliveries(Home(str(self.root)), self.settings, self.disk, self.clock)
            try:
                return await story(local)
            finally:
                await local.close()

        return asyncio.run(life())

    def deliver(self, job: LocalJob) -> LocalReport:
        return self.run(lambda local: local.deliver(job))

    def deliver_and_sync(
        self, job: LocalJob, between: Callable[[], object] = lambda: None
    ) -> tuple[bool, ...]:
        """Deliver; then `between`; then the checkpoint."""

        async def story(local: LocalDeliveries) -> tuple[bool, ...]:
            report = await local.deliver(job)
            assert report.result.outcome is Outcome.SUCCESS
            between()
            return await local.sync(report.written)

        return self.run(story)

    def new(self) -> list[bytes]:
        """Contents of `new/`, in the order of their names."""
        return [file.read_bytes() for file in sorted((self.maildir / "new").iterdir())]

    def names(self, part: str) -> list[str]:
        return sorted(os.listdir(self.maildir / part))

    def with_default(self, default: bytes) -> None:
        self.settings = msgspec.structs.replace(self.settings, defaultdelivery=default)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)
