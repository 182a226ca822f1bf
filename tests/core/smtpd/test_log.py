"""What the log says of SMTP sessions: one line at the end, one for each message, one for each refusal."""

import asyncio
import re
import socket
import struct

import pytest

from openqmail.core import log
from openqmail.core.control.rules import Rule, Rules
from openqmail.core.hooks import Defer, Reject
from openqmail.core.smtpd import record
from openqmail.core.values import QueueFull, Reply

DENY = Rules({"": Rule(False, {})})


def run(work):
    asyncio.run(work)


def lines(server):
    """Of smtpd, the client's port left out."""
    kinds = log.SmtpdAccepted, log.SmtpdRefused
    found = [one.line() for one in server.log.events if isinstance(one, kinds)]
    return [re.sub(rb"127.0.0.1:\d+", b"C", line) for line in found]


def reset(client):
    """Leave without a word, not even of TCP's."""
    peer = client.writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


async def session(server):
    """The event at the end of the one session."""
    async with asyncio.timeout(10):
        while not (found := [one for one in server.log.events if isinstance(one, log.SmtpdSession)]):
            await asyncio.sleep(0)
    [one] = found
    return one


async def end(server):
    return (await session(server)).end


def test_an_accepted_message_is_tied_to_its_client(settings, running):
    async def story():
        async with running(settings) as server:
            client = await (await server.client()).hello()
            await client.data(b"alice@a.example", b"bob@a.example")
            assert await client.say(b"x\r\n.") == b"250 2.0.0 ok message 1\r\n"
            assert lines(server) == [
                b"smtpd: accepted msg 1: client C helo client.example from <s@client.example> recipients 2"
            ]

    run(story())


def test_a_session_is_one_line_with_all_that_came_of_it(settings, running):
    async def story():
        async with running(settings) as server:
            client = await (await server.client()).hello()
            port = client.writer.get_extra_info("sockname")[1]
            for _ in range(2):
                await client.data(b"alice@a.example", b"bob@a.example")
                await client.say(b"x\r\n.")
            await client.say(b"MAIL FROM:<>")
            await client.say(b"RCPT TO:<x@elsewhere.example>")
            assert not [one for one in server.log.events if isinstance(one, log.SmtpdSession)]
            await client.say(b"QUIT")
            one = await session(server)
            assert (one.end, one.client, one.port, one.service) == ("quit", "127.0.0.1", port, "smtp")
            assert (one.helo, one.messages, one.recipients, one.refused) == (b"client.example", 2, 4, 1)
            sent = b"MAIL FROM:<s@client.example>\r\nRCPT TO:<alice@a.example>\r\n"
            sent += b"RCPT TO:<bob@a.example>\r\nDATA\r\nx\r\n.\r\n"
            more = b"EHLO client.example\r\nMAIL FROM:<>\r\nRCPT TO:<x@elsewhere.example>\r\nQUIT\r\n"
            assert one.size == 2 * len(sent) + len(more)

    run(story())


def test_each_refused_command_is_a_line_with_what_it_was_about(settings, running, mailboxes):
    async def story():
        async with running(settings, mailboxes=mailboxes) as server:
            client = await server.client()
            await client.reply()
            said = [
                b"MAIL FROM:<early@c.example>",
                b"EHLO client.example",
                b"RCPT TO:<early@a.example>",
                b"MAIL FROM:<s@c.example>",
                b"RCPT TO:<x@elsewhere.example>",
                b"RCPT TO:<nobody@a.example>",
                b"RCPT TO: broken <",
                b"DATA",
                b"ETRN a.example",
            ]
            client.writer.write(b"\r\n".join(said) + b"\r\n")  # pipelined: each still has its own facts
            for _ in said:
                await client.reply()
            inside = b"client C helo client.example from <s@c.example> text "
            assert lines(server) == [
                b"smtpd: refused mail <early@c.example>: code 503 client C helo - "
                b"text 5.5.1_EHLO_or_HELO_first",
                b"smtpd: refused rcpt <early@a.example>: code 503 client C helo client.example "
                b"text 5.5.1_MAIL_first",
                b"smtpd: refused rcpt <x@elsewhere.example>: code 553 " + inside + b"5.7.1_sorry,"
                b"_that_domain_isn't_in_my_list_of_allowed_rcpthosts",
                b"smtpd: refused rcpt <nobody@a.example>: code 550 " + inside + b"5.1.1_Sorry,"
                b"_no_mailbox_here_by_that_name.",
                *[line for line in lines(server) if b"broken" in line],
                b"smtpd: refused data: code 554 " + inside + b"5.5.1_no_valid_recipients",
                b"smtpd: refused etrn: code 502 " + inside + b"5.5.1_command_not_implemented",
            ]
            assert sum(b"refused rcpt <TO:_broken_<>: code 501" in line for line in lines(server)) == 1

    run(story())


