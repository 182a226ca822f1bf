"""What a session may not do without end, and how it is told."""

import asyncio
from asyncio import run

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from openqmail.core.control.rules import Rule, Rules
from openqmail.core.smtpd.bounds import LONGEST, WINDOW, Bounds, Pace
from openqmail.core.smtpd.service import CROWD, READ

NOBODY = b"550 5.1.1 Sorry, no mailbox here by that name.\r\n"
RELAY = Rules({"127.": Rule(True, {"RELAYCLIENT": ""})})


async def begun(server):
    client = await (await server.client()).hello()
    await client.say(b"MAIL FROM:<s@client.example>")
    return client


def test_a_refusal_takes_longer_each_time_and_others_are_served_meanwhile(settings, running, mailboxes):
    async def story():
        async with running(settings, mailboxes=mailboxes, tarpit=2, maxbadrcpt=0) as server:
            late = server.late()
            client, other = await begun(server), await begun(server)
            for _ in range(3):
                assert await client.say(b"RCPT TO:<no@a.example>") == NOBODY
            for seconds in (2, 4, 6):
                client.writer.write(b"RCPT TO:<no@a.example>\r\n")
                reply = asyncio.ensure_future(client.reply())
                assert (await other.say(b"RCPT TO:<alice@a.example>"))[:3] == b"250"
                assert not reply.done()
                assert await late.timer(2) == seconds
                assert await reply == NOBODY
            assert (await client.say(b"RCPT TO:<alice@a.example>"))[:3] == b"250"

    run(story())


@pytest.mark.parametrize("recipient", [b"no%d@a.example", b"x%d@elsewhere.example"])
def test_who_guesses_recipients_is_sent_away(settings, running, mailboxes, recipient):
    async def story():
        async with running(settings, mailboxes=mailboxes, tarpit=0, maxbadrcpt=5) as server:
            client = await begun(server)
            for at in range(4):
                assert (await client.say(b"RCPT TO:<" + recipient % at + b">"))[:2] == b"55"
            client.writer.write(b"RCPT TO:<" + recipient % 5 + b">\r\n")
            assert await client.rest() == b"421 4.7.1 too many recipients were refused\r\n"
            await server.quiet()
            assert server.log.events[-1].end == "guesses"

    run(story())


def test_pipelined_guesses_are_no_quicker(settings, running, mailboxes):
    async def story():
        async with running(settings, mailboxes=mailboxes, tarpit=0, maxbadrcpt=5) as server:
            client = await begun(server)
            client.writer.write(b"".join(b"RCPT TO:<no%d@a.example>\r\n" % at for at in range(1000)))
            said = (await client.rest()).splitlines()
            assert [line[:3] for line in said] == [b"550"] * 4 + [b"421"]
            assert len(mailboxes.asked) <= 5

    run(story())


def test_one_that_goes_while_its_refusal_waits_leaves_nothing(settings, running, mailboxes):
    async def story():
        async with running(settings, mailboxes=mailboxes, tarpit=1, maxbadrcpt=0) as server:
            late = server.late()
            client = await begun(server)
            client.writer.write(b"RCPT TO:<no@a.example>\r\n" * 4)
            while not [one for one in late.timers if one[0] == 1 and "_refuse_late" in repr(one[1])]:
                await asyncio.sleep(0)
            client.writer.transport.abort()
            await server.quiet()
            for _, call in list(late.timers):
                if "_refuse_late" in repr(call):
                    call()

    run(story())


def test_a_relay_client_may_mistype(settings, running, mailboxes):
    async def story():
        changes = {"tarpit": 60, "maxbadrcpt": 1, "maxmessages": 1, "rules": RELAY}
        async with running(settings, mailboxes=mailboxes, **changes) as server:
            client = await begun(server)
            for _ in range(30):
                assert await client.say(b"RCPT TO:<no@a.example>") == NOBODY
            await client.say(b"RSET")
            assert (await client.say(b"MAIL FROM:<>"))[:3] == b"250"

    run(story())


def test_a_connection_has_an_end_of_messages(settings, running):
    async def story():
        async with running(settings, maxmessages=2) as server:
            client = await (await server.client()).hello()
            for _ in range(2):
                await client.data()
                assert (await client.say(b"x\r\n."))[:3] == b"250"
            client.writer.write(b"MAIL FROM:<s@client.example>\r\n")
            assert (await client.rest()).startswith(b"421 4.7.0 enough messages")
            assert len(server.queue.messages) == 2

    run(story())


