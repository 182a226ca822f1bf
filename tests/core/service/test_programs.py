"""Programs of hooks: run directly, and by a worker behind sockets as the spawner makes it."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from homes import Waiting
from openqmail.core.hooks import MessageBody
from openqmail.core.hooks.body import without
from openqmail.core.ports import OUTPUT
from openqmail.core.service import programs as programs_module
from openqmail.core.service.frames.bodies import DescriptorBody
from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.programs import LOST, ProgramsClient, ProgramsServer
from openqmail.core.service.frames.spawning import Refused, Started, StartPrograms, ToSpawner
from openqmail.core.service.loops import new_loop
from openqmail.core.service.programs import ProgramRunner
from openqmail.core.values import BytesBody

SH = b"/bin/sh"


class Spawner:
    """One in the loop of the test; `refuse`: what it says instead of making a worker."""

    def __init__(self, folder: str, refuse: bytes = b"") -> None:
        self.folder, self.refuse = folder, refuse
        self.started: list[ProgramsServer] = []
        self.connection, theirs = socket.socketpair()
        self.channel = Channel(theirs, ToSpawner, self._received, lambda _: None)

    def _received(self, message: Any, _: list[int]) -> None:
        assert isinstance(message, StartPrograms)
        if self.refuse:
            self.channel.send(Refused(message.id, self.refuse))
            return
        ours, theirs = socket.socketpair()
        self.started.append(ProgramsServer(ProgramRunner(self.folder)))
        self.started[-1].serve(ours)
        self.channel.send(Started(message.id, 1, 1), (theirs.detach(),))

    def close(self) -> None:
        self.channel.close()
        for one in self.started:
            one.close()


@asynccontextmanager
async def _direct(folder: str) -> AsyncIterator[Any]:
    runner = ProgramRunner(folder)
    yield runner
    await runner.close()


@asynccontextmanager
async def _by_frames(folder: str) -> AsyncIterator[Any]:
    spawner, client = Spawner(folder), ProgramsClient()
    client.attach(spawner.connection)
    yield client
    client.close()
    spawner.close()


@pytest.fixture(params=[_direct, _by_frames], ids=["direct", "frames"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Any]:
    """Runs a script of sh, and gives the result."""

    def once(script: str, *more: Any, **options: Any) -> Any:
        async def scene() -> Any:
            async with request.param(str(tmp_path)) as programs:
                return await asyncio.wait_for(
                    programs.run([SH, b"-c", script.encode()], *more, **options), 30
                )

        return asyncio.run(scene())

    return once


def test_what_a_program_says_and_how_it_ends(run: Any, tmp_path: Path) -> None:
    result = run("pwd; echo no >&2; exit 3")
    assert (result.code, result.output, result.errors) == (3, b"%s\n" % os.fsencode(tmp_path), b"no\n")
    assert run("kill -9 $$").code == -9


def test_a_program_has_the_environment_that_it_is_given(run: Any) -> None:
    assert run('echo "$A$HOME"', env={b"A": b"\xff x"}).output == b"\xff x\n"
    assert run("env").output.startswith(b"P"), "nothing of the service's own"


def test_a_program_reads_its_input_and_nothing_else(run: Any, tmp_path: Path) -> None:
    assert run("cat").output == b""
    assert run("cat; ls /proc/self/fd | wc -l", b"hello ").output.split() == [b"hello", b"4"]
    large = b"0123456789" * 100_000
    file = tmp_path / "large"
    file.write_bytes(large)
    body = DescriptorBody(os.open(file, os.O_RDONLY), len(large), b"")
    for _ in range(2):  # each time from the beginning
        assert run("wc -c", body).output.split() == [b"1000000"]
    assert run("head -c 4", MessageBody(without(body, 5))).output == b"5678"
    assert run("wc -c", MessageBody(BytesBody(b"abc"))).output.split() == [b"3"]
    body.close()


def test_programs_side_by_side_and_one_behind_a_slow_one_read_all_of_a_body(tmp_path: Path) -> None:
    """As scanners do: one that saw half of a message, or nothing, would call it clean."""
    large = b"0123456789" * 200_000
    (tmp_path / "large").write_bytes(large)
    os.mkfifo(tmp_path / "go")

    async def scene(kind: Any) -> None:
        async with kind(str(tmp_path)) as programs:
            body = DescriptorBody(os.open(tmp_path / "large", os.O_RDONLY), len(large), b"")
            slow = programs.run([SH, b"-c", b"head -c 1000; read line <go; cat"], body)
            beside = [programs.run([SH, b"-c", b"wc -c"], body) for _ in range(3)]
            for one in beside:
                assert (await one).output.split() == [b"2000000"]
            with open(tmp_path / "go", "w") as go:
                go.write("on\n")
            assert (await slow).output == large[:OUTPUT]
            body.close()

    for kind in (_direct, _by_frames):
        asyncio.run(asyncio.wait_for(scene(kind), 30))


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, new_loop], ids=["asyncio", "the service's"])
def test_a_program_that_wants_no_more_of_its_input_ends_as_it_likes(tmp_path: Path, loop: Any) -> None:
    async def scene() -> None:
        runner, large = ProgramRunner(str(tmp_path)), BytesBody(b"0123456789" * 200_000)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            assert (await runner.run([SH, b"-c", b"exit 3"], large)).code == 3
            holds = [SH, b"-c", b"exec 3<&0; sleep 1000 <&3 >/dev/null 2>&1 & exit 4"]
            assert (await runner.run(holds, large)).code == 4
        assert len(os.listdir("/proc/self/fd")) <= before + 2, "what a loop opens for its first program"

    with asyncio.Runner(loop_factory=loop) as made:
        made.run(asyncio.wait_for(scene(), 20))


def test_a_body_that_cannot_be_read_to_its_end_is_no_input(tmp_path: Path) -> None:
    """What a program says of half a message is nobody's answer."""
    (tmp_path / "short").write_bytes(b"x" * 200_000)

    async def scene() -> None:
        async with _direct(str(tmp_path)) as programs:
            body = DescriptorBody(os.open(tmp_path / "short", os.O_RDONLY), 300_000, b"")
            result = await programs.run([b"/bin/cat"], body)
            assert result.code is None and "cannot be run: " in result.why
            body.close()

    asyncio.run(asyncio.wait_for(scene(), 30))


