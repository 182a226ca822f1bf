"""What a client is told at RCPT where recipients are looked up, and how often that is done."""

import asyncio

from openqmail.core.control.rules import Rule, Rules
from openqmail.core.hooks import Reject
from openqmail.core.log import Warn
from openqmail.core.smtpd import recipients
from openqmail.core.values import Reply

RELAY = Rules({"127.": Rule(True, {"RELAYCLIENT": ""})})
NOBODY = b"550 5.1.1 Sorry, no mailbox here by that name.\r\n"
PUT_OFF = b"451 4.3.0 this mailbox cannot take mail just now, try again later\r\n"


def run(work):
    asyncio.run(work)


async def begun(server):
    client = await (await server.client()).hello()
    assert (await client.say(b"MAIL FROM:<s@client.example>"))[:3] == b"250"
    return client


async def until(true):
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0)


def test_who_has_no_mailbox_is_refused_and_the_others_get_the_message(settings, running, mailboxes):
    async def story():
        async with running(settings, mailboxes=mailboxes) as server:
            client = await begun(server)
            assert await client.say(b"RCPT TO:<nobody@a.example>") == NOBODY
            assert (await client.say(b"RCPT TO:<alice@a.example>"))[:3] == b"250"
            assert await client.say(b"RCPT TO:<nobody-else@a.example>") == NOBODY
            assert (await client.say(b"DATA"))[:3] == b"354"
            assert (await client.say(b"x\r\n."))[:3] == b"250"
            [(envelope, _)] = server.queue.messages
            assert [one.address for one in envelope.recipients] == [b"alice@a.example"]

    run(story())


def test_a_message_for_nobody_is_not_taken(settings, running, mailboxes):
    async def story():
        async with running(settings, mailboxes=mailboxes) as server:
            client = await begun(server)
            assert await client.say(b"RCPT TO:<nobody@a.example>") == NOBODY
            assert (await client.say(b"DATA"))[:3] == b"554"
            assert not server.queue.messages

    run(story())


def test_what_would_be_deferred_is_put_off_and_only_the_log_says_why(settings, running, mailboxes):
    async def story():
        async with running(settings, mailboxes=mailboxes) as server:
            client = await begun(server)
            assert await client.say(b"RCPT TO:<later@a.example>") == PUT_OFF
            said = [event.line() for event in server.log.events if isinstance(event, Warn)]
            assert said == [
                b"warning: mail for later@a.example is put off: "
                b"Unable_to_switch_to_/home/later:_access_denied._(#4.3.0)"
            ]

    run(story())


def test_one_user_with_many_addresses_does_not_fill_the_log(settings, running, mailboxes):
    async def story():
        async with running(settings, mailboxes=mailboxes) as server:
            client = await begun(server)
            for round in (1, 2):
                for at in range(30):
                    assert await client.say(b"RCPT TO:<later-%d-%d@a.example>" % (round, at)) == PUT_OFF
                said = [event for event in server.log.events if isinstance(event, Warn)]
                assert len(said) == round, "once for each reason, and again later"
                server.clock.advance(recipients.FRESH)

    run(story())


def test_only_recipients_of_this_host_are_looked_up_as_they_are_routed(settings, running, mailboxes):
    async def story():
        changes = {
            "rules": RELAY,
            "virtualdomains": {b"lists.example": b"alice-lists"},
            "percenthack": frozenset([b"hack.example"]),
            "envnoathost": b"a.example",
        }
        async with running(settings, mailboxes=mailboxes, **changes) as server:
            client = await begun(server)
            for address in (b"x@far.example", b"y@lists.example", b"z%A.example@hack.example", b"postmaster"):
                assert (await client.say(b"RCPT TO:<%s>" % address))[:3] == b"250"
            assert mailboxes.asked == [
                b"alice-lists-y@lists.example",
                b"z@A.example",
                b"postmaster@a.example",
            ]

    run(story())


