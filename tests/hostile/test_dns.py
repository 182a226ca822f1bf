"""A name server that means harm: each lookup ends in bounded time and work, with an answer or our errors.

Time is bounded by a short patience, work by a count of the lines of Python that run where a reply is made
to cost as much as it can.
"""

import asyncio
import contextlib
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.dns import (
    BadReply,
    LookupFailed,
    NameServer,
    NoReply,
    NoSuchName,
    Patience,
    ServerFailed,
    StubResolver,
    wire,
)

QUICK = Patience(a_try=0.05, a_lookup=0.5)
NAME = b"victim.test"
LONG = b"\1a" * 126 + b"\0"
POINTER = b"\xc0\x0c"


class Enemy(asyncio.DatagramProtocol):
    """Answers datagrams with what `udp(query)` gives, and serves each connection by `tcp`."""

    def __init__(self, udp=None, tcp=None):
        self.udp = udp or (lambda query: [reply(query, flags=0x8380)])
        self.tcp = tcp
        self.asked = 0

    async def __aenter__(self):
        self.served = set()
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", self.port))
        return self

    async def __aexit__(self, *_):
        self.transport.close()
        self.server.close()
        for task in self.served:
            task.cancel()
        await asyncio.gather(*self.served, return_exceptions=True)

    def datagram_received(self, data, peer):
        self.asked += 1
        for each in self.udp(data):
            self.transport.sendto(each, peer)

    async def _serve(self, reader, writer):
        self.served.add(asyncio.current_task())
        try:
            query = (await reader.readexactly(2), await reader.readexactly(29 + 11))[1]
            if self.tcp is not None:
                await self.tcp(query, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


def reply(query, body=b"", counts=(0, 0, 0), flags=0x8180, identity=None, question=None):
    """A reply to the query with these records; the query's own OPT is not repeated."""
    asked = query[12:-11] if question is None else question
    header = struct.pack("!5H", flags, 1 if asked else 0, *counts)
    return (query[:2] if identity is None else identity) + header + asked + body


def record(kind, data, owner=POINTER, ttl=60):
    return owner + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def ask(enemy, work=None, trusted=False, patience=QUICK):
    """What the lookup of an MX gives, an error as a value."""

    async def main():
        async with enemy:
            resolver = StubResolver([NameServer("127.0.0.1", enemy.port, trusted)], patience=patience)
            try:
                return await (work(resolver) if work else resolver.mx(NAME))
            except (LookupFailed, NoSuchName) as error:
                return error

    return asyncio.run(main())


# --- datagrams ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        lambda query: b"\0",
        lambda query: query,  # an echo
        lambda query: reply(query, identity=bytes((query[0] ^ 1, query[1]))),
    ],
)
def test_what_is_no_reply_is_waited_through_and_a_flood_of_it_ends_at_tcp(made):
    assert isinstance(ask(Enemy(lambda query: [made(query)])), NoReply)
    connected = []

    async def tcp(query, writer):
        connected.append(query)
        answer = reply(query, flags=0x8183)
        writer.write(len(answer).to_bytes(2, "big") + answer)
        await writer.drain()

    assert isinstance(ask(Enemy(lambda query: [made(query)] * 1000, tcp)), NoSuchName)
    assert connected


