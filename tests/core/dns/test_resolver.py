"""The resolver against a real name server on loopback."""

import asyncio

import pytest

from openqmail.core.dns import (
    LookupFailed,
    MailExchanger,
    NoReply,
    NoSuchName,
    Patience,
    ServerFailed,
    StubResolver,
)

RECORDS = {
    ("many.test", "MX"): [f"{200 - number} mx{number}.test." for number in range(150)],
    ("two.test", "MX"): ["20 second.test.", "10 First.TEST."],
    ("null.test", "MX"): ["0 ."],
    ("odd.test", "MX"): ["5 a\\032b.test.", "10 good.test."],
    ("host.test", "A"): ["192.0.2.1", "192.0.2.2"],
    ("host.test", "AAAA"): ["2001:db8::1"],
    ("v4.test", "A"): ["192.0.2.4"],
    ("soft.test", "MX"): "SERVFAIL",
    ("soft.test", "A"): "SERVFAIL",
    ("soft.test", "AAAA"): "SERVFAIL",
    ("half.test", "A"): ["192.0.2.9"],
    ("half.test", "AAAA"): "SERVFAIL",
    ("softer.test", "AAAA"): "SERVFAIL",
    ("refused.test", "MX"): "REFUSED",
    ("nearly.test", "A"): "NXDOMAIN",
    ("nearly.test", "AAAA"): "SERVFAIL",
    ("crowd.test", "A"): [f"192.0.2.{number}" for number in range(60)],
    ("crowd.test", "AAAA"): [f"2001:db8::{number}" for number in range(60)],
    ("alias.test", "CNAME"): ["host.test."],
}


def ask(nameserver, work, ttl=60, prepare=None, patience=None):
    async def main():
        async with nameserver(dict(RECORDS), ttl) as server:
            if prepare is not None:
                prepare(server)
            return await work(StubResolver([server.address], patience=patience), server)

    return asyncio.run(main())


def test_exchangers_come_by_preference_in_lower_case(nameserver):
    answer = ask(nameserver, lambda resolver, _: resolver.mx(b"Two.Test"))
    assert answer.records == (MailExchanger(10, b"first.test"), MailExchanger(20, b"second.test"))
    assert 0 < answer.ttl <= 60


def test_no_more_than_a_hundred_exchangers_the_best_ones(nameserver):
    def prepare(server):
        server.truncated.add("many.test")

    records = ask(nameserver, lambda resolver, _: resolver.mx(b"many.test"), prepare=prepare).records
    assert len(records) == 100
    assert [record.preference for record in records] == sorted(range(51, 151))


def test_a_truncated_answer_is_fetched_by_tcp(nameserver):
    async def work(resolver, server):
        answer = await resolver.addresses(b"host.test")
        return answer, server.asked

    answer, asked = ask(nameserver, work, prepare=lambda server: server.truncated.add("host.test"))
    assert set(answer.records) == {"192.0.2.1", "192.0.2.2", "2001:db8::1"}
    assert asked[("host.test", "A", "tcp")] == 1


def test_a_null_mx_is_told(nameserver):
    records = ask(nameserver, lambda resolver, _: resolver.mx(b"null.test")).records
    assert records == (MailExchanger(0, b""),)


def test_an_exchanger_that_is_no_host_name_is_passed_over(nameserver):
    records = ask(nameserver, lambda resolver, _: resolver.mx(b"odd.test")).records
    assert records == (MailExchanger(10, b"good.test"),)


def test_a_name_without_such_records_is_an_empty_answer(nameserver):
    assert ask(nameserver, lambda resolver, _: resolver.mx(b"host.test")).records == ()
    assert ask(nameserver, lambda resolver, _: resolver.addresses(b"two.test")).records == ()


def test_addresses_of_both_families(nameserver):
    assert ask(nameserver, lambda resolver, _: resolver.addresses(b"v4.test")).records == ("192.0.2.4",)
    records = ask(nameserver, lambda resolver, _: resolver.addresses(b"alias.test")).records
    assert sorted(records[:2]) == ["192.0.2.1", "192.0.2.2"]
    assert records[2:] == ("2001:db8::1",)


def test_one_family_that_fails_does_not_hide_the_other(nameserver):
    assert ask(nameserver, lambda resolver, _: resolver.addresses(b"half.test")).records == ("192.0.2.9",)