@pytest.mark.parametrize(("rules", "told"), [(Rules({}), True), (RELAY, False)])
def test_how_many_messages_there_may_be_is_told_to_whom_it_holds_for(settings, running, rules, told):
    async def story():
        async with running(settings, maxmessages=7, rules=rules) as server:
            client = await server.client()
            await client.reply()
            assert (b"MAILMAX=7" in await client.say(b"EHLO x.example")) == told

    run(story())


def test_a_connection_has_an_end_of_recipients(settings, running):
    """The message that has the last of them is still taken."""

    async def story():
        async with running(settings, maxconnectionrecipients=3) as server:
            client = await (await server.client()).hello()
            await client.data()
            assert (await client.say(b"x\r\n."))[:3] == b"250"
            await client.say(b"MAIL FROM:<s@client.example>")
            said = [await client.say(b"RCPT TO:<u%d@a.example>" % at) for at in range(4)]
            assert [one[:9] for one in said] == [b"250 2.1.5"] * 2 + [b"452 4.5.3"] * 2
            await client.say(b"DATA")
            assert (await client.say(b"x\r\n."))[:3] == b"250"
            client.writer.write(b"MAIL FROM:<s@client.example>\r\n")
            assert (await client.rest()).startswith(b"421 4.7.0 enough messages")
            assert [len(envelope.recipients) for envelope, _ in server.queue.messages] == [1, 2]

    run(story())


def test_refused_recipients_of_a_connection_count_and_a_relay_clients_do_not(settings, running):
    async def story():
        changes = {"maxconnectionrecipients": 2, "tarpit": 0, "rcpthosts": frozenset()}
        async with running(settings, **changes) as server:
            client = await begun(server)
            said = [(await client.say(b"RCPT TO:<u@far.example>"))[:3] for _ in range(3)]
            assert said == [b"553", b"553", b"452"]
        async with running(settings, **changes, rules=RELAY) as server:
            client = await begun(server)
            said = [(await client.say(b"RCPT TO:<u@far.example>"))[:3] for _ in range(3)]
            assert said == [b"250"] * 3

    run(story())


def test_recipients_an_hour_are_those_of_the_network(settings, running):
    async def story():
        async with running(settings, recipientsperhour=3) as server:
            first = await begun(server)
            for at in range(3):
                assert (await first.say(b"RCPT TO:<u%d@a.example>" % at))[:3] == b"250"
            second = await begun(server)
            assert (await second.say(b"RCPT TO:<u@a.example>")).startswith(b"450 4.7.1 too many recipients")

    run(story())


def test_a_network_has_so_many_connections_at_once(settings, running):
    async def story():
        async with running(settings, concurrencynetwork=2) as server:
            first = await (await server.client()).hello()
            await (await server.client()).hello()
            assert (await (await server.client()).rest()).startswith(b"421 4.7.0 too many connections")
            assert (await first.say(b"QUIT"))[:3] == b"221"
            while server.service.active > 1:
                await asyncio.sleep(0)
            await (await server.client()).hello()
            server.hang_up()
            await server.quiet()
            while server.gate._taken:
                await asyncio.sleep(0)

    run(story())


def test_errors_have_an_end_of_their_own_number(settings, running):
    async def story():
        async with running(settings, maxerrors=3) as server:
            client = await (await server.client()).hello()
            client.writer.write(b"FOO\r\n" * 10)
            assert [line[:3] for line in (await client.rest()).splitlines()] == [b"500"] * 3 + [b"421"]

    run(story())


def test_a_message_that_crawls_ends_the_session(settings, running):
    async def story():
        async with running(settings, mindatarate=100) as server:
            client = await (await server.client()).hello()
            await client.data()
            [session] = server.service.sessions
            had = session._record.size
            client.writer.write(b"a slow line\r\n")
            while session._record.size == had:
                await asyncio.sleep(0)
            for second in range(int(WINDOW) + 2):
                assert not session._closing or second >= WINDOW
                if not session._closing:
                    session.look(second)
            assert await client.rest() == b"421 4.4.2 the message comes too slowly\r\n"
            await server.quiet()
            assert server.log.events[-1].end == "slow"
            assert not server.queue.messages

    run(story())


def test_a_message_that_crawls_in_chunks_ends_the_session_too(settings, running):
    """Each chunk is there at once; it is the next one that is long in coming."""

    async def story():
        async with running(settings, mindatarate=100) as server:
            client = await begun(server)
            await client.say(b"RCPT TO:<alice@a.example>")
            [session] = server.service.sessions
            for second in range(int(WINDOW)):
                if second % 10 == 0:
                    client.writer.write(b"BDAT 1\r\nx")
                    assert await client.reply() == b"250 2.0.0 ok, go on\r\n"
                session.look(second)
            assert not session._closing
            session.look(int(WINDOW))
            assert await client.rest() == b"421 4.4.2 the message comes too slowly\r\n"
            await server.quiet()
            assert server.log.events[-1].end == "slow"
            assert not server.queue.messages

    run(story())


