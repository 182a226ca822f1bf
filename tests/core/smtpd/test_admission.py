"""What is asked about a client before its first message, and what comes of it."""

import asyncio
from asyncio import run
from types import SimpleNamespace

import pytest

from openqmail.core.control.blocklists import blocklist
from openqmail.core.control.rules import Rule, Rules
from openqmail.core.dns import NoReply
from openqmail.core.smtpd import admission

ME = b"1.0.0.127.in-addr.arpa"
LISTED = b"1.0.0.127.bl.example"
RELAY = Rules({"127.": Rule(True, {"RELAYCLIENT": ""})})
TRUE_NAME = {ME: [b"client.example"], b"client.example": ["127.0.0.1"]}


def lists(*lines):
    return tuple(blocklist(line) for line in lines)


async def mail(server):
    client = await (await server.client()).hello()
    return await client.say(b"MAIL FROM:<s@client.example>")


def answer(settings, running, resolver, **changes):
    """What MAIL is answered, and the events of the log."""

    async def story():
        async with running(settings, resolver=resolver, **changes) as server:
            return await mail(server), server.log.events

    return run(story())


def test_who_is_listed_is_refused_with_the_words_of_the_list(settings, running, names):
    resolver = names(
        {LISTED: ["127.0.0.2"], b"text of " + LISTED: [b"see http://bl.example/?1\r\n250 ok\xff"]}
    )
    reply, _ = answer(settings, running, resolver, dnsbl=lists("bl.example"))
    assert reply == b"554 5.7.1 127.0.0.1 is listed by bl.example: see http://bl.example/?1??250 ok?\r\n"


def test_a_text_of_ours_is_told_in_place_of_the_lists(settings, running, names):
    resolver = names({LISTED: ["127.0.0.2"]})
    reply, _ = answer(settings, running, resolver, dnsbl=lists("bl.example ask postmaster"))
    assert reply == b"554 5.7.1 127.0.0.1 is listed by bl.example: ask postmaster\r\n"
    assert resolver.asked == [LISTED]


@pytest.mark.parametrize(
    ("lines", "records", "score", "refused"),
    [
        (["bl.example"], {}, 1, False),
        (["bl.example=127.0.0.3-9"], {LISTED: ["127.0.0.2"]}, 1, False),
        (["bl.example=127.0.0.3-9"], {LISTED: ["127.0.0.2", "127.0.0.9"]}, 1, True),
        (["bl.example"], {LISTED: ["127.0.0.2"]}, 2, False),
        (["bl.example:2"], {LISTED: ["127.0.0.2"]}, 2, True),
        (
            ["bl.example", "b2.example"],
            {LISTED: ["127.0.0.2"], b"1.0.0.127.b2.example": ["127.0.0.2"]},
            2,
            True,
        ),
        (
            ["bl.example", "wl.example:-1"],
            {LISTED: ["127.0.0.2"], b"1.0.0.127.wl.example": ["127.0.5.1"]},
            1,
            False,
        ),
        (["bl.example"], {LISTED: ["192.0.2.1"]}, 1, False),
        (["bl.example"], {LISTED: ["127.255.255.254"]}, 1, False),
        (["bl.example"], {LISTED: NoReply("silent")}, 1, False),
        (
            ["bl.example", "b2.example"],
            {LISTED: NoReply("silent"), b"1.0.0.127.b2.example": ["127.0.0.2"]},
            1,
            True,
        ),
    ],
)
def test_scores_are_added_up(settings, running, names, lines, records, score, refused):
    reply, _ = answer(settings, running, names(records), dnsbl=lists(*lines), dnsblscore=score)
    assert reply[:3] == (b"554" if refused else b"250")


@pytest.mark.parametrize("found", [NoReply("silent"), ["127.255.255.254"]])
def test_a_list_that_does_not_serve_us_is_told_of_once(settings, running, names, found):
    async def story():
        async with running(settings, resolver=names({LISTED: found}), dnsbl=lists("bl.example")) as server:
            for _ in range(3):
                assert (await mail(server))[:3] == b"250"
            told = [event for event in server.log.events if "bl.example" in getattr(event, "text", "")]
            assert len(told) == 1

    run(story())


def test_a_greeting_does_not_wait_for_lists_and_mail_does(settings, running, names):
    async def story():
        resolver = names({LISTED: ["127.0.0.2"]})
        resolver.hold = asyncio.Event()
        async with running(settings, resolver=resolver, dnsbl=lists("bl.example")) as server:
            client = await (await server.client()).hello()
            client.writer.write(b"MAIL FROM:<>\r\n")
            reply = asyncio.ensure_future(client.reply())
            assert resolver.asked == [LISTED]
            for _ in range(20):
                await asyncio.sleep(0)
            assert not reply.done()
            resolver.hold.set()
            assert (await reply)[:3] == b"554"
            assert (await client.say(b"MAIL FROM:<again@x.example>"))[:3] == b"554"
            assert (await client.say(b"QUIT"))[:3] == b"221"

    run(story())


