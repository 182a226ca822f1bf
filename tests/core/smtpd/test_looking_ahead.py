"""Recipients whose RCPT commands came together are looked up together, and the replies are the same."""

import asyncio
from unittest import mock

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from openqmail.core.control.rules import Rule, Rules
from openqmail.core.hooks import Reject
from openqmail.core.log import Warn
from openqmail.core.smtpd import bounds, recipients
from openqmail.core.smtpd.bounds import Bounds
from openqmail.core.values import Reply

RELAY = Rules({"127.": Rule(True, {"RELAYCLIENT": ""})})
NOBODY = b"550 5.1.1 Sorry, no mailbox here by that name.\r\n"
PUT_OFF = b"451 4.3.0 this mailbox cannot take mail just now, try again later\r\n"


def rcpt(*names, host=b"a.example"):
    return b"".join(b"RCPT TO:<%s@%s>\r\n" % (name, host) for name in names)


def numbered(count, name=b"u"):
    return [name + b"%d" % at for at in range(count)]


def home(*names):
    return [name + b"@a.example" for name in names]


@pytest.fixture
def story(settings, running, mailboxes):
    """`story(what, **changes of settings)` runs `what(server, client)` in a transaction that is open."""

    def run(what, hooks=(), **changes):
        async def whole():
            async with running(settings, hooks, mailboxes, **changes) as server:
                client = await (await server.client()).hello()
                await client.say(b"MAIL FROM:<s@client.example>")
                await what(server, client)

        asyncio.run(whole())

    return run


async def replies(client, count):
    return [await client.reply() for _ in range(count)]


async def codes(client, count):
    return [reply[:3] for reply in await replies(client, count)]


async def until(true):
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0)


def test_one_question_answers_many_and_the_replies_keep_their_order(story, mailboxes):
    names = [b"a", b"nobody", b"b", b"later", b"no", b"c"]

    async def what(server, client):
        client.writer.write(rcpt(*names) + b"DATA\r\n")
        said = await replies(client, 7)
        assert [one[:3] for one in said] == [b"250", b"550", b"250", b"451", b"550", b"250", b"354"]
        assert said[1] == said[4] == NOBODY and said[3] == PUT_OFF
        assert (await client.say(b"x\r\n."))[:3] == b"250"
        [(envelope, _)] = server.queue.messages
        assert [one.address for one in envelope.recipients] == home(b"a", b"b", b"c")
        assert (mailboxes.asked, mailboxes.along) == (home(b"a"), [home(*names[1:])])

    story(what)


def test_nothing_is_said_before_the_first_answer_is_there(story, mailboxes):
    mailboxes.hold = True

    async def what(server, client):
        client.writer.write(rcpt(b"a", b"nobody") + b"NOOP\r\n")
        await until(lambda: mailboxes.asked)
        early = asyncio.ensure_future(client.reply())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not early.done()
        mailboxes.answer(0)
        assert (await early)[:3] == b"250"
        assert await client.reply() == NOBODY
        assert (await client.reply())[:3] == b"250"

    story(what)


def test_who_is_not_told_of_along_is_asked_for_in_his_turn(story, mailboxes):
    mailboxes.tells = 1

    async def what(server, client):
        client.writer.write(rcpt(b"a", b"nobody", b"no", b"b", b"c"))
        assert await codes(client, 5) == [b"250", b"550", b"550", b"250", b"250"]
        assert mailboxes.asked == home(b"a", b"no", b"c")

    story(what)


def test_a_transaction_that_is_reset_asks_for_nobody_behind_the_reset(story, mailboxes):
    async def what(server, client):
        client.writer.write(
            rcpt(b"a", b"b")
            + b"RSET\r\nMAIL FROM:<t@client.example>\r\n"
            + rcpt(b"c", b"nobody")
            + b"DATA\r\n"
        )
        assert await codes(client, 7) == [b"250"] * 5 + [b"550", b"354"]
        assert (await client.say(b"x\r\n."))[:3] == b"250"
        [(envelope, _)] = server.queue.messages
        assert (envelope.sender, [one.address for one in envelope.recipients]) == (
            b"t@client.example",
            home(b"c"),
        )
        assert mailboxes.asked == home(b"a", b"c")
        assert mailboxes.along == [home(b"b"), home(b"nobody")]

    story(what)


def test_who_is_refused_by_policy_is_not_looked_up(story, mailboxes):
    async def what(server, client):
        far, barred = rcpt(b"x", host=b"far.example"), rcpt(b"former")
        client.writer.write(rcpt(b"a") + far + barred + rcpt(b"b") + rcpt(b"c", host=b"[127.0.0.1]"))
        assert await codes(client, 5) == [b"250", b"553", b"553", b"250", b"250"]
        assert (mailboxes.asked, mailboxes.along) == (home(b"a"), [home(b"b", b"c")])

    story(what, badrcptto=frozenset([b"former@a.example"]), localiphost=b"a.example")