@pytest.mark.parametrize(
    "made",
    [
        lambda query: reply(query, b"\xff" * 300, (5, 0, 0)),
        lambda query: reply(query, counts=(65535, 65535, 65535)),
        lambda query: reply(query, question=b"\5other\4test\0\0\x0f\0\1"),
        lambda query: reply(query, question=query[12:-15] + b"\0\1\0\1"),
        lambda query: reply(query, question=query[12:-15] + b"\0\x0f\0\3"),
        lambda query: reply(query, question=b""),
        lambda query: reply(query, flags=0xA980),
        lambda query: reply(query, record(wire.MX, b"\0\5\xc0\xff"), (1, 0, 0)),
        lambda query: reply(query, record(wire.MX, b"\0\5\xc0" + bytes((12 + 17 + 10 + 4,))), (1, 0, 0)),
        lambda query: reply(query, record(wire.MX, b"\0\5" + LONG + b"\0"), (1, 0, 0)),
        lambda query: reply(query, record(wire.MX, b"\0\5\x3f" + b"a" * 63 * 4), (1, 0, 0)),
        lambda query: reply(query, record(wire.MX, b"\0"), (1, 0, 0)),
        lambda query: reply(query, record(wire.CNAME, b"\x40a\0"), (1, 0, 0)),
        lambda query: reply(query, record(wire.SOA, b"\0\0"), (0, 1, 0)),
        lambda query: reply(query, record(wire.NS, b"\1a\0"), (0, 1, 0)),
    ],
)
def test_a_reply_that_cannot_be_read_or_is_anothers_is_a_bad_reply_at_once(made):
    enemy = Enemy(lambda query: [made(query)])
    assert isinstance(ask(enemy, patience=Patience(a_try=600.0, a_lookup=600.0)), BadReply)
    assert enemy.asked == 1


@settings(max_examples=60)
@given(st.binary(max_size=200), st.tuples(*[st.integers(0, 20)] * 3), st.integers(0, 0xFFFF))
def test_junk_after_the_question_is_one_of_our_errors_or_an_answer(junk, counts, flags):
    ask(Enemy(lambda query: [reply(query, junk, counts, flags | 0x8000)]), patience=Patience(0.01, 0.02))


def test_aliases_in_a_circle_without_end_and_to_itself():
    two = b"\3two\4test\0"
    circle = record(wire.CNAME, two) + record(wire.CNAME, POINTER, owner=two)
    assert isinstance(ask(Enemy(lambda query: [reply(query, circle, (2, 0, 0))])), BadReply)
    itself = record(wire.CNAME, POINTER)
    assert isinstance(ask(Enemy(lambda query: [reply(query, itself, (1, 0, 0))])), BadReply)

    def another(query):
        """Each name is an alias for one that was not there before."""
        owner = b"\1%c" % (ord("a") + enemy.asked % 26)
        return [reply(query, record(wire.CNAME, owner + b"\4test\0"), (1, 0, 0))]

    enemy = Enemy(another)
    assert isinstance(ask(enemy), BadReply)
    assert enemy.asked <= 12


@pytest.mark.parametrize("flags", [0x8182, 0x8185, 0x8184, 0x8181, 0x818F])
def test_an_error_is_a_server_that_fails_with_or_without_its_question(flags):
    for question in (None, b""):
        assert isinstance(
            ask(Enemy(lambda query, q=question: [reply(query, flags=flags, question=q)])), ServerFailed
        )


def test_records_of_other_names_and_classes_are_not_believed():
    other = record(wire.MX, b"\0\5\3bad\4test\0", owner=b"\5other\4test\0")
    chaos = POINTER + struct.pack("!HHIH", wire.MX, 3, 60, 4) + b"\0\5\1x"
    body = other + chaos + record(wire.MX, b"\0\5\4good\xc0" + bytes((12 + 7,)))
    found = ask(Enemy(lambda query: [reply(query, body, (3, 0, 0))]))
    assert [each.host for each in found.records] == [b"good.test"]


@pytest.mark.parametrize("ttl", [0, 1 << 31, (1 << 32) - 1])
def test_a_ttl_that_is_none_is_not_kept(ttl):
    enemy = Enemy(lambda query: [reply(query, record(wire.MX, b"\0\5\1a\0", ttl=ttl), (1, 0, 0))])

    async def work(resolver):
        for _ in range(3):
            assert (await resolver.mx(NAME)).ttl == 0

    ask(enemy, work)
    assert enemy.asked == 3


def test_a_ttl_of_68_years_is_kept_for_an_hour():
    enemy = Enemy(lambda query: [reply(query, record(wire.MX, b"\0\5\1a\0", ttl=(1 << 31) - 1), (1, 0, 0))])

    async def work(resolver):
        await resolver.mx(NAME)
        return await resolver.mx(NAME)

    assert ask(enemy, work).ttl <= 3600
    assert enemy.asked == 1