def test_lists_that_are_late_let_mail_in(settings, running, names, monkeypatch):
    monkeypatch.setattr(admission, "LIST_PATIENCE", 0.05)
    resolver = names({LISTED: ["127.0.0.2"]})

    async def story():
        resolver.hold = asyncio.Event()
        async with running(settings, resolver=resolver, dnsbl=lists("bl.example")) as server:
            assert (await mail(server))[:3] == b"250"

    run(story())


@pytest.mark.parametrize(
    ("variables", "code", "asked"),
    [
        ({"RELAYCLIENT": ""}, b"250", False),
        ({"RBLSMTPD": ""}, b"250", False),
        ({"RBLSMTPD": "come back tomorrow"}, b"451 4.7.1 come back tomorrow", False),
        ({"RBLSMTPD": "-never"}, b"553 5.7.1 never", False),
        ({}, b"554", True),
    ],
)
def test_rules_say_who_is_asked_about(settings, running, names, variables, code, asked):
    resolver = names({LISTED: ["127.0.0.2"]})
    rules = Rules({"127.": Rule(True, variables)})
    reply, _ = answer(settings, running, resolver, dnsbl=lists("bl.example x"), rules=rules)
    assert reply.startswith(code)
    assert bool(resolver.asked) is asked


def only_lists():
    return SimpleNamespace(
        dnsbl=lists("bl.example x"), dnsblscore=1, lookupclients=False, requirereverse=False, rules=Rules({})
    )


def test_an_ipv6_client_is_looked_up_by_its_digits(names):
    async def story():
        resolver = names({})
        found = admission.Admission(only_lists(), resolver, print)
        assert await found.listed("2001:db8::2") is None
        assert await found.listed("::ffff:192.0.2.1") is None
        assert await found.listed("no address") is None
        return resolver.asked

    digits = b".".join([b"2"] + [b"0"] * 23 + [b"8", b"b", b"d", b"0", b"1", b"0", b"0", b"2"])
    assert run(story()) == [digits + b".bl.example", b"1.2.0.192.bl.example"]


def test_nobody_is_let_in_because_many_are_asked_about(names):
    async def story():
        resolver = names({b"1.2.0.192.bl.example": ["127.0.0.2"]})
        resolver.hold = asyncio.Event()
        found = admission.Admission(only_lists(), resolver, print)
        answers = [found.listed("192.0.2.1") for _ in range(1100)]
        await asyncio.sleep(0)
        resolver.hold.set()
        assert all(reply is not None and reply.code == 554 for reply in await asyncio.gather(*answers))

    run(story())


def test_questions_are_on_behalf_of_the_network_of_the_client(names):
    async def story():
        resolver = names({})
        found = admission.Admission(only_lists(), resolver, print)
        await asyncio.gather(
            found.listed("192.0.2.1"), found.listed("198.51.100.7"), found.name_of("192.0.2.9")
        )
        return resolver.owners

    assert sorted(run(story())) == [b"192.0.2.0/24", b"192.0.2.0/24", b"198.51.100.0/24"]


@pytest.mark.parametrize("wanted", [{"lookupclients": True}, {"dnsbl": lists("bl.example", "b2.example")}])
def test_who_is_gone_is_asked_about_no_more(settings, running, names, wanted):
    async def story():
        resolver = names(TRUE_NAME)
        resolver.hold = asyncio.Event()
        async with running(settings, resolver=resolver, **wanted) as server:
            client = await server.client()
            while not resolver.waiting:
                await asyncio.sleep(0)
            client.writer.close()
            await server.quiet()
            for _ in range(5):
                await asyncio.sleep(0)
            assert resolver.waiting == 0

    run(story())


# --- names --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "name"),
    [
        (TRUE_NAME, b"client.example"),
        (
            {**TRUE_NAME, ME: [b"other.example", b"Client.Example"], b"Client.Example": ["127.0.0.1"]},
            b"client.example",
        ),
        ({ME: [b"client.example"], b"client.example": ["192.0.2.9"]}, b""),
        ({ME: [b"client.example"]}, b""),
        ({ME: [b"evil (name]\\010.example"]}, b""),
        ({}, b""),
        ({ME: NoReply("silent")}, b""),
    ],
)
def test_a_name_that_leads_back_stands_in_received_and_is_told_to_hooks(
    settings, running, names, records, name
):
    told = []

    class Hook:
        def connect(self, session):
            told.append(session.name)

    async def story():
        hooks = [("h", Hook())]
        async with running(settings, hooks, resolver=names(records), lookupclients=True) as server:
            client = await (await server.client()).hello()
            await client.data()
            await client.say(b"x\r\n.")
            [(_, body)] = server.queue.messages
            shown = b" (" + name + b" [127.0.0.1])" if name else b" ([127.0.0.1])"
            assert body.startswith(b"Received: from client.example" + shown + b"\n")
            assert told == [name]

    run(story())


