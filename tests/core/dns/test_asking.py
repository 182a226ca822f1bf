"""How name servers are asked: once for many, one after the other, through aliases, in bounded time."""

import asyncio
import contextlib
import re
import socket

import pytest

from openqmail.core.dns import (
    Answer,
    BadReply,
    LookupFailed,
    MailExchanger,
    NameServer,
    NoReply,
    NoSuchName,
    Patience,
    ServerFailed,
    StubResolver,
    behalf,
    look_up_hosts,
    servers,
)
from openqmail.core.dns import resolver as resolver_module

RECORDS = {
    ("host.test", "A"): ["192.0.2.1"],
    ("host.test", "AAAA"): ["2001:db8::1"],
    ("two.test", "MX"): ["10 alias.test."],
    ("alias.test", "CNAME"): ["more.test."],
    ("more.test", "CNAME"): ["host.test."],
    ("gone.test", "CNAME"): ["nowhere.test."],
    ("soft.test", "MX"): "SERVFAIL",
    ("soft.test", "A"): "SERVFAIL",
    ("half.test", "A"): ["192.0.2.9"],
    ("half.test", "AAAA"): "SERVFAIL",
    ("chain10.test", "A"): ["192.0.2.10"],
    ("chain11.test", "A"): ["192.0.2.11"],
    **{(f"chain{number}.test", "CNAME"): [f"chain{number + 1}.test."] for number in range(10)},
    ("long.test", "CNAME"): ["chain0.test."],
}
QUICK = Patience(a_try=0.02, a_lookup=0.5)


def run(nameserver, work, count=1, **options):
    """`work` with so many name servers."""

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            made = [await stack.enter_async_context(nameserver(dict(RECORDS))) for _ in range(count)]
            for each in made:
                for name, value in options.items():
                    setattr(each, name, value)
            return await work(*made)

    return asyncio.run(main())


def asked(server, name, kind="MX"):
    return server.asked[(name, kind, "udp")]


