"""What a client sees of the gate: limits an hour, and a gate that takes its time."""

import asyncio
import socket

import msgspec

from openqmail.core.control.rules import Rule, Rules
from openqmail.core.ports import CONNECTIONS
from openqmail.core.smtpd import session


def run(work):
    asyncio.run(work)


class SlowGate:
    """Answers when it is told to."""

    mechanisms = frozenset()

    def __init__(self):
        self.asked, self.released = [], []
        self.event = asyncio.Event()

    def lease(self, counter, count=1):
        return self._ask(counter)

    def spend(self, rate, key, count=1):
        return self._ask((rate, key))

    def release(self, counter, count=1):
        self.released.append(counter)

    def _ask(self, what):
        future = asyncio.get_running_loop().create_future()
        self.asked.append((what, future))
        self.event.set()
        return future

    async def next(self):
        async with asyncio.timeout(10):
            while not self.asked:
                self.event.clear()
                await self.event.wait()
        return self.asked.pop(0)


def slow(server):
    """Put a gate that waits for the test before a service."""
    gate = SlowGate()
    server.service.reconfigure(msgspec.structs.replace(server.service.context, gate=gate))
    return gate


def test_too_many_connections_an_hour_from_a_network_get_421(settings, running):
    async def story():
        async with running(settings, connectionsperhour=2) as server:
            for _ in range(2):
                assert (await (await server.client()).reply())[:3] == b"220"
            client = await server.client()
            assert (await client.rest()).startswith(b"421 4.7.0 too many connections from your network")
            server.hang_up()
            await server.quiet()
            again = await (await server.client()).reply()
            assert again.startswith(b"421 4.7.0"), "a rate does not come back with the connection"

    run(story())


def test_too_many_messages_an_hour_from_a_network_get_450_and_the_session_goes_on(settings, running):
    async def story():
        async with running(settings, messagesperhour=2) as server:
            for _ in range(2):
                client = await (await server.client()).hello()
                await client.data()
                assert (await client.say(b"x\r\n."))[:3] == b"250"
            refused = await client.say(b"MAIL FROM:<s@client.example>")
            assert refused.startswith(b"450 4.7.1 too many messages from your network")
            assert (await client.say(b"RCPT TO:<alice@a.example>"))[:3] == b"503"
            assert (await client.say(b"NOOP"))[:3] == b"250"
            assert len(server.queue.messages) == 2

    run(story())


def test_relay_clients_are_not_counted(settings, running):
    rules = Rules({"127.": Rule(True, {"RELAYCLIENT": ""})})

    async def story():
        async with running(settings, rules=rules, connectionsperhour=1, messagesperhour=1) as server:
            for _ in range(3):
                client = await (await server.client()).hello()
                await client.data()
                assert (await client.say(b"x\r\n."))[:3] == b"250"

    run(story())


def test_a_client_waits_for_the_gate_and_what_it_said_early_is_not_lost(settings, running):
    async def story():
        async with running(settings, connectionsperhour=5, messagesperhour=5) as server:
            gate = slow(server)
            client = await server.client()
            client.writer.write(b"EHLO early.example\r\nMAIL FROM:<s@early.example>\r\n")
            (rate, network), answer = await gate.next()
            assert (rate, network) == (b"connectionsperhour", b"127.0.0.0/24")
            answer.set_result(True)
            counter, answer = await gate.next()
            assert counter == CONNECTIONS
            early = asyncio.ensure_future(client.reply())
            for _ in range(20):
                await asyncio.sleep(0)
            assert not early.done()
            answer.set_result(True)
            assert (await early)[:3] == b"220"
            assert (await client.reply())[:3] == b"250"
            (rate, _), answer = await gate.next()
            assert rate == b"messagesperhour"
            answer.set_result(True)
            assert (await client.reply())[:3] == b"250"

    run(story())


def test_a_gate_that_says_no_later_is_no_other_than_one_that_says_it_at_once(settings, running):
    async def story():
        async with running(settings, messagesperhour=5) as server:
            gate = slow(server)
            refused = await server.client()
            (await gate.next())[1].set_result(False)
            assert (await refused.rest()).startswith(b"421 too many connections")
            client = await server.client()
            (await gate.next())[1].set_result(True)
            await client.hello()
            client.writer.write(b"MAIL FROM:<s@x.example>\r\n")
            (await gate.next())[1].set_result(False)
            assert (await client.reply()).startswith(b"450 4.7.1")
            assert gate.released == []

    run(story())


def test_a_lease_that_comes_when_the_client_is_gone_is_given_back(settings, running):
    async def story():
        async with running(settings) as server:
            gate = slow(server)
            client = await server.client()
            _, answer = await gate.next()
            client.writer.transport.abort()
            [waiting] = server.service.sessions
            waiting.abort()
            while server.service.active:
                await asyncio.sleep(0)
            answer.set_result(True)
            await asyncio.sleep(0)
            assert gate.released == [CONNECTIONS]

    run(story())


def test_draining_sends_away_who_still_waits_for_the_gate(settings, running):
    async def story():
        async with running(settings) as server:
            gate = slow(server)
            client = await server.client()
            _, answer = await gate.next()
            server.service.drain()
            assert (await client.rest()).startswith(b"421 4.3.2")
            answer.set_result(True)
            await asyncio.sleep(0)
            assert gate.released == [CONNECTIONS]
            assert server.service.active == 0

    run(story())


def test_a_client_does_not_wait_for_a_gate_for_ever(settings, running):
    async def story():
        async with running(settings) as server:
            gate = slow(server)
            client = await server.client()
            await gate.next()
            [waiting] = server.service.sessions
            for _ in range(session.PATIENCE + 1):
                waiting.look(0.0)
            assert (await client.rest()).startswith(b"421")

    run(story())


def test_a_denied_client_costs_no_lease(settings, running):
    async def story():
        async with running(settings, rules=Rules({"127.": Rule(False, {})}), connectionsperhour=1) as server:
            gate = slow(server)
            with socket.create_connection(("127.0.0.1", server.port)):
                assert (await (await server.client()).rest())[:3] == b"554"
            assert gate.asked == []

    run(story())


def test_what_a_loop_reads_although_it_was_told_not_to_is_not_lost(settings, running):
    """uvloop begins to read behind connection_made, whatever was said in there."""

    async def story():
        async with running(settings) as server:
            gate = slow(server)
            client = await server.client()
            _, answer = await gate.next()
            [waiting] = server.service.sessions
            for piece in (b"EHLO early.ex", b"ample\r\nNOOP\r\n"):
                waiting.get_buffer(-1)[: len(piece)] = piece
                waiting.buffer_updated(len(piece))
            assert waiting.eof_received()
            answer.set_result(True)
            assert [line[:4] for line in (await client.rest()).splitlines() if line[3:4] == b" "] == [
                b"220 ",
                b"250 ",
                b"250 ",
            ]

    run(story())