def test_dnssec_status_is_not_believed_of_a_server_that_is_not_trusted():
    def enemy():
        return Enemy(lambda query: [reply(query, record(wire.MX, b"\0\5\1a\0"), (1, 0, 0), 0x81A0)])

    assert not ask(enemy()).authentic
    assert ask(enemy(), trusted=True).authentic


# --- connections ----------------------------------------------------------------------


async def silence(query, writer):
    await asyncio.Event().wait()


async def trickle(query, writer):
    while True:
        writer.write(b"\0")
        await writer.drain()
        await asyncio.sleep(0.001)


async def too_short(query, writer):
    writer.write(b"\xff\xff" + query)


async def nothing(query, writer):
    writer.write(b"\0\0")


async def junk_without_end(query, writer):
    while True:
        writer.write(b"\xff" * 65536)
        await writer.drain()


async def anothers(query, writer):
    answer = reply(query, identity=bytes((query[0] ^ 1, query[1])))
    writer.write(len(answer).to_bytes(2, "big") + answer)


async def hang_up(query, writer):
    writer.transport.abort()


async def truncated_again(query, writer):
    answer = reply(query, flags=0x8380)
    writer.write(len(answer).to_bytes(2, "big") + answer)
    await writer.drain()
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "tcp",
    [silence, trickle, too_short, nothing, junk_without_end, anothers, hang_up, truncated_again],
)
def test_a_connection_that_misbehaves_is_a_failed_lookup(tcp):
    assert isinstance(ask(Enemy(tcp=tcp)), LookupFailed)


# --- size -----------------------------------------------------------------------------


def large(name):
    """Bodies of nearly 64 KiB, with the number of their records."""
    room = 65535 - 12 - 17 - 2
    if name == "addresses":
        each = [record(wire.A, struct.pack("!I", number)) for number in range(room // 16)]
        return b"".join(each), len(each)
    if name == "exchangers":
        first = record(wire.MX, b"\0\1" + LONG)
        at = 0xC000 | (12 + 17 + 14)
        each = [
            record(wire.MX, struct.pack("!HH", number, at + 2 * (number % 100)))
            for number in range((room - len(first)) // 16)
        ]
        return first + b"".join(each), len(each) + 1
    if name == "pointers":
        # A pointer to a pointer to a pointer, 8,000 times.
        links = (struct.pack("!H", 0xC000 | (41 + 2 * number)) for number in range(8000))
        chain = record(99, b"\0\0" + b"".join(links))
        each = [record(wire.MX, struct.pack("!HH", number, 0xC000 | 16001)) for number in range(1000)]
        return chain + b"".join(each), len(each) + 1
    each = [b"\0" + struct.pack("!HHIH", 1000 + number, 1, 60, 0) for number in range(room // 11)]
    return b"".join(each), 10_000


def steps(work):
    """How many lines of Python it takes."""
    count = 0

    def line(frame, event, argument):
        nonlocal count
        count += event == "line"
        return line

    before = sys.gettrace()
    sys.settrace(line)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("name", ["addresses", "exchangers", "pointers", "kinds"])
def test_64_kib_made_to_cost_much_cost_little(name):
    body, count = large(name)
    query = wire.ask(b"\0\1", wire.Question(wire.name_of(NAME), wire.MX), authentic=False)
    data = reply(query, body, (count, 0, 0))
    assert len(data) <= 65535

    def work():
        with contextlib.suppress(wire.Malformed):
            wire.read(data, wire.MX)

    assert steps(work) < 1_500_000

    async def tcp(query, writer):
        answer = reply(query, body, (count, 0, 0))
        writer.write(len(answer).to_bytes(2, "big") + answer)
        await writer.drain()

    found = ask(Enemy(tcp=tcp), patience=Patience(a_try=60.0, a_lookup=60.0))
    if name == "exchangers":
        assert len(found.records) == 100
    else:
        assert isinstance(found, LookupFailed) or not found.records