def refused():
    """A name server that is not there: its port is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return NameServer("127.0.0.1", sock.getsockname()[1])


# --- one question for many ------------------------------------------------------------


def test_the_same_question_at_once_is_one_question(nameserver):
    async def work(server):
        resolver = StubResolver([server.address])
        spellings = [b"two.test", b"TWO.test", b"two.test."] * 10
        answers = await asyncio.gather(*map(resolver.mx, spellings))
        assert {answer.records for answer in answers} == {(MailExchanger(10, b"alias.test"),)}
        assert asked(server, "two.test") == 1
        found = await asyncio.gather(*(resolver.mx(b"soft.test") for _ in range(3)), return_exceptions=True)
        assert {type(each) for each in found} == {ServerFailed}
        assert asked(server, "soft.test") == 1

    run(nameserver, work)


def test_who_gives_up_waiting_does_not_take_the_answer_from_others(nameserver):
    async def work(server):
        resolver = StubResolver([server.address])
        first = asyncio.create_task(resolver.mx(b"two.test"))
        second = asyncio.create_task(resolver.mx(b"two.test"))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).records == (MailExchanger(10, b"alias.test"),)
        with pytest.raises(asyncio.CancelledError):
            await first

    run(nameserver, work)


def test_when_all_have_given_up_nothing_goes_on_and_the_name_can_be_asked_for_again(nameserver):
    async def work(server):
        resolver = StubResolver([server.address])
        before = asyncio.all_tasks()
        task = asyncio.create_task(resolver.addresses(b"host.test"))
        while not asked(server, "host.test", "A"):
            await asyncio.sleep(0)
        task.cancel()
        again = asyncio.create_task(resolver.addresses(b"host.test"))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await again).records == ("192.0.2.1", "2001:db8::1")
        while asyncio.all_tasks() - before:
            await asyncio.wait(asyncio.all_tasks() - before)

    run(nameserver, work)


def test_a_failure_is_not_asked_for_again_at_once(nameserver):
    async def work(server):
        resolver = StubResolver([server.address])
        for _ in range(3):
            with pytest.raises(ServerFailed):
                await resolver.mx(b"soft.test")
        assert asked(server, "soft.test") == 1

    run(nameserver, work)


# --- aliases --------------------------------------------------------------------------


@pytest.mark.parametrize("follows", [True, False])
def test_aliases_are_followed_also_where_the_server_does_not(nameserver, follows):
    async def work(server):
        resolver = StubResolver([server.address])
        # RFC 2181 section 10.3 forbids an alias as an exchanger; it is used all the same.
        assert (await resolver.mx(b"two.test")).records == (MailExchanger(10, b"alias.test"),)
        assert (await resolver.addresses(b"alias.test")).records == ("192.0.2.1", "2001:db8::1")
        assert (await resolver.mx(b"alias.test")).records == ()
        with pytest.raises(NoSuchName, match=r"no name gone\.test"):
            await resolver.mx(b"gone.test")

    run(nameserver, work, follows=follows)


@pytest.mark.parametrize("follows", [True, False])
def test_ten_aliases_are_followed_and_no_more(nameserver, follows):
    async def work(server):
        resolver = StubResolver([server.address])
        assert (await resolver.addresses(b"chain0.test")).records == ("192.0.2.10",)
        with pytest.raises(BadReply, match="aliases"):
            await resolver.addresses(b"long.test")

    run(nameserver, work, follows=follows)


def test_a_name_that_two_ask_for_at_once_is_asked_on_behalf_of_both(nameserver, monkeypatch):
    monkeypatch.setattr(resolver_module, "MOST_AT_ONCE", 2)

    async def asks(resolver, owner, name):
        behalf.set(owner)
        return await resolver.mx(name)

    async def work(server):
        resolver = StubResolver([server.address], patience=Patience(a_try=600.0, a_lookup=600.0))

        def start(owner, name):
            return asyncio.create_task(asks(resolver, owner, name))

        slow = [start(b"evil.test", b"slow.test"), start(b"evil.test", b"slower.test")]
        while len(server.asked) < 2:
            await asyncio.sleep(0)
        more = [start(b"evil.test", name) for name in (b"slowest.test", b"two.test")]
        await asyncio.sleep(0)
        good = start(b"good.test", b"two.test")
        await asyncio.sleep(0)
        slow[0].cancel()  # one slot is free, for whoever has the fewest
        assert (await good).records == (await more[1]).records
        for task in (*slow, *more):
            task.cancel()

    run(nameserver, work, silent={"slow.test", "slower.test", "slowest.test"})


# --- several servers ------------------------------------------------------------------


def test_a_server_that_is_not_there_is_passed_over_and_remembered(nameserver, monkeypatch):
    async def work(server):
        tried = []
        exchange = servers.exchange

        def spy(asked_server, question):
            tried.append(asked_server)
            return exchange(asked_server, question)

        monkeypatch.setattr(servers, "exchange", spy)
        gone = refused()
        resolver = StubResolver([gone, server.address], patience=Patience(a_try=600.0, a_lookup=600.0))
        await resolver.mx(b"two.test")
        assert tried == [gone, server.address]
        await resolver.mx(b"host.test")
        assert tried[2:] == [server.address]

    run(nameserver, work)


def test_a_silent_server_is_passed_over_and_remembered_until_it_is_time_to_try_again(nameserver):
    async def work(silent, server):
        silent.silent = {"two.test"}
        for patience, times in ((QUICK, 0), (Patience(a_try=0.02, a_lookup=0.5, a_silence=0.0), 1)):
            silent.asked.clear()
            resolver = StubResolver([silent.address, server.address], patience=patience)
            assert (await resolver.mx(b"two.test")).records
            assert asked(silent, "two.test") == 1
            await resolver.mx(b"host.test")
            assert asked(silent, "host.test") == times

    run(nameserver, work, count=2)


def test_a_server_that_fails_is_passed_over(nameserver):
    async def work(failing, server):
        failing.records[("two.test", "MX")] = "REFUSED"
        resolver = StubResolver([failing.address, server.address])
        assert (await resolver.mx(b"two.test")).records

    run(nameserver, work, count=2)


def test_what_a_server_says_tells_more_than_the_silence_of_another(nameserver):
    async def work(silent, failing):
        silent.silent = {"soft.test"}
        resolver = StubResolver([silent.address, failing.address], patience=QUICK)
        with pytest.raises(ServerFailed):
            await resolver.mx(b"soft.test")

    run(nameserver, work, count=2)


def test_without_servers_those_of_the_system_are_asked(nameserver, monkeypatch, tmp_path):
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# none\nsearch test\nnameserver\nnameserver dns.example\nnameserver 192.0.2.53\n"
        "nameserver fe80::1%lo\nnameserver 2001:db8::53\nnameserver 192.0.2.54\noptions trust-ad\n"
    )
    monkeypatch.setattr(servers, "SYSTEM", str(file))
    assert servers._of_the_system() == (
        NameServer("192.0.2.53"),
        NameServer("fe80::1%lo"),
        NameServer("2001:db8::53"),
    )
    monkeypatch.setattr(servers, "SYSTEM", str(tmp_path / "none"))
    assert servers._of_the_system() == ()


def test_what_the_system_named_holds_while_its_file_cannot_be_read(monkeypatch, tmp_path):
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 192.0.2.53\n")
    monkeypatch.setattr(servers, "SYSTEM", str(file))

    async def story():
        fresh, asked = servers.Servers((), Patience()), servers.Servers((), Patience())
        assert asked._in_order() == [NameServer("192.0.2.53")]
        file.unlink()
        asked._system = (0.0, asked._system[1])  # a minute has passed
        assert asked._in_order() == [NameServer("192.0.2.53")]
        assert fresh._in_order() == [NameServer("127.0.0.1")]

    asyncio.run(story())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_server_at_all_is_no_reply_soon(loop):
    made = asyncio.new_event_loop() if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop()
    resolver = StubResolver([refused()], patience=Patience(a_try=600.0, a_lookup=600.0))
    try:
        with pytest.raises(NoReply, match="cannot be asked"):
            made.run_until_complete(resolver.mx(b"two.test"))
    finally:
        made.close()


# --- DNSSEC ---------------------------------------------------------------------------


def test_only_a_trusted_server_is_asked_for_and_believed_about_dnssec(nameserver):
    async def work(server):
        trusted = NameServer(server.address.address, server.address.port, trusted=True)
        for given in (server.address, trusted):
            resolver = StubResolver([given])
            for _ in range(2):  # the second time from the cache
                assert (await resolver.mx(b"two.test")).authentic is given.trusted
                assert (await resolver.addresses(b"host.test")).authentic is given.trusted
        assert server.wanted == {"AD"}

    run(nameserver, work, authentic={"two.test", "host.test"})


def test_addresses_are_authentic_when_all_that_is_there_is(nameserver):
    async def work(server):
        resolver = StubResolver([NameServer("127.0.0.1", server.port, trusted=True)])
        assert not (await resolver.addresses(b"host.test")).authentic
        assert (await resolver.addresses(b"half.test")).authentic
        assert not (await resolver.addresses(b"alias.test")).authentic

    run(nameserver, work, authentic={("host.test", "A"), ("half.test", "A"), ("alias.test", "A")})


@pytest.mark.parametrize("follows", [True, False])
@pytest.mark.parametrize(
    "proved", [{"alias.test"}, {"alias.test", "more.test"}, {"host.test"}, {"more.test"}]
)
def test_what_an_alias_leads_to_is_authentic_only_when_every_step_is(nameserver, follows, proved):
    async def work(server):
        resolver = StubResolver([NameServer("127.0.0.1", server.port, trusted=True)])
        # A server that follows aliases says one word for all that it sends.
        assert (await resolver.ipv4(b"alias.test")).authentic is (follows and "alias.test" in proved)
        server.authentic = {"alias.test", "more.test", "host.test"}
        again = StubResolver([NameServer("127.0.0.1", server.port, trusted=True)])
        assert (await again.ipv4(b"alias.test")).authentic

    run(nameserver, work, follows=follows, authentic=proved)


def test_one_server_that_is_not_trusted_takes_the_proof_from_what_an_alias_leads_to(nameserver):
    async def work(silent, other):
        other.follows = silent.follows = False
        silent.silent = {"more.test", "host.test"}
        trusted = NameServer("127.0.0.1", silent.port, trusted=True)
        resolver = StubResolver([trusted, other.address], patience=QUICK)
        assert (await resolver.mx(b"two.test")).authentic
        assert not (await resolver.ipv4(b"alias.test")).authentic

    run(nameserver, work, count=2, authentic={"alias.test", "more.test", "host.test", "two.test"})


# --- for how long ---------------------------------------------------------------------


@pytest.mark.parametrize("follows", [True, False])
@pytest.mark.parametrize("shortest", ["alias.test", "more.test", "host.test"])
def test_what_an_alias_leads_to_holds_no_longer_than_any_step(nameserver, follows, shortest):
    async def work(server):
        answer = await StubResolver([server.address]).ipv4(b"alias.test")
        assert 0 < answer.ttl <= 20

    ttls = {"alias.test": 3000, "more.test": 3000, "host.test": 3000, shortest: 20}
    run(nameserver, work, follows=follows, ttls=ttls)


@pytest.mark.parametrize("follows", [True, False])
def test_that_an_alias_leads_nowhere_holds_no_longer_than_the_alias(nameserver, follows):
    async def work(server):
        resolver = StubResolver([server.address])
        for _ in range(2):
            with pytest.raises(NoSuchName):
                await resolver.mx(b"gone.test")
        assert asked(server, "gone.test") == 2
        assert (await resolver.mx(b"alias.test")).ttl <= 0

    run(nameserver, work, follows=follows, ttls={("gone.test", "CNAME"): 0, ("alias.test", "CNAME"): 0})


@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_the_addresses_of_a_host_hold_no_longer_than_those_of_either_family(nameserver, kind):
    async def work(server):
        assert 0 < (await StubResolver([server.address]).addresses(b"host.test")).ttl <= 20

    run(nameserver, work, ttls={("host.test", kind): 20})


@pytest.mark.parametrize(("zone", "kept"), [("test.", 1), (".", 1), (None, 2), ("other.", 2), ("a.test.", 2)])
def test_what_is_denied_is_believed_again_only_by_the_word_of_its_own_zone(nameserver, zone, kept):
    """RFC 2308 section 5: without an SOA it must not be; one of another zone says nothing of this."""

    async def work(server):
        resolver = StubResolver([server.address])
        for _ in range(2):
            with pytest.raises(NoSuchName):
                await resolver.mx(b"nowhere.test")
            assert (await resolver.mx(b"host.test")).records == ()
        assert (asked(server, "nowhere.test"), asked(server, "host.test")) == (kept, kept)

    run(nameserver, work, zone=zone)


def test_a_lookup_ends_in_its_time_and_says_so_however_long_the_servers_may_take(nameserver):
    async def work(server, other):
        patience = Patience(a_try=600.0, a_lookup=0.05)
        resolver = StubResolver([server.address, other.address], patience=patience)
        asked = rf"{re.escape(str(server.address))}, {re.escape(str(other.address))}"
        async with asyncio.timeout(20):  # else it would be the server's ten minutes
            await ask(resolver, asked)

    async def ask(resolver, asked):
        with pytest.raises(NoReply, match=rf"^looking up A of host\.test takes too long, asking {asked}$"):
            await resolver.addresses(b"host.test")
        with pytest.raises(NoReply, match=r"^looking up MX of two\.test takes too long"):
            await resolver.mx(b"two.test")

    run(nameserver, work, count=2, silent={"host.test", "two.test"})


def test_servers_that_are_silent_are_named(nameserver):
    async def work(server, other):
        resolver = StubResolver([server.address, other.address], patience=Patience(a_try=0.02))
        named = f"looking up MX of two.test failed: no reply from {server.address}, {other.address}"
        with pytest.raises(NoReply, match=f"^{re.escape(named)}$"):
            await resolver.mx(b"two.test")

    run(nameserver, work, count=2, silent={"two.test"})


# --- many hosts -----------------------------------------------------------------------


def within(seconds, addresses, names):
    async def main():
        return await look_up_hosts(addresses, names, asyncio.timeout(seconds))

    return asyncio.run(main())


def test_many_hosts_are_looked_up_in_bounded_time_and_what_is_known_then_counts():
    async def addresses(host):
        if host == b"never":
            await asyncio.Event().wait()
        if host == b"soft":
            raise LookupFailed("later")
        return Answer((host.decode(),), 60)

    names = (b"never", b"a", b"soft", *([b"b"] * 50))
    found = within(0.05, addresses, names)
    assert isinstance(found[0], NoReply)
    assert found[1].records == ("a",)
    assert isinstance(found[2], LookupFailed)
    assert all(each.records == ("b",) for each in found[3:])


def test_hosts_are_looked_up_the_first_ones_first_and_few_at_once():
    begun, most = [], 0

    async def addresses(host):
        nonlocal most
        begun.append(host)
        most = max(most, len(begun) - done)
        await asyncio.sleep(0)
        count()
        return Answer((), 60)

    done = 0

    def count():
        nonlocal done
        done += 1

    names = [b"%d" % number for number in range(100)]
    within(30.0, addresses, names)
    assert begun == names
    assert most <= 10