def test_policy_and_hooks_are_asked_first(settings, running, mailboxes):
    class Hook:
        def rcpt(self, session, recipient):
            return Reject(Reply(550, b"5.7.1", (b"not you",))) if b"hook" in recipient.address else None

    async def story():
        async with running(settings, [("hook", Hook())], mailboxes) as server:
            client = await begun(server)
            assert (await client.say(b"RCPT TO:<no-hook@a.example>"))[:13] == b"550 5.7.1 not"
            assert (await client.say(b"RCPT TO:<x@far.example>"))[:3] == b"553"
            assert not mailboxes.asked
            assert await client.say(b"RCPT TO:<nobody@a.example>") == NOBODY
            assert (await client.say(b"RCPT TO:<alice@a.example>"))[:3] == b"250"

    run(story())


def test_an_answer_holds_for_seconds_and_no_longer(settings, running, mailboxes):
    async def story():
        async with running(settings, mailboxes=mailboxes) as server:
            first, second = await begun(server), await begun(server)
            for client in (first, second, first):
                assert await client.say(b"RCPT TO:<nobody@a.example>") == NOBODY
                assert (await client.say(b"RCPT TO:<alice@a.example>"))[:3] == b"250"
            assert mailboxes.asked == [b"nobody@a.example", b"alice@a.example"]
            server.clock.advance(recipients.FRESH)
            assert await client.say(b"RCPT TO:<nobody@a.example>") == NOBODY
            assert mailboxes.asked[2:] == [b"nobody@a.example"]

    run(story())


def test_guesses_do_not_pile_up(settings, running, mailboxes, monkeypatch):
    monkeypatch.setattr(recipients, "MOST", 8)

    async def story():
        async with running(settings, mailboxes=mailboxes, maxbadrcpt=0, tarpit=0) as server:
            client = await begun(server)
            for at in range(50):
                assert await client.say(b"RCPT TO:<no%d@a.example>" % at) == NOBODY
                assert len(server.service.recipients._known) <= 8
            assert len(mailboxes.asked) == 50

    run(story())


def test_who_asks_for_the_same_address_meanwhile_waits_for_the_same_answer(settings, running, mailboxes):
    async def story():
        mailboxes.hold = True
        async with running(settings, mailboxes=mailboxes) as server:
            clients = [await begun(server) for _ in range(3)]
            for client in clients:
                client.writer.write(b"RCPT TO:<nobody@a.example>\r\nNOOP\r\n")
            await until(lambda: mailboxes.asked)
            clients.pop().vanish()
            await until(lambda: server.service.active == 2)
            mailboxes.answer(0)
            for client in clients:
                assert await client.reply() == NOBODY
                assert (await client.reply())[:3] == b"250"
            assert mailboxes.asked == [b"nobody@a.example"]

    run(story())


def test_who_cannot_be_looked_up_soon_is_taken(settings, running, mailboxes, monkeypatch):
    monkeypatch.setattr(recipients, "PATIENCE", 0.01)

    async def story():
        mailboxes.hold = True
        async with running(settings, mailboxes=mailboxes) as server:
            client = await begun(server)
            assert (await client.say(b"RCPT TO:<nobody@a.example>"))[:3] == b"250"
            mailboxes.hold = False
            mailboxes.answer(0)
            server.clock.advance(recipients.FRESH)
            assert await client.say(b"RCPT TO:<nobody@a.example>") == NOBODY
            assert (await client.say(b"DATA"))[:3] == b"354"

    run(story())


def test_a_session_that_is_to_drain_ends_after_the_answer(settings, running, mailboxes):
    async def story():
        mailboxes.hold = True
        async with running(settings, mailboxes=mailboxes) as server:
            client = await begun(server)
            client.writer.write(b"RCPT TO:<nobody@a.example>\r\n")
            await until(lambda: mailboxes.asked)
            server.service.drain()
            mailboxes.answer(0)
            assert await client.reply() == NOBODY
            assert (await client.say(b"RSET"))[:3] == b"250"
            assert (await client.rest())[:3] == b"421"

    run(story())