def test_chunks_that_come_quickly_enough_may_take_as_long_as_they_like(settings, running):
    async def story():
        async with running(settings, mindatarate=100) as server:
            client = await begun(server)
            await client.say(b"RCPT TO:<alice@a.example>")
            [session] = server.service.sessions
            for second in range(0, 3 * int(WINDOW), 10):
                client.writer.write(b"BDAT 1000\r\n" + (b"x" * 98 + b"\r\n") * 10)
                assert (await client.reply())[:3] == b"250"
                session.look(second)
            assert (await client.say(b"BDAT 0 LAST"))[:3] == b"250"
            session.look(10 * WINDOW)
            assert (await client.say(b"NOOP"))[:3] == b"250"
            assert len(server.queue.messages) == 1

    run(story())


def test_time_in_which_we_do_not_read_is_none_of_the_clients(settings, running):
    async def story():
        async with running(settings, mindatarate=100) as server:
            server.queue.hold = True
            client = await (await server.client()).hello()
            await client.data()
            [session] = server.service.sessions
            session.look(0)
            client.writer.write((b"x" * 98 + b"\r\n") * 20_000)
            while not session._paused:
                await asyncio.sleep(0)
            for second in range(1, 3 * int(WINDOW)):
                session.look(second)
            assert not session._closing
            session._transport.abort()

    run(story())


def test_a_command_that_comes_a_byte_at_a_time_times_out(settings, running):
    async def story():
        async with running(settings, timeoutsmtpd=30) as server:
            client = await (await server.client()).hello()
            [session] = server.service.sessions
            for second in range(40):
                session.look(second)
                if session._closing:
                    break
                client.writer.write(b"N")
                had = session._record.size
                while session._record.size == had:
                    await asyncio.sleep(0)
            assert (await client.rest()).startswith(b"421 4.4.2 timeout")

    run(story())


@given(st.integers(0, 60), st.integers(0, 50), st.integers(1, 60))
def test_delays_grow_to_a_bound_and_the_end_comes_at_its_number(tarpit, most, refused):
    bounds = Bounds(messages=0, refused=most, tarpit=tarpit)
    delays = []
    for at in range(1, refused + 1):
        assert bounds.refuse() == (most == 0 or at < most)
        delays.append(bounds.delay)
    assert delays == sorted(delays) and max(delays) <= LONGEST


@examples(max_examples=50)
@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=900), st.integers(1, 200))
def test_only_a_whole_window_that_is_too_slow_counts(seconds, least):
    pace = Pace(least)
    size, since, before = 0, 0, 0
    assert not pace.too_slow(0, 0)
    for now, came in enumerate(seconds, 1):
        size += came
        slow = now - since >= WINDOW and size - before < least * (now - since)
        assert pace.too_slow(now, size) == slow
        if slow:
            return
        if now - since >= WINDOW:
            since, before = now, size


@given(st.lists(st.booleans(), max_size=1000))
def test_a_pause_of_ours_gives_a_client_its_length_and_no_new_window(paused):
    pace, its_own = Pace(1), 0
    assert not pace.too_slow(0, 0)
    for now, ours in enumerate(paused, 1):
        its_own += not ours
        if pace.too_slow(now, 0, ours):
            assert its_own == WINDOW
            return
    assert its_own < WINDOW


def test_in_a_crowd_each_session_reads_half_as_much_at_once(settings, running):
    """What is read of a large message stays in memory until the disk has it."""

    async def story():
        async with running(settings, concurrencyincoming=2 * CROWD) as server:
            for _ in range(CROWD):
                await (await server.client()).hello()
            first = next(iter(server.service.sessions))
            assert len(first.get_buffer(-1)) == READ
            last = await (await server.client()).hello()
            assert {len(one.get_buffer(-1)) for one in server.service.sessions} == {READ // 2}
            assert await last.data() == b"354 go ahead\r\n"
            text = b"".join(b"line %d\r\n" % number for number in range(50_000))
            assert (await last.say(b"\r\n" + text + b"."))[:3] == b"250"
            assert bytes(server.queue.messages[0][1]).endswith(text.replace(b"\r\n", b"\n"))
            await last.say(b"QUIT")
            assert await last.rest() == b""
            async with asyncio.timeout(10):
                while server.service.active > CROWD:
                    await asyncio.sleep(0)
            assert len(first.get_buffer(-1)) == READ

    run(story())