@pytest.mark.parametrize(
    "name", [b"nowhere.test", b"", b"a..b", b"x" * 64 + b".test", b"a b.test", b"a\0.test"]
)
def test_a_name_that_does_not_exist_or_cannot(nameserver, name):
    with pytest.raises(NoSuchName):
        ask(nameserver, lambda resolver, _: resolver.mx(name))
    with pytest.raises(NoSuchName):
        ask(nameserver, lambda resolver, _: resolver.addresses(name))


def test_no_more_than_fifty_addresses_of_each_family(nameserver):
    records = ask(nameserver, lambda resolver, _: resolver.addresses(b"crowd.test")).records
    assert [":" in each for each in records] == [False] * 50 + [True] * 50


def test_a_host_is_not_gone_while_one_of_its_families_cannot_be_looked_up(nameserver):
    with pytest.raises(ServerFailed):
        ask(nameserver, lambda resolver, _: resolver.addresses(b"nearly.test"))


def test_a_failing_server_is_temporary(nameserver):
    for name in (b"soft.test", b"refused.test"):
        with pytest.raises(ServerFailed, match=r"127\.0\.0\.1:\d+ says (SERVFAIL|REFUSED)"):
            ask(nameserver, lambda resolver, _, name=name: resolver.mx(name))
    for name in (b"soft.test", b"softer.test"):
        with pytest.raises(ServerFailed):
            ask(nameserver, lambda resolver, _, name=name: resolver.addresses(name))


def test_a_silent_server_is_temporary_and_told_from_one_that_fails(nameserver):
    with pytest.raises(NoReply):
        ask(
            nameserver,
            lambda resolver, _: resolver.mx(b"two.test"),
            prepare=lambda server: server.silent.add("two.test"),
            patience=Patience(a_try=0.02, a_lookup=0.3),
        )


def test_what_is_known_is_not_asked_again(nameserver):
    async def work(resolver, server):
        for _ in range(3):
            await resolver.mx(b"two.test")
            with pytest.raises(NoSuchName):
                await resolver.mx(b"nowhere.test")
            with pytest.raises(LookupFailed):
                await resolver.mx(b"soft.test")
        return server.asked

    asked = ask(nameserver, work, patience=Patience(a_failure=0.0))
    assert asked[("two.test", "MX", "udp")] == 1
    assert asked[("nowhere.test", "MX", "udp")] == 1
    assert asked[("soft.test", "MX", "udp")] == 3


def test_a_ttl_of_zero_is_obeyed(nameserver):
    async def work(resolver, server):
        for _ in range(3):
            await resolver.mx(b"two.test")
        return server.asked

    assert ask(nameserver, work, ttl=0)[("two.test", "MX", "udp")] == 3


def test_it_works_on_uvloop(nameserver):
    uvloop = pytest.importorskip("uvloop")

    async def main():
        async with nameserver(dict(RECORDS)) as server:
            server.truncated.add("v4.test")
            resolver = StubResolver([server.address])
            return await resolver.mx(b"two.test"), await resolver.addresses(b"v4.test")

    loop = uvloop.new_event_loop()
    try:
        exchangers, addresses = loop.run_until_complete(main())
    finally:
        loop.close()
    assert exchangers.records[0].host == b"first.test"
    assert addresses.records == ("192.0.2.4",)


def test_what_is_asked_about_clients(nameserver):
    async def story():
        records = {
            ("2.0.0.127.bl.test", "A"): ["127.0.0.2"],
            ("2.0.0.127.bl.test", "TXT"): ['"see" " here"'],
            ("2.0.0.127.in-addr.arpa", "PTR"): ["Host.test."],
        }
        async with nameserver(records) as server:
            resolver = StubResolver([server.address])
            assert (await resolver.ipv4(b"2.0.0.127.bl.test")).records == ("127.0.0.2",)
            assert (await resolver.texts(b"2.0.0.127.bl.test")).records == (b"see here",)
            assert (await resolver.pointers(b"2.0.0.127.in-addr.arpa")).records == (b"host.test",)
            with pytest.raises(NoSuchName):
                await resolver.ipv4(b"3.0.0.127.bl.test")

    asyncio.run(story())
