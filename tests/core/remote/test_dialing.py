"""Which of several addresses a connection is made to: the race, in simulated time."""

import asyncio
import socket
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.remote import Source, Stop
from openqmail.core.remote.dialing import MOST_AT_ONCE, SECONDS_AHEAD, NotBound, connect, equals, race
from openqmail.core.world.simulated.loop import SimulatedLoop

NEVER = float("inf")


class Net:
    """Each host (a number) connects, or fails, after so many seconds; `log` tells what happened when."""

    def __init__(self, ways):
        self.ways = ways
        self.log, self.dropped = [], []
        self.open = self.most = 0

    def note(self, what, host):
        self.log.append((round(asyncio.get_running_loop().time() - self.began, 3), what, host))

    async def dial(self, stop):
        host = int(stop.address)
        how, seconds = self.ways[host]
        self.note("dial", host)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await (asyncio.Event().wait() if seconds == NEVER else asyncio.sleep(seconds))
            if how == "fails":
                raise ConnectionRefusedError
            if how == "unbound":
                raise NotBound("192.0.2.1", "no")
            self.note("made", host)
            return host
        except asyncio.CancelledError:
            self.note("cancelled", host)
            raise
        finally:
            self.open -= 1

    def run(self):
        async def main():
            self.began = asyncio.get_running_loop().time()
            try:
                return await race(stops(len(self.ways)), self.dial, self.dropped.append)
            finally:
                await asyncio.sleep(0.001)  # for what was cancelled
                self.log.append("over")

        with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
            return runner.run(main())


def stops(count):
    return tuple(Stop(b"", str(host), 25) for host in range(count))


def test_the_second_address_is_tried_when_the_first_has_not_connected_in_a_quarter_of_a_second():
    net = Net([("connects", NEVER), ("connects", 0.1)])
    won = net.run()
    assert (won.made, won.left) == (1, stops(1)[:1])
    assert net.log[:4] == [(0, "dial", 0), (0.25, "dial", 1), (0.35, "made", 1), (0.35, "cancelled", 0)]


def test_the_next_address_is_tried_at_once_when_one_fails():
    net = Net([("fails", 0.01), ("fails", 0.01), ("connects", 0.01)])
    won = net.run()
    assert (won.made, won.left) == (2, ())
    assert [each[0] for each in net.log if each[1] == "dial"] == [0, 0.01, 0.02]


def test_the_first_address_alone_is_tried_when_it_is_quick():
    net = Net([("connects", 0.2), ("connects", 0)])
    won = net.run()
    assert (won.made, won.left) == (0, stops(2)[1:])
    assert [each for each in net.log if each[1] == "dial"] == [(0, "dial", 0)]


def test_the_first_wins_that_connects_not_the_first_that_began():
    net = Net([("connects", 0.6), ("connects", 0.2)])
    assert net.run().made == 1
    assert not net.dropped


def test_of_two_that_connect_in_the_same_moment_the_better_wins():
    assert Net([("connects", 0.5), ("connects", 0.25)]).run().made == 0


def test_nothing_is_left_when_all_fail():
    net = Net([("fails", 0.4)] * 3)
    assert net.run() is None
    assert [each[2] for each in net.log if each[1] == "dial"] == [0, 1, 2]


def test_an_address_that_cannot_be_bound_ends_it():
    net = Net([("unbound", 0), ("connects", 0)])
    with pytest.raises(NotBound):
        net.run()
    assert net.log == [(0, "dial", 0), "over"]


def test_what_is_under_way_when_an_address_cannot_be_bound_may_still_win():
    net = Net([("connects", 0.4), ("unbound", 0), ("connects", 0)])
    won = net.run()
    assert (won.made, won.left) == (0, ())
    assert [each[2] for each in net.log if each[1] == "dial"] == [0, 1]


def test_a_race_that_is_given_up_gives_up_every_address():
    net = Net([("connects", NEVER)] * 2)

    async def main():
        net.began = asyncio.get_running_loop().time()
        task = asyncio.create_task(race(stops(2), net.dial, net.dropped.append))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.001)

    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        runner.run(main())
    assert sorted(each[2] for each in net.log if each[1] == "cancelled") == [0, 1]


WAYS = st.tuples(st.sampled_from(["connects", "fails"]), st.sampled_from([0, 0.1, 0.25, 0.3, 1, 5]))


@settings(max_examples=200)
@given(st.lists(WAYS, min_size=1, max_size=9))
def test_whatever_the_addresses_do(ways):
    net = Net(ways)
    won = net.run()
    dialled = [each[2] for each in net.log if each[1] == "dial"]
    assert dialled == list(range(len(dialled))), "in their order, each once"
    assert net.most <= MOST_AT_ONCE
    begun = [each[0] for each in net.log if each[1] == "dial"]
    failed = {each: ways[each][1] for each in dialled if ways[each][0] == "fails"}
    ends = [round(begun[host] + seconds, 3) for host, seconds in failed.items()]
    for before, after in pairwise(begun):
        # Early only because one has failed.
        assert after - before >= SECONDS_AHEAD - 0.002 or any(abs(after - end) < 0.002 for end in ends)
    made = [each[2] for each in net.log if each[1] == "made"]
    if any(how == "connects" for how, _ in ways):
        assert won.made in made
        assert sorted([won.made, *net.dropped]) == sorted(made), "none is lost, open"
        assert not {int(stop.address) for stop in won.left} & {won.made}
        assert set(range(len(ways))) - {int(stop.address) for stop in won.left} - {won.made} <= set(failed)
    else:
        assert won is None
        assert dialled == list(range(len(ways)))
    assert net.open == 0


@pytest.mark.parametrize("source", [Source(), Source("127.0.0.2", None)])
def test_what_is_written_goes_out_at_once(source):
    """Without TCP_NODELAY each command might wait for the answer to the one before."""

    async def main():
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        stop = Stop(b"", *server.sockets[0].getsockname())
        with await connect(stop, source, 5) as made:
            transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=made)
            assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            transport.abort()
        server.close()

    asyncio.run(main())


def test_only_stops_as_good_as_the_first_run_against_each_other():
    made = [Stop(b"", str(at), 25, preference) for at, preference in enumerate((10, 10, 20, 10))]
    assert equals(made) == tuple(made[:2])