def test_each_is_looked_up_once_however_often_and_by_whomever_he_is_named(story, mailboxes):
    async def what(server, client):
        other = await (await server.client()).hello()
        await other.say(b"MAIL FROM:<s@client.example>")
        client.writer.write(rcpt(b"a", b"b", b"b", b"a", b"c"))
        assert await codes(client, 5) == [b"250"] * 5
        other.writer.write(rcpt(b"b", b"d", b"c", b"a"))
        assert await codes(other, 4) == [b"250"] * 4
        assert (mailboxes.asked, mailboxes.along) == (home(b"a", b"d"), [home(b"b", b"c"), []])

    story(what)


def test_what_was_told_along_holds_no_longer_than_any_answer(story, mailboxes):
    async def what(server, client):
        client.writer.write(rcpt(b"a", b"b") + b"RCPT")
        assert await codes(client, 2) == [b"250"] * 2
        server.clock.advance(recipients.FRESH)
        client.writer.write(b" TO:<b@a.example>\r\n")
        assert await codes(client, 1) == [b"250"]
        assert mailboxes.asked == home(b"a", b"b")

    story(what)


def test_that_mail_is_put_off_is_logged_when_it_is_said(story, mailboxes):
    mailboxes.hold = True

    async def what(server, client):
        client.writer.write(rcpt(b"a", b"later1", b"later2"))
        await until(lambda: mailboxes.asked)
        client.vanish()
        await server.quiet()
        mailboxes.answer(0)
        mailboxes.hold = False
        other = await (await server.client()).hello()
        await other.say(b"MAIL FROM:<s@client.example>")
        assert await other.say(b"RCPT TO:<later2@a.example>") == PUT_OFF
        said = [event.line() for event in server.log.events if isinstance(event, Warn)]
        assert [line.split()[3] for line in said] == home(b"later2")

    story(what)


# --- limits ---------------------------------------------------------------------------------


def test_no_more_are_looked_up_than_may_be_taken(story, mailboxes):
    async def what(server, client):
        client.writer.write(rcpt(*numbered(9)))
        assert await codes(client, 9) == [b"250"] * 4 + [b"452"] * 5
        assert sum(map(len, mailboxes.along)) + len(mailboxes.asked) == 4

    story(what, maxrecipients=4)


def test_a_long_list_is_looked_up_in_some_questions(story, mailboxes):
    async def what(server, client):
        client.writer.write(rcpt(*numbered(1000)))
        assert await codes(client, 1000) == [b"250"] * 1000
        assert max(map(len, mailboxes.along)) == bounds.AHEAD
        assert len(mailboxes.asked) < 20

    story(what, maxbadrcpt=20, tarpit=1)


def test_who_guesses_has_no_more_looked_up_than_one_by_one(story, mailboxes):
    async def what(server, client):
        client.writer.write(rcpt(*numbered(500, b"no")))
        said = (await client.rest()).splitlines(keepends=True)
        assert said == [NOBODY] * 4 + [b"421 4.7.1 too many recipients were refused\r\n"]
        assert len(mailboxes.asked) + sum(map(len, mailboxes.along)) <= 6

    story(what, maxbadrcpt=5, tarpit=0)


def test_whose_refusals_are_late_is_served_one_by_one(story, mailboxes):
    async def what(server, client):
        late = server.late()
        client = await (await server.client()).hello()
        await client.say(b"MAIL FROM:<s@client.example>")
        client.writer.write(rcpt(*numbered(6, b"no"), *numbered(6)))
        assert await replies(client, 3) == [NOBODY] * 3
        for _ in range(3):
            await late.timer(2)
            server.clock.advance(recipients.FRESH)  # what was known is known no longer
        assert await codes(client, 9) == [b"550"] * 3 + [b"250"] * 6
        assert mailboxes.asked == home(b"no0", b"no5", *numbered(6))
        assert mailboxes.along[1:] == [[]] * 7

    story(what, maxbadrcpt=0, tarpit=2)


def test_a_client_that_begins_anew_again_and_again_has_nobody_looked_up_whose_turn_does_not_come(
    story, mailboxes
):
    async def what(server, client):
        names = numbered(3000)
        again = b"RSET\r\nMAIL FROM:<s@client.example>\r\n"
        client.writer.write(b"".join(rcpt(*names[at : at + 30]) + again for at in range(0, 3000, 30)))
        assert await codes(client, 3200) == [b"250"] * 3200
        asked = [one for question in (mailboxes.asked, *mailboxes.along) for one in question]
        assert sorted(asked) == sorted(home(*names))

    story(what)