class Bad:
    """A large body as a hook may make one."""

    size, data = 300_000, None

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def chunks(self) -> Iterator[bytes]:
        yield b"x" * 1000
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("no more"), SystemExit(3), KeyError()])
def test_a_body_that_breaks_in_any_way_is_told_instead_of_a_result(run: Any, error: BaseException) -> None:
    result = run("cat", Bad(error))
    assert result.code is None
    assert "its input: " in result.why
    assert (str(error) or "KeyError") in result.why


def test_what_it_prints_is_bounded(run: Any) -> None:
    result = run("head -c 10000000 /dev/zero; echo done >&2")
    assert (len(result.output), result.errors) == (OUTPUT, b"done\n")


def test_a_program_that_takes_too_long_is_killed_with_all_that_it_started(run: Any, tmp_path: Path) -> None:
    result = run("sleep 100 & echo $! > pid; wait", timeout=0.5)
    assert result.code is None and "took more than 0.5 seconds" in result.why
    assert_gone(int((tmp_path / "pid").read_text()))


def test_only_so_many_run_at_once_and_only_so_many_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs_module, "MOST", 1)
    monkeypatch.setattr(programs_module, "WAITING", 1)
    os.mkfifo(tmp_path / "go")
    go = os.open(tmp_path / "go", os.O_RDWR)
    script = [SH, b"-c", b"mkdir run && read line <go && echo 1; rmdir run"]

    async def scene() -> None:
        async with _direct(str(tmp_path)) as programs:
            first, second = programs.run(script), programs.run(script)
            refused = await asyncio.wait_for(programs.run(script), 30)
            assert (refused.code, refused.why) == (None, "too many programs wait to be run")
            for one in (first, second):
                os.write(go, b"on\n")
                assert (await asyncio.wait_for(one, 30)).output == b"1\n", "the other ran beside it"
            assert (await asyncio.wait_for(programs.run([SH, b"-c", b"exit 7"]), 30)).code == 7

    asyncio.run(scene())
    os.close(go)


