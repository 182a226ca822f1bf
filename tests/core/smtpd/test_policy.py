"""Who may send what to whom: badmailfrom and its kin, rcpthosts and more of them, our own literals."""

from asyncio import run

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.control.rules import Rule, Rules
from openqmail.core.smtpd.policy import at_home, bad_helo

RELAY = Rules({"127.": Rule(True, {"RELAYCLIENT": ""})})
BAD_SENDER = b"553 5.7.1 sorry, your envelope sender is in my badmailfrom list\r\n"
BAD_RECIPIENT = b"553 5.7.1 sorry, that recipient is in my badrcptto list\r\n"
BAD = frozenset({b"bad@x.example", b"@worse.example", b".worst.example"})


def rcpt(settings, running, sender=b"s@client.example", recipient=b"alice@a.example", **changes):
    """What RCPT is answered."""

    async def story():
        async with running(settings, **changes) as server:
            client = await (await server.client()).hello()
            assert (await client.say(b"MAIL FROM:<%s>" % sender))[:3] == b"250"
            return await client.say(b"RCPT TO:<%s>" % recipient)

    return run(story())


@pytest.mark.parametrize(
    ("address", "barred"),
    [
        (b"bad@x.example", True),
        (b"BAD@X.Example", True),
        (b"good@x.example", False),
        (b"any@worse.example", True),
        (b"any@WORSE.example", True),
        (b"any@sub.worse.example", False),
        (b"any@sub.worst.example", True),
        (b"any@a.b.worst.example", True),
        (b"any@worst.example", False),
        (b"any@notworse.example", False),
        (b"", False),
    ],
)
@pytest.mark.parametrize("rules", [Rules({}), RELAY])
def test_bad_senders_are_refused_whoever_says_it(settings, running, address, barred, rules):
    reply = rcpt(settings, running, sender=address, badmailfrom=BAD, rules=rules)
    assert (reply == BAD_SENDER) is barred and (reply[:3] == b"250") is not barred


@pytest.mark.parametrize("rules", [Rules({}), RELAY])
def test_bad_recipients_are_refused_whoever_says_it(settings, running, rules):
    bad = frozenset({b"former@a.example"})
    assert rcpt(settings, running, recipient=b"Former@A.example", badrcptto=bad, rules=rules) == BAD_RECIPIENT
    assert rcpt(settings, running, badrcptto=bad, rules=rules)[:3] == b"250"


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        (b"a.example", True),
        (b"A.Example", True),
        (b"x.a.example", False),
        (b"localhost", True),
        (b"pc.local", True),
        (b"pc.b.local", True),
        (b"local", False),
        (b"dsl-1-2.isp.example", True),
        (b"mail.isp.example", False),
        (b"[127.0.0.1]", False),
    ],
)
def test_a_name_that_nobody_should_use(name, bad):
    assert bad_helo(name, ("a.example", "localhost", ".local", "dsl-*.isp.example")) is bad


def test_a_bad_name_is_refused_but_a_relay_clients(settings, running):
    async def story(rules):
        async with running(settings, badhelo=("a.example",), rules=rules) as server:
            client = await server.client()
            await client.reply()
            first = await client.say(b"HELO A.example")
            assert (await client.say(b"HELO client.example"))[:3] == b"250"
            return first[:3]

    assert run(story(Rules({}))) == b"550"
    assert run(story(RELAY)) == b"250"


@given(
    st.lists(st.text(alphabet="ab.*", min_size=1, max_size=8), min_size=1, max_size=4),
    st.text(alphabet="ab.", max_size=12),
)
def test_patterns_with_stars_are_those_of_a_slow_search(patterns, name):
    def fits(pattern, text):
        if not pattern:
            return not text
        if pattern[0] == "*":
            return any(fits(pattern[1:], text[at:]) for at in range(len(text) + 1))
        return text[:1] == pattern[0] and fits(pattern[1:], text[1:])

    found = any(fits("*" + each if each[0] == "." else each, name) for each in patterns)
    assert bad_helo(name.encode(), tuple(patterns)) is found


def test_more_rcpthosts_are_as_good(settings, running):
    more = frozenset({b"more.example", b".more.example"})
    for recipient in (b"u@more.example", b"u@x.More.example"):
        assert rcpt(settings, running, recipient=recipient, morercpthosts=more)[:3] == b"250"
    assert rcpt(settings, running, recipient=b"u@nomore.example", morercpthosts=more)[:3] == b"553"