def test_a_client_that_goes_away_has_won_little(story, mailboxes):
    mailboxes.hold = True

    async def what(server, client):
        client.writer.write(rcpt(*numbered(2000)))
        await until(lambda: mailboxes.asked)
        client.vanish()
        await server.quiet()
        assert len(mailboxes.asked) == 1 and len(mailboxes.along[0]) == 20
        mailboxes.answer(0)

    story(what, maxbadrcpt=20, tarpit=1)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 200), st.integers(0, 3))
def test_ahead_never_goes_further_than_what_was_taken_and_may_still_fail(most, refused, accepted, tarpit):
    limits = Bounds(refused=most, tarpit=tarpit)
    going = [limits.refuse() for _ in range(refused)]
    ahead = limits.ahead(accepted)
    assert ahead <= bounds.AHEAD
    if most and all(going):
        assert ahead <= accepted + most - refused
    if limits.delay:
        assert ahead == 0


class Hook:
    def rcpt(self, session, recipient):
        return Reject(Reply(550, b"5.7.1", (b"not you",))) if b"hook" in recipient.address else None


def test_where_a_hook_is_asked_first_recipients_are_looked_up_one_by_one(story, mailboxes):
    async def what(server, client):
        client.writer.write(rcpt(b"a", b"b", b"c", b"hook"))
        assert (await codes(client, 4))[:3] == [b"250"] * 3
        assert (mailboxes.asked, mailboxes.along) == (home(b"a", b"b", b"c"), [[], [], []])

    story(what, hooks=[("hook", Hook())])


def test_whoever_is_counted_asks_ahead_and_hears_no_more_than_he_may(story, mailboxes):
    async def what(server, client):
        client.writer.write(rcpt(b"a", b"b", b"c", b"nobody"))
        assert await codes(client, 4) == [b"250"] * 3 + [b"450"]
        assert mailboxes.asked == home(b"a")

    story(what, recipientsperhour=3)


def test_a_relay_client_that_is_not_counted_asks_ahead(story, mailboxes):
    async def what(server, client):
        client.writer.write(rcpt(b"a", b"b") + rcpt(b"x", host=b"far.example") + rcpt(b"c"))
        assert await codes(client, 4) == [b"250"] * 4
        assert (mailboxes.asked, mailboxes.along) == (home(b"a"), [home(b"b", b"c")])

    story(what, rules=RELAY, recipientsperhour=1)


# --- the same as one by one -----------------------------------------------------------------

LINES = st.sampled_from(
    [
        *[rcpt(name) for name in (b"a", b"b", b"c", b"nobody", b"no1", b"no2", b"later")],
        rcpt(b"x", host=b"far.example"),
        rcpt(b"d", b"no3", b"e", b"no4"),
        b"RCPT TO:<f@a.example> NOTIFY=NEVER\r\n",
        b"RCPT TO:<bad\r\n",
        b"RCPT TO:<g@a.example> NO=THING\r\n",
        b"NOOP\r\n",
        b"RSET\r\n",
        b"MAIL FROM:<t@client.example>\r\n",
        b"EHLO other.example\r\n",
        b"DATA\r\nx\r\n.\r\n",
        b"QUIT\r\n",
    ]
)
LIMITS = [
    {},
    {"maxbadrcpt": 3},
    {"maxrecipients": 3},
    {"maxconnectionrecipients": 3},
    {"maxerrors": 2},
    {"recipientsperhour": 4},
]


@examples(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINES, max_size=25), st.integers(0, 4), st.sampled_from(LIMITS))
def test_every_reply_and_message_is_the_one_that_is_due_when_each_is_looked_up_in_his_turn(
    settings, running, mailboxes, lines, tells, limits
):
    mailboxes.tells = tells
    text = b"MAIL FROM:<s@client.example>\r\n" + b"".join(lines)

    async def session():
        async with running(settings, (), mailboxes, tarpit=0, **limits) as server:
            client = await (await server.client()).hello()
            client.writer.write(text)
            client.writer.write_eof()
            said = await client.rest()
            return said, [(envelope.sender, envelope.recipients) for envelope, _ in server.queue.messages]

    ahead = asyncio.run(session())
    with mock.patch.object(bounds, "AHEAD", 0):
        begun = len(mailboxes.asked)
        assert asyncio.run(session()) == ahead
        assert not any(mailboxes.along[begun:])