def test_what_a_program_leaves_behind_is_killed(run: Any, tmp_path: Path) -> None:
    assert run("sleep 100 >/dev/null 2>&1 & echo $! > pid").code == 0
    assert_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, new_loop], ids=["asyncio", "the service's"])
def test_a_child_that_nobody_can_kill_keeps_nothing_of_ours_open(tmp_path: Path, loop: Any) -> None:
    async def scene() -> None:
        runner = ProgramRunner(str(tmp_path))
        await runner.run([b"/bin/true"])  # the loop opens what it needs for its first program
        before = len(os.listdir("/proc/self/fd"))
        for number in range(5):
            leaves = b"setsid sh -c 'echo $$ > %d; exec sleep 1000' & until [ -s %d ]; do :; done"
            result = await runner.run([SH, b"-c", leaves % (number, number)], timeout=0.5)
            assert "took more than" in result.why
        for _ in Waiting("as many descriptors as before are open"):
            await asyncio.sleep(0)
            if len(os.listdir("/proc/self/fd")) <= before:
                break

    try:
        with asyncio.Runner(loop_factory=loop) as made:
            made.run(asyncio.wait_for(scene(), 30))
    finally:
        for number in range(5):
            os.kill(int((tmp_path / str(number)).read_text()), signal.SIGKILL)


def assert_gone(pid: int) -> None:
    """Killed; whoever is its parent now may not have reaped it."""
    for _ in Waiting(f"process {pid} is gone", 10):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return
        except (FileNotFoundError, ProcessLookupError):
            return


@pytest.mark.parametrize("argv", [[b"/no/such/program"], [b"/dev/null"], [b"/bin/true", b"a\0b"], []])
def test_what_cannot_be_run_says_why(tmp_path: Path, argv: list[bytes]) -> None:
    async def scene() -> None:
        for kind in (_direct, _by_frames):
            async with kind(str(tmp_path)) as programs:
                result = await asyncio.wait_for(programs.run(argv), 30)
                assert result.code is None
                assert "cannot be run" in result.why

    asyncio.run(scene())


def test_a_spawner_that_refuses_is_quoted_and_asked_again(tmp_path: Path) -> None:
    async def scene() -> None:
        spawner, client = Spawner(str(tmp_path), b"No hook is named.\n"), ProgramsClient()
        client.attach(spawner.connection)
        assert (await client.run([b"/bin/true"])).why == "No hook is named."
        spawner.refuse = b""
        assert (await client.run([b"/bin/true"])).code == 0
        client.close()
        assert (await client.run([b"/bin/true"])).code is None
        spawner.close()

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_a_worker_that_is_lost_is_told_and_the_next_is_made(tmp_path: Path) -> None:
    async def scene() -> None:
        spawner, client = Spawner(str(tmp_path)), ProgramsClient()
        client.attach(spawner.connection)
        running = client.run([SH, b"-c", b"touch there; sleep 100"])
        while not (tmp_path / "there").exists():
            await asyncio.sleep(0)
        spawner.started[0].close()
        assert await running == LOST
        assert (await client.run([b"/bin/true"])).code == 0
        assert len(spawner.started) == 2
        client.close()
        spawner.close()

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_what_runs_ends_with_its_spawner_and_what_comes_goes_to_the_next(tmp_path: Path) -> None:
    async def scene() -> None:
        first, second, client = Spawner(str(tmp_path)), Spawner(str(tmp_path)), ProgramsClient()
        early = client.run([b"/bin/true"])  # before there is anybody
        client.attach(first.connection)
        assert (await early).code == 0
        running = client.run([SH, b"-c", b"touch there; while ! test -e go; do :; done; echo ended"])
        while not (tmp_path / "there").exists():
            await asyncio.sleep(0)
        client.attach(second.connection)
        assert (await client.run([b"/bin/true"])).code == 0
        assert len(second.started) == 1
        (tmp_path / "go").touch()
        assert (await running).output == b"ended\n"
        client.close()
        first.close()
        second.close()

    asyncio.run(asyncio.wait_for(scene(), 60))
