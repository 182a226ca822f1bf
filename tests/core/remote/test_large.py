"""Bodies that are not in memory: read off the loop, sent as fast as the peer takes them."""

import asyncio
import threading

import pytest

from openqmail.core.values import Outcome

LINE = b"0123456789" * 7 + b"\n"


class Streamed:
    """A body of so many bytes that exists only while it is read."""

    data = None

    def __init__(self, size, fail_at=None, first=b"Subject: large\n\n"):
        self.count = size // len(LINE)
        self.size = len(first) + self.count * len(LINE)
        self.first, self.fail_at = first, fail_at
        self.readings, self.chunks_read, self.threads = 0, 0, set()

    def chunks(self):
        self.readings += 1
        yield self.first
        block = LINE * 900
        for start in range(0, self.count, 900):
            self.threads.add(threading.current_thread())
            self.chunks_read += 1
            if self.fail_at is not None and self.readings == 2 and start >= self.fail_at:
                raise OSError("the disk is gone")
            yield block[: len(LINE) * min(900, self.count - start)]


def deliver(scene, answers, body, **changes):
    return asyncio.run(asyncio.wait_for(delivered(scene, answers, body, **changes), 60))


async def delivered(scene, answers, body, **changes):
    async with scene.Peer(answers) as peer:
        async with scene.remote(scene.settings(smtproutes=scene.to(peer), **changes)) as remote:
            (first,) = await remote.deliver(scene.job(body))
            (second,) = await remote.deliver(scene.job())
        return first, second, peer


def test_a_large_body_arrives_whole_and_is_never_read_on_the_loop(scene):
    body = Streamed(8_000_000)
    first, second, peer = deliver(scene, {}, body)
    assert (first.outcome, second.outcome) == (Outcome.SUCCESS, Outcome.SUCCESS)
    assert peer.connections == 1
    received = peer.messages[0].replace(b"\r\n", b"\n")
    assert received == b"Subject: large\n\n" + LINE * body.count
    assert threading.current_thread() not in body.threads
    sent = body.size + received.count(b"\n")
    assert any(b" SIZE=%d" % sent in command for command in peer.commands)
    assert not any(b"8BITMIME" in command for command in peer.commands)


def test_hooks_that_hang_in_threads_do_not_keep_a_large_body_from_its_way(scene):
    """asyncio.to_thread is what they are advised to use."""
    over = threading.Event()

    async def main():
        stuck = [asyncio.create_task(asyncio.to_thread(over.wait)) for _ in range(100)]
        try:
            result, _, _ = await asyncio.wait_for(delivered(scene, {}, Streamed(1_000_000)), 20)
            return result
        finally:
            over.set()
            await asyncio.gather(*stuck)

    assert asyncio.run(main()).outcome is Outcome.SUCCESS


def test_eight_bits_anywhere_in_a_large_body_are_announced(scene):
    first, _, peer = deliver(scene, {}, Streamed(1_000_000, first=b"Subject: \xe4\n\n"))
    assert first.outcome is Outcome.SUCCESS
    assert any(b"BODY=8BITMIME" in command for command in peer.commands)


def test_a_peer_that_stops_reading_is_given_up_and_memory_does_not_grow(scene):
    class Deaf(scene.Peer):
        async def _message(self, reader):
            reader._transport.pause_reading()
            await asyncio.Event().wait()

    async def main():
        body = Streamed(60_000_000)
        async with Deaf() as peer:
            given = scene.settings(smtproutes=scene.to(peer), timeoutremote=0.5)
            async with scene.remote(given) as remote:
                (result,) = await remote.deliver(scene.job(body))
        return result, body.chunks_read

    result, chunks_read = asyncio.run(asyncio.wait_for(main(), 60))
    assert result.outcome is Outcome.DEFERRAL
    assert not result.host, "what stands in it may be to blame"
    assert result.text == b"Connected to 127.0.0.1 but connection died. (#4.4.2)\n"
    whole = 60_000_000 // (len(LINE) * 900) + 1
    assert chunks_read < whole * 1.9, "the body was read to its end although nobody took it"


@pytest.mark.parametrize(("slowly", "outcome"), [(True, Outcome.DEFERRAL), (False, Outcome.SUCCESS)])
def test_a_peer_that_takes_each_piece_just_in_time_is_given_up_in_bounded_time(
    scene, monkeypatch, slowly, outcome
):
    """Each piece wins it `timeoutremote` again, so 60 MB could hold a slot for days."""
    monkeypatch.setattr("openqmail.core.remote.streaming.SECONDS_TO_TAKE", 0.5 if slowly else 30.0)
    monkeypatch.setattr("openqmail.core.remote.streaming.SLOWEST", 1e12)
    monkeypatch.setattr("openqmail.core.remote.smtp.IDLE_SECONDS", 1.0)  # so often is the time looked at

    class Slow(scene.Peer):
        async def _message(self, reader):
            if not slowly:
                return await super()._message(reader)
            while await reader.read(20_000):
                await asyncio.sleep(0.02)
            raise ConnectionResetError

    async def main():
        body = Streamed(60_000_000 if slowly else 2_000_000)
        async with Slow() as peer:
            given = scene.settings(smtproutes=scene.to(peer), timeoutremote=40)
            async with scene.remote(given) as remote:
                (result,) = await remote.deliver(scene.job(body))
        return result

    result = asyncio.run(asyncio.wait_for(main(), 60))
    assert result.outcome is outcome and not result.host
    if slowly:
        assert result.text == b"Connected to 127.0.0.1 but it took the message too slowly. (#4.4.2)\n"


@pytest.mark.parametrize("last", [b"552 5.3.4 too big\r\n", b"421 4.3.2 going down\r\n"])
def test_a_refusal_in_the_middle_of_a_body_is_the_result(scene, last):
    class Impatient(scene.Peer):
        async def _session(self, reader, writer):
            self.writer = writer
            await super()._session(reader, writer)

        async def _message(self, reader):
            await reader.readexactly(100_000)
            self.writer.write(last)
            while await reader.read(1 << 16):
                pass
            raise ConnectionResetError

    async def main():
        body = Streamed(20_000_000)
        async with Impatient() as peer:
            async with scene.remote(scene.settings(smtproutes=scene.to(peer))) as remote:
                (result,) = await remote.deliver(scene.job(body))
                await peer.ended.wait()
            return result, peer.connections

    result, connections = asyncio.run(asyncio.wait_for(main(), 60))
    quoted = b"127.0.0.1 failed after I sent the message.\nRemote host said: %s\n" % last.strip()
    assert result.text == quoted and not result.host
    assert result.outcome is (Outcome.FAILURE if last.startswith(b"5") else Outcome.DEFERRAL)
    assert connections == 1


def test_a_body_that_cannot_be_read_to_its_end_is_deferred_and_never_looks_whole(scene):
    first, second, peer = deliver(scene, {}, Streamed(3_000_000, fail_at=20_000))
    assert (first.outcome, first.text) == (Outcome.DEFERRAL, b"Unable to read message. (#4.3.0)\n")
    assert second.outcome is Outcome.SUCCESS
    assert peer.connections == 2
    assert len(peer.messages) == 1


def test_what_smtp_cannot_carry_is_found_before_anybody_is_called(scene):
    first, second, peer = deliver(scene, {}, Streamed(1_000_000, first=b"a\rb\n"))
    assert first.outcome is Outcome.FAILURE
    assert first.text.startswith(b"Sorry, SMTP cannot carry this message: it holds a carriage return")
    assert second.outcome is Outcome.SUCCESS
    assert len(peer.messages) == 1