@pytest.mark.parametrize(
    ("pattern", "records", "denied"),
    [
        ("=client.example", TRUE_NAME, True),
        ("=.example", TRUE_NAME, True),
        ("=", TRUE_NAME, True),
        ("=client.example", {ME: [b"client.example"], b"client.example": ["192.0.2.9"]}, False),
        ("=", {}, False),
        ("=other.example", TRUE_NAME, False),
    ],
)
def test_rules_hold_by_name(settings, running, names, pattern, records, denied):
    async def story():
        rules = Rules({pattern: Rule(False, {})})
        async with running(settings, resolver=names(records), rules=rules) as server:
            assert (await (await server.client()).reply())[:3] == (b"554" if denied else b"220")

    run(story())


def test_nobodys_name_is_looked_up_without_need(settings, running, names):
    resolver = names(TRUE_NAME)
    assert answer(settings, running, resolver)[0][:3] == b"250"
    assert resolver.asked == []


def test_a_client_that_waits_for_its_name_can_be_sent_away(settings, running, names):
    async def story():
        resolver = names(TRUE_NAME)
        resolver.hold = asyncio.Event()
        async with running(settings, resolver=resolver, lookupclients=True) as server:
            client = await server.client()
            while not resolver.asked:
                await asyncio.sleep(0)
            server.service.drain()
            assert (await client.rest()).startswith(b"421 4.3.2")
            resolver.hold.set()
            await server.quiet()

    run(story())


@pytest.mark.parametrize("limit", ["concurrencynetwork", "connectionsperhour"])
def test_a_network_whose_names_nobody_tells_is_counted_all_the_same(settings, running, names, limit):
    async def story():
        resolver = names(TRUE_NAME)
        resolver.hold = asyncio.Event()
        rules = Rules({"=client.example": Rule(False, {})})
        async with running(settings, resolver=resolver, rules=rules, **{limit: 2}) as server:
            for asked in (1, 2):
                await server.client()
                while len(resolver.asked) < asked:
                    await asyncio.sleep(0)
            assert (await (await server.client()).rest()).startswith(b"421 4.7.0")
            assert resolver.asked == [ME, ME]

    run(story())


def test_who_relays_by_name_is_not_counted_once_it_is_known(settings, running, names):
    async def story():
        rules = Rules({"=client.example": Rule(True, {"RELAYCLIENT": ""})})
        async with running(settings, resolver=names(TRUE_NAME), rules=rules, concurrencynetwork=1) as server:
            for _ in range(3):
                assert (await (await server.client()).reply())[:3] == b"220"

    run(story())


def test_who_is_denied_whatever_its_name_costs_no_question(settings, running, names):
    async def story():
        resolver = names(TRUE_NAME)
        rules = Rules({"127.": Rule(False, {})})
        async with running(settings, resolver=resolver, rules=rules, lookupclients=True) as server:
            assert (await (await server.client()).rest())[:3] == b"554"
            assert resolver.asked == []

    run(story())


@pytest.mark.parametrize(
    ("records", "rules", "code"),
    [
        ({}, Rules({}), b"550 5.7.25"),
        (TRUE_NAME, Rules({}), b"250"),
        ({ME: NoReply("silent")}, Rules({}), b"250"),
        ({}, RELAY, b"250"),
    ],
)
def test_a_name_can_be_asked_for(settings, running, names, records, rules, code):
    reply, _ = answer(settings, running, names(records), requirereverse=True, rules=rules)
    assert reply.startswith(code)


# --- the greeting -------------------------------------------------------------------------


def test_who_talks_before_the_greeting_is_refused(settings, running):
    async def story():
        async with running(settings, greetdelay=7) as server:
            late = server.late()
            client = await server.client()
            client.writer.write(b"EHLO early.example\r\nMAIL FROM:<s@early.example>\r\nQUIT\r\n")
            while not server.service.sessions or not next(iter(server.service.sessions))._record.size:
                await asyncio.sleep(0)
            assert await late.timer(7) == 7
            said = (await client.rest()).splitlines()
            assert said[0] == b"554 5.7.1 you talk before you are greeted"
            assert [line[:3] for line in said[1:]] == [b"503", b"503", b"221"]
            assert not server.queue.messages

    run(story())


def test_who_listens_is_greeted(settings, running):
    async def story():
        async with running(settings, greetdelay=7) as server:
            late = server.late()
            client = await server.client()
            greeting = asyncio.ensure_future(client.reply())
            await late.timer(7)
            assert (await greeting)[:3] == b"220"
            assert (await client.say(b"EHLO c.example"))[:3] == b"250"

    run(story())


@pytest.mark.parametrize("variables", [{"RELAYCLIENT": ""}, {"GREETDELAY": "0"}])
def test_rules_say_who_is_greeted_at_once(settings, running, variables):
    async def story():
        async with running(settings, greetdelay=300, rules=Rules({"127.": Rule(True, variables)})) as server:
            assert (await (await server.client()).reply())[:3] == b"220"

    run(story())


def test_one_that_goes_before_it_is_greeted_leaves_nothing(settings, running):
    async def story():
        async with running(settings, greetdelay=7) as server:
            late = server.late()
            client = await server.client()
            while not [one for one in late.timers if one[0] == 7]:
                await asyncio.sleep(0)
            client.writer.transport.abort()
            await server.quiet()
            await late.timer(7)

    run(story())