@pytest.mark.parametrize(
    ("recipient", "taken"),
    [
        (b"alice@[127.0.0.1]", True),
        (b"alice@[192.0.2.1]", False),
        (b"alice@[127.0.0.1].example", False),
    ],
)
def test_our_literal_is_this_host(settings, running, recipient, taken):
    async def story():
        async with running(settings, localiphost=b"a.example") as server:
            client = await (await server.client()).hello()
            await client.say(b"MAIL FROM:<>")
            assert ((await client.say(b"RCPT TO:<%s>" % recipient))[:3] == b"250") is taken
            if taken:
                await client.say(b"DATA")
                await client.say(b"x\r\n.")
                assert [each.address for each in server.queue.messages[0][0].recipients] == [
                    b"alice@a.example"
                ]

    run(story())


def test_a_literal_of_ipv6_in_any_spelling_is_ours():
    ours = {"2001:db8::1"}
    for literal in (b"[IPv6:2001:db8::1]", b"[ipv6:2001:0DB8:0::1]"):
        assert at_home(b"u@" + literal, ours, b"h.example") == b"u@h.example"
    for other in (b"u@[IPv6:2001:db8::2]", b"u@[x]", b"u", b"]", b"u@h]"):
        assert at_home(other, ours, b"h.example") == other


# --- nobody relays through us ------------------------------------------------------------

FAR = [
    b"<victim@far.example>",
    b"<victim%far.example@a.example>",
    b"<victim%far.example@[127.0.0.1]>",
    b"<@a.example:victim@far.example>",
    b"<@a.example,@b.example:victim@far.example>",
    b'<"victim@far.example">',
    b'<"victim@far.example"@a.example>',
    b'<"victim%far.example"@a.example>',
    b"<victim@far.example@a.example>",
    b"<victim@far.example%a.example>",
    b"<far.example!victim@a.example>",
    b"<far.example!victim>",
    b"<a.example!far.example!victim>",
    b"<a.example!victim@far.example>",
    b"<victim@far.example.>",
    b"<victim@FAR.EXAMPLE>",
    b"<victim@a.example.far.example>",
    b"<victim@xa.example>",
    b"<victim@.a.example>",
    b"<victim@a.example.>",
    b"<victim@[192.0.2.1]>",
    b"<victim@3221225985>",
    b"<victim@far.example\x00@a.example>",
    b"<victim@far.example\t@a.example>",
    b"<victim@far.example> <x@a.example>",
    b"victim@far.example",
    b"<>",
]


@pytest.mark.parametrize("recipient", FAR)
def test_no_spelling_of_an_address_makes_a_relay_of_us(settings, running, recipient):
    """Either it is refused, or it is a mailbox of this host, whose name may look like anything."""
    from openqmail.core.control.routing import route

    async def story():
        async with running(settings, localiphost=b"a.example", percenthack=frozenset()) as server:
            client = await (await server.client()).hello()
            await client.say(b"MAIL FROM:<>")
            if (await client.say(b"RCPT TO:" + recipient))[:3] != b"250":
                return
            await client.say(b"DATA")
            await client.say(b"x\r\n.")
            for envelope, _ in server.queue.messages:
                for each in envelope.recipients:
                    assert route(each.address, server.service.context.settings).channel == "local"

    run(story())


@pytest.mark.parametrize(
    ("recipient", "taken"),
    [
        (b"victim%far.example@a.example", False),
        (b"victim%far.example%a.example@a.example", False),
        (b"alice%x.sub.example@a.example", True),
        (b"alice%a.example@a.example", True),
        (b"alice@a.example", True),
        (b"victim%far.example@x.sub.example", True),
    ],
)
def test_a_domain_with_percenthack_relays_for_nobody(settings, running, recipient, taken):
    hack = frozenset({b"a.example"})
    assert (rcpt(settings, running, recipient=recipient, percenthack=hack)[:3] == b"250") is taken
    assert rcpt(settings, running, recipient=recipient, percenthack=hack, rules=RELAY)[:3] == b"250"


def test_vrfy_and_expn_tell_nothing(settings, running, mailboxes):
    async def story():
        async with running(settings, mailboxes=mailboxes) as server:
            client = await (await server.client()).hello()
            assert await client.say(b"VRFY alice@a.example") == await client.say(b"VRFY nobody@a.example")
            assert (await client.say(b"EXPN staff"))[:3] == b"502"
            assert not mailboxes.asked

    run(story())