def test_a_refused_message_is_a_line(settings, running):
    async def story():
        async with running(settings, databytes=1000) as server:
            client = await (await server.client()).hello()
            server.queue.error = QueueFull("full")
            await client.data()
            assert (await client.say(b"x\r\n."))[:3] == b"452"
            await client.data()
            assert (await client.say((b"x" * 99 + b"\r\n") * 20 + b"."))[:3] == b"552"
            assert [(line.split()[2], line.split()[4]) for line in lines(server)] == [
                (b"message:", b"452"),
                (b"message:", b"552"),
            ]
            assert all(b"from <s@client.example>" in line for line in lines(server))

    run(story())


@pytest.mark.parametrize(
    "line",
    [b"c2VjcmV0", b"AUTH PLAIN AHVzZXIAc2VjcmV0", b"AUTH c2VjcmV0", b"PASS c2VjcmV0", b"RSET c2VjcmV0"],
)
def test_a_password_is_never_in_the_log(settings, running, line):
    async def story():
        async with running(settings) as server:
            client = await (await server.client()).hello()
            await client.say(line)
            await client.say(b"QUIT")
            await session(server)
            assert not any(b"c2VjcmV0" in event.line() for event in server.log.events)

    run(story())


def test_a_client_that_guesses_on_fills_no_disk(settings, running, monkeypatch):
    monkeypatch.setattr(record, "TOLD", 5)

    async def story():
        async with running(settings, tarpit=0, maxbadrcpt=0) as server:
            client = await (await server.client()).hello()
            await client.say(b"MAIL FROM:<>")
            for at in range(12):
                await client.say(b"RCPT TO:<guess%d@elsewhere.example>" % at)
            await client.say(b"QUIT")
            assert (await session(server)).refused == 12
            assert len(lines(server)) == 5

    run(story())


def test_what_a_client_says_is_escaped_and_cut(settings, running):
    async def story():
        async with running(settings) as server:
            client = await (await server.client()).hello()
            await client.say(b'MAIL FROM:<"new\\ msg 1 %s"@c.example>')
            await client.say(b"RCPT TO:<\x1b[2J\xff@" + b"x" * 1500 + b">")
            await client.say(b"QUIT")
            await session(server)
            [line] = lines(server)
            assert b" from <new_msg_1__s@c.example> " in line
            assert len(line) < 1000 and all(0x20 <= code < 0x7F for code in line)

    run(story())


def test_how_a_session_ended(settings, running, mailboxes):
    async def hang_up(server, client):
        client.writer.close()

    async def bare(server, client):
        client.writer.write(b"NOOP\n")

    async def many(server, client):
        client.writer.write(b"NONSENSE\r\n" * 20)

    async def leave(server, client):
        server.service.drain()

    async def break_off(server, client):
        server.service.abort()

    async def story(act, word, refused):
        async with running(settings) as server:
            client = await (await server.client()).hello()
            await act(server, client)
            one = await session(server)
            assert (one.end, one.refused) == (word, refused)
            if word == "violation":
                assert b"refused line: code 500" in lines(server)[0]

    for act, word, refused in (
        (hang_up, "eof", 0),
        (bare, "violation", 1),
        (many, "errors", 20),
        (leave, "shutdown", 0),
        (break_off, "aborted", 0),
    ):
        run(story(act, word, refused))

    async def lost():
        async with running(settings) as server:
            client = await (await server.client()).hello()
            reset(client)
            assert await end(server) in ("lost", "eof")  # as the loop finds it

    run(lost())


def test_who_is_turned_away_at_once_has_a_line(settings, running):
    async def story(word, **changes):
        async with running(settings, **changes) as server:
            clients = [await server.client() for _ in range(1 + (word != "denied"))]
            await clients[-1].rest()
            one = await session(server)
            assert (one.end, one.messages, one.helo) == (word, 0, b"")

    run(story("denied", rules=DENY))
    run(story("busy", concurrencyincoming=1))
    run(story("rate", connectionsperhour=1))


class Strict:
    def __init__(self, code):
        self.code = code

    async def connect(self, session):
        reply = Reply(self.code, b"", (b"not you",))
        return Reject(reply) if self.code >= 500 else Defer(reply)


def test_a_hook_that_refuses_the_connection_is_a_line(settings, running):
    async def story(code, word):
        async with running(settings, [("strict", Strict(code))]) as server:
            client = await server.client()
            await client.reply()
            if code != 421:
                await client.say(b"QUIT")
            assert await end(server) == word
            assert lines(server) == [b"smtpd: refused connect: code %d client C helo - text not_you" % code]

    run(story(554, "quit"))
    run(story(421, "refused"))


def test_a_message_that_nobody_waits_for_any_more_is_still_told(settings, running):
    async def story():
        async with running(settings) as server:
            server.queue.hold = True
            client = await (await server.client()).hello()
            await client.data()
            client.writer.write(b"x\r\n.\r\n")
            async with asyncio.timeout(10):
                while not server.queue.answers:
                    await asyncio.sleep(0)
            reset(client)
            await session(server)
            server.queue.answers[0].set_result(server.queue.messages and _id())
            async with asyncio.timeout(10):
                while not lines(server):
                    await asyncio.sleep(0)
            assert b"accepted msg 7: " in lines(server)[0]

    run(story())


def _id():
    from openqmail.core.values import MessageId

    return MessageId(7, b"k" * 24)
