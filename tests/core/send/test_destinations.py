"""Hosts that fail, and hosts that are slow: what waits for them, and that nothing else does."""

from collections.abc import Callable
from itertools import count, pairwise
from typing import Any

import pytest

from openqmail.core.control.bindings import Bindings, Source
from openqmail.core.ports import DestinationState
from openqmail.core.send.destination import LEAST, MOST, OPENING
from openqmail.core.send.events import Flush, Load, Reported, StartRemote, Wake
from openqmail.core.send.routing import Routes
from openqmail.core.send.summary import summarize
from openqmail.core.values import Outcome, Result

BIRTH = 1_700_000_000
K, Z, D = Outcome.SUCCESS, Outcome.DEFERRAL, Outcome.FAILURE
Plays = Callable[..., Any]


def domains(world: Any) -> list[bytes]:
    return [start.domain for start in world.starts.values() if isinstance(start, StartRemote)]


def fail_all(world: Any) -> None:
    """Every delivery that runs meets a host that is dead."""
    for delivery in list(world.starts):
        world.fail(delivery)
    world.write_all()


def wake(world: Any) -> None:
    """The next time that was asked for has come."""
    world.now = max(world.now, world.wake)
    world.tell(Wake())
    world.load_all()


def dead(world: Any, count: int, domain: bytes = b"dead.test") -> None:
    """So many messages to a host that has just failed often enough to be left alone."""
    for number in range(count):
        world.accept(number, [b"a@" + domain])
    fail_all(world)
    assert not world.starts


def test_a_host_that_fails_is_left_alone_and_what_waits_for_it_is_numbers(play: Plays) -> None:
    world = play()
    dead(world, 3000)
    tried = [line for line in world.log.lines() if line.startswith(b"starting")]
    assert len(tried) == OPENING
    assert world.manager.messages == world.manager.waiting == 3000
    state = world.manager.destination(b"dead.test")
    assert world.now + LEAST <= state.resting_until <= world.now + 2 * LEAST
    assert state == DestinationState(
        "dead.test", 0, 1, 3000 - OPENING, 2, state.resting_until, "no connection\n"
    )


def test_the_log_says_when_a_host_is_left_alone_and_when_it_answers_again(play: Plays) -> None:
    world = play()
    dead(world, 20)
    state = world.manager.destination(b"dead.test")
    told = [line for line in world.log.lines() if line.startswith(b"destination")]
    seconds = int(state.resting_until - world.now)
    assert told == [b"destination dead.test rests: seconds %d failures 2 text no_connection/" % seconds]
    row = summarize(
        world.queue[19], Routes(world.settings), world.now, world.manager.resting(), world.manager.destination
    ).recipients[0]
    assert (row.next, row.destination) == (state.resting_until, state)
    wake(world)
    world.report(next(iter(world.starts)), K)
    told = [line for line in world.log.lines() if line.startswith(b"destination")]
    assert told[1:] == [b"destination dead.test answers again"]
    while world.starts:
        world.report(next(iter(world.starts)), K)
        world.write_all()
    assert sum(line.startswith(b"destination") for line in world.log.lines()) == 2


def test_while_it_rests_nothing_of_it_is_loaded_or_told(play: Plays) -> None:
    world = play()
    dead(world, 1000)
    until = world.manager.destination(b"dead.test").resting_until
    lines = len(world.log.lines())
    for _ in range(int(LEAST) - 1):
        world.now += 1
        assert world.tell(Wake()) == [] or world.wake > world.now
        assert not world.loads
    assert len(world.log.lines()) == lines and world.wake <= until


def test_one_delivery_probes_it_and_a_success_opens_it_at_once(play: Plays) -> None:
    world = play()
    dead(world, 200)
    wake(world)
    assert len(world.starts) == 1
    (probe,) = world.starts
    world.report(probe, K)
    world.write_all()
    world.load_all()
    assert len(world.starts) == OPENING
    assert world.manager.destination(b"dead.test").last is None
    while world.starts:
        world.report(next(iter(world.starts)), K)
        world.write_all()
        world.load_all()
    assert len(world.ended) == 200 - OPENING
    assert world.wake > world.now  # those that were tried in vain wait for their own time
    world.now += 400
    world.tell(Wake())
    while world.starts or world.loads:
        world.load_all()
        for delivery in list(world.starts):
            world.report(delivery, K)
        world.write_all()
    assert len(world.ended) == 200


def test_messages_for_which_alone_the_host_fails_do_not_keep_the_others(play: Plays) -> None:
    world = play()
    for number in range(10):  # these are older, and their senders are refused with 421
        world.accept(number, [b"a@far.test"])
    fail_all(world)
    good = set(range(100, 140))
    for number in good:
        world.accept(number, [b"a@far.test"])
    for _ in range(200):
        if good <= world.ended:
            break
        wake(world)
        while world.starts:
            for delivery, start in list(world.starts.items()):
                if start.stored.id.number in good:
                    world.report(delivery, K)
                else:
                    world.fail(delivery)
            world.write_all()
            world.load_all()
    assert good <= world.ended
    assert world.now < BIRTH + 3600, "the bad ones probed again and again"


def test_who_failed_last_does_not_probe_again_while_there_are_others(play: Plays) -> None:
    world = play(queuelifetime=10**7)
    dead(world, OPENING + 2)
    probes = []
    for _ in range(60):
        wake(world)
        for start in world.starts.values():
            probes.append(start.stored.id.number)
        fail_all(world)
    assert len(probes) > 20 and not any(one == other for one, other in pairwise(probes))
    assert len(set(probes)) == OPENING + 2


def test_after_a_flush_the_oldest_are_not_all_that_is_tried(play: Plays) -> None:
    world = play()
    dead(world, 300)
    world.tell(Flush())
    world.load_all()
    tried = sorted(start.stored.id.number for start in world.starts.values())
    assert tried != list(range(OPENING, 2 * OPENING)) and tried != list(range(OPENING))


def test_each_rest_is_longer_up_to_an_hour_and_at_an_odd_moment(play: Plays) -> None:
    world = play(queuelifetime=10**7)
    dead(world, 500)
    rests = []
    for _ in range(12):
        state = world.manager.destination(b"dead.test")
        rests.append(state.resting_until - world.now)
        world.now = state.resting_until
        world.tell(Wake())
        world.load_all()
        assert len(world.starts) == 1, "more than one probe"
        fail_all(world)
    assert all(LEAST <= rest <= MOST + 1 for rest in rests)
    assert rests[0] < 2 * LEAST < rests[2] and min(rests[-4:]) > MOST / 2
    assert len(set(rests)) == len(rests)


def test_only_failures_in_a_row_count_and_other_deferrals_are_none(play: Plays) -> None:
    world = play(concurrencydestination=1)
    for number in range(9):
        world.accept(number, [b"a@far.test"])
    for end in (world.fail, world.report, world.fail, world.report, world.report, world.report, world.fail):
        (delivery,) = world.starts
        if end == world.fail:
            end(delivery)
        else:
            end(delivery, Z)
        world.write_all()
    assert len(world.starts) == 1
    assert world.manager.destination(b"far.test").failures == 1


def test_a_window_does_not_grow_by_what_is_put_off(play: Plays) -> None:
    """450 says that the host is there, and not that it wants more of this."""
    world = play()
    for number in range(200):
        world.accept(number, [b"a@far.test"])
    for _ in range(100):
        assert len(world.starts) == OPENING
        world.report(next(iter(world.starts)), Z)
        world.write_all()
        world.load_all()
    assert world.manager.destination(b"far.test").limit == OPENING


def test_a_probe_that_is_put_off_opens_nothing_and_the_next_failure_is_the_next_rest(play: Plays) -> None:
    world = play()
    dead(world, 20)
    wake(world)
    for _ in range(5):
        assert len(world.starts) == 1
        world.report(next(iter(world.starts)), Z)
        world.write_all()
        world.load_all()
    assert world.manager.destination(b"dead.test").resting_until is None
    fail_all(world)
    state = world.manager.destination(b"dead.test")
    assert not world.starts and state.resting_until >= world.now + LEAST


def test_a_last_attempt_that_is_put_off_ends_its_message_and_opens_nothing(play: Plays) -> None:
    """The message fails because it is too old; of the host that says as little as before."""
    world = play(queuelifetime=3000)
    dead(world, 20)
    world.now = BIRTH + 3001
    wake(world)
    for ended in range(1, 6):
        assert len(world.starts) == 1
        world.report(next(iter(world.starts)), Z)
        world.write_all()
        world.load_all()
        assert len(world.ended) == ended
    assert world.manager.destination(b"dead.test").limit == 1


def test_who_is_refused_for_good_was_answered_by_a_host_that_is_well(play: Plays) -> None:
    """550 is a host's word on one recipient: what waits for the others may go."""
    world = play()
    dead(world, 20)
    wake(world)
    (probe,) = world.starts
    world.report(probe, D)
    world.write_all()
    world.load_all()
    assert len(world.starts) == OPENING


def test_nothing_else_waits_for_a_host_that_rests(play: Plays) -> None:
    world = play()
    for number in range(100):
        world.accept(number, [b"a@dead%d.test" % (number % 20)])
    while world.starts:
        fail_all(world)
    world.accept(500, [b"a@live.test", b"bob@example.test", b"a@dead1.test"])
    started = [(start.stored.id.number, type(start).__name__) for start in world.starts.values()]
    assert sorted(started) == [(500, "StartLocal"), (500, "StartRemote")]
    assert domains(world) == [b"live.test"]


def test_a_message_to_two_hosts_reaches_the_one_and_then_the_other(play: Plays) -> None:
    world = play()
    dead(world, 2)
    world.accept(10, [b"a@dead.test", b"a@live.test"])
    (delivery,) = world.starts
    world.report(delivery, K)
    world.write_all()
    assert not world.starts and 10 in world.queue
    assert world.queue[10].due == (0, 0)  # it is due: its own schedule is not what it waits for
    world.now = world.manager.destination(b"dead.test").resting_until
    world.tell(Wake())
    world.load_all()
    assert domains(world) == [b"dead.test"]
    world.report(next(iter(world.starts)), K)
    world.write_all()
    assert 10 in world.ended


def test_a_message_to_two_hosts_that_rest_waits_for_either(play: Plays) -> None:
    world = play()
    dead(world, 2, b"one.test")
    for number in (2, 3):
        world.accept(number, [b"a@two.test"])
    fail_all(world)
    world.accept(10, [b"a@one.test", b"a@two.test", b"bob@example.test"])
    world.report(next(iter(world.starts)), Z)  # the local one
    world.write_all()
    for _ in range(20):
        if 10 in world.ended:
            break
        wake(world)
        for delivery in list(world.starts):
            world.report(delivery, K)
        world.write_all()
    assert 10 in world.ended


def test_a_message_to_thousands_of_hosts_that_rest_waits_for_the_first_of_them(play: Plays) -> None:
    world = play()
    hosts = [b"a@dead%d.test" % count for count in range(3000)]
    for number in (1, 2):
        world.accept(number, hosts)
    while world.starts:
        fail_all(world)
    assert len(world.manager.resting()) == len(hosts)
    world.accept(10, hosts)
    first = min(world.manager.resting().values())
    assert not world.starts and not world.loads and world.wake <= first
    world.now = first
    world.tell(Wake())
    world.load_all()
    assert world.starts and len(world.starts) < 300


def test_what_is_too_old_is_not_kept_longer_because_its_host_rests(play: Plays) -> None:
    world = play(queuelifetime=3000)
    dead(world, 20)
    for _ in range(40):
        wake(world)
        fail_all(world)
        world.load_all()
        world.write_all()
        if not world.queue:
            break
    assert world.ended == set(range(20))
    assert world.now < BIRTH + 3000 + MOST + 400
    bounces = [bounce.failures for bounce in world.bounces]
    assert len(bounces) == 20
    assert (
        b"<a@dead.test>:\n"
        b"Sorry, dead.test is left alone for a while and was not tried now. When it was:\nno connection\n"
        b"I'm not going to try again; this message has been in the queue too long.\n\n"
    ) in bounces
    ends = [line for line in world.log.lines() if line.startswith(b"delivery ")]
    starts = [line for line in world.log.lines() if line.startswith(b"starting delivery ")]
    assert len(ends) == len(starts)


def test_a_flush_tries_hosts_that_rest(play: Plays) -> None:
    world = play()
    dead(world, 30)
    world.tell(Flush())
    world.load_all()
    assert len(world.starts) == OPENING
    fail_all(world)
    assert not world.starts and world.manager.waiting == 30  # and only once
    rest = world.manager.destination(b"dead.test").resting_until - world.now
    assert LEAST <= rest <= 2 * LEAST


def test_what_an_administrator_wants_tried_now_is_tried_though_the_host_rests(play: Plays) -> None:
    world = play()
    dead(world, 30)
    world.take(20, 21)
    for number in (20, 21):
        world.put_back(number, 0, urgent=True)
    world.load_all()
    tried = []
    while world.starts:
        (delivery,) = world.starts
        tried.append(world.starts[delivery].stored.id.number)
        world.fail(delivery)
        world.write_all()
    assert sorted(tried) == [20, 21]
    assert world.manager.destination(b"dead.test").resting_until > world.now


def test_what_waits_for_a_host_that_rests_can_be_taken(play: Plays) -> None:
    world = play()
    dead(world, 30)
    assert world.take(20) == [20]
    assert world.manager.messages == 29
    world.now = world.manager.destination(b"dead.test").resting_until
    world.tell(Wake())
    world.load_all()
    while world.starts:
        world.report(next(iter(world.starts)), K)
        world.write_all()
        world.load_all()
    assert 20 in world.queue and len(world.ended) == 29 - OPENING


def test_the_window_grows_with_success_and_shrinks_with_failure(play: Plays) -> None:
    world = play(concurrencydestination=8)
    for number in range(400):
        world.accept(number, [b"a@far.test"])
    widths = []
    while len(world.ended) < 300:
        widths.append(len(world.starts))
        for delivery in list(world.starts):
            world.report(delivery, K)
            world.write_all()
            world.load_all()
    assert widths[0] == OPENING and widths == sorted(widths) and widths[-1] == 8
    world.fail(next(iter(world.starts)))
    world.report(next(iter(world.starts)), K)
    world.write_all()
    assert len(world.starts) == 7
    assert world.manager.destination(b"far.test").limit == 7


@pytest.mark.parametrize("silent", [100, 300])
def test_hosts_that_never_answer_leave_slots_to_one_that_does(play: Plays, silent: int) -> None:
    world = play()
    world.accept(0, [b"a@live.test"])
    world.report(1, K)
    world.write_all()
    for number in range(1, silent + 1):
        world.accept(number, [b"a@silent%d.test" % number])
    assert len(world.starts) == 15
    for number in range(1000, 1010):
        world.accept(number, [b"a@live.test"])
    for _ in range(10):
        delivery = next(each for each, start in world.starts.items() if start.domain == b"live.test")
        world.report(delivery, K)
        world.write_all()
        world.load_all()
    assert set(range(1000, 1010)) <= world.ended


def test_slow_hosts_leave_slots_to_quick_ones(play: Plays) -> None:
    world = play()
    hosts = 30
    for number in range(hosts * 20):
        world.accept(number, [b"a@slow%d.test" % (number % hosts)])
    for _ in range(10):
        world.now += 4.0
        for delivery in list(world.starts):
            world.report(delivery, K)
        world.write_all()
        world.load_all()
    assert len(world.starts) == 15
    world.accept(5000, [b"a@new.test"])
    while b"new.test" not in domains(world):
        world.now += 4.0
        for delivery in list(world.starts)[:3]:
            world.report(delivery, K)
        world.write_all()
        world.load_all()
    world.report(next(each for each, start in world.starts.items() if start.domain == b"new.test"), K)
    world.write_all()
    assert 5000 in world.ended


NUMBERS = count(90_000)


def answer(world: Any, domain: bytes, outcome: Outcome = K) -> None:
    """All that is under way to this domain."""
    for delivery in [each for each, start in world.starts.items() if start.domain == domain]:
        world.report(delivery, outcome)
    world.write_all()
    world.load_all()


def known_as_quick(world: Any, domain: bytes, deliveries: int = 1) -> None:
    for _ in range(deliveries):
        world.accept(next(NUMBERS), [b"a@" + domain])
        answer(world, domain)


def gets_through(world: Any, domain: bytes) -> bool:
    world.accept(next(NUMBERS), [b"a@" + domain])
    return domain in domains(world)


def test_hosts_that_were_quick_once_and_then_never_answer_leave_slots_to_others(play: Plays) -> None:
    world = play()
    for host in (*(b"stall%d.test" % number for number in range(5)), b"good.test"):
        known_as_quick(world, host)
    for number in range(30):
        world.accept(number, [b"a@stall%d.test" % (number % 5)])
    assert gets_through(world, b"good.test")
    world.now += 1.5
    answer(world, b"good.test")
    for number in range(100, 130):
        world.accept(number, [b"a@stall%d.test" % (number % 5)])
    assert len(world.starts) <= 15
    assert gets_through(world, b"good.test")


def test_a_host_that_no_longer_answers_is_slow_before_a_delivery_ends(play: Plays) -> None:
    world = play()
    known_as_quick(world, b"stall.test", 200)
    known_as_quick(world, b"good.test")
    assert world.manager.destination(b"stall.test").limit == 20
    for number in range(10):
        world.accept(number, [b"a@stall.test"])
    world.now += 1.5
    for number in range(10, 40):
        world.accept(number, [b"a@stall.test"])
    assert domains(world).count(b"stall.test") == 15
    assert gets_through(world, b"good.test")


def test_some_quick_answers_do_not_hide_that_most_are_not_given(play: Plays) -> None:
    world = play()
    known_as_quick(world, b"stall.test", 200)
    for number in range(14):
        world.accept(number, [b"a@stall.test"])
    silent = set(world.starts)
    for number in range(100, 160):
        world.now += 0.5
        world.accept(number, [b"a@stall.test"])
        for delivery in set(world.starts) - silent:
            world.report(delivery, K)
        world.write_all()
    for number in range(200, 220):
        world.accept(number, [b"a@stall.test"])
    assert len(world.starts) == 15


def test_one_large_message_under_way_makes_no_slow_host_of_a_busy_one(play: Plays) -> None:
    world = play()
    known_as_quick(world, b"busy.test", 200)
    world.accept(1, [b"a@busy.test"])
    (large,) = world.starts
    world.now += 0.5
    for number in range(10, 20):
        world.accept(number, [b"a@busy.test"])
    world.now += 0.9  # the large one has taken 1.4 seconds, each of the others less than one
    for number in range(20, 40):
        world.accept(number, [b"a@busy.test"])
    assert len(world.starts) == 20 and large in world.starts


def test_a_message_to_ten_thousand_at_a_hundred_domains_is_a_hundred_transactions(play: Plays) -> None:
    world = play()
    world.accept(1, [b"u%d@d%d.test" % (count, count % 100) for count in range(10_000)])
    transactions = recipients = 0
    while world.starts:
        for delivery in list(world.starts):
            transactions += 1
            recipients += len(world.starts[delivery].recipients)
            world.report(delivery, K)
        world.write_all()
    assert (transactions, recipients) == (100, 10_000) and world.ended == {1}


def test_a_group_with_one_result_of_the_hosts_keeps_all_the_others(play: Plays) -> None:
    world = play()
    world.accept(1, [b"a@far.test", b"b@far.test", b"c@far.test"])
    world.starts.clear()
    results = (Result(K, b"ok\n"), Result(D, b"no\n"), Result(Z, b"421 closing\n", host=True))
    world.tell(Reported(1, results))
    world.write_all()
    assert [one.outcome for one in world.queue[1].progress] == [K, D, None]
    assert world.manager.destination(b"far.test").failures == 1


def test_loads_stay_few_however_much_waits_for_a_dead_host(play: Plays) -> None:
    world = play(queuelifetime=10**7)
    count = 20_000
    for number in range(count):
        world.accept(number, [b"a@dead.test"])
    loads = probes = 0
    end = world.now + 12 * 3600
    while world.now < end:
        fail_all(world)
        world.now = max(world.now, world.wake)
        loads += sum(isinstance(action, Load) for action in world.tell(Wake()))
        world.load_all()
        probes += len(world.starts)
        assert world.manager.messages - world.manager.waiting < 2000
    assert probes < 60 and loads < 200
    assert world.manager.messages == count


def test_a_message_too_old_for_one_host_that_rests_is_tried_at_the_other(play: Plays) -> None:
    world = play(queuelifetime=1000)
    world.accept(50, [b"a@dead.test", b"a@live.test", b"b@dead.test"])
    for delivery in list(world.starts):
        world.report(delivery, Z)
    world.write_all()
    world.now += 1200
    dead(world, 20)  # which is when it rests
    world.load_all()
    (delivery,) = world.starts
    assert domains(world) == [b"live.test"]
    world.write_all()
    assert [one.outcome for one in world.queue[50].progress] == [D, None, D]
    world.report(delivery, K)
    world.write_all()
    world.write_all()
    assert 50 in world.ended and len(world.bounces) == 1


def test_a_tenant_whose_address_a_host_refuses_keeps_nobody_else_waiting(play: Plays) -> None:
    bindings = Bindings(
        {b"*": Source("192.0.2.1"), b"spam.test": Source("192.0.2.2"), b"far.test": Source("192.0.2.1")}
    )
    world = play(sources=lambda: bindings)
    for number in range(20):
        world.accept(number, [b"a@far.test"], b"x@spam.test")
    fail_all(world)
    for number in range(20, 40):
        world.accept(number, [b"a@far.test"], b"list-@spam.test-@[]")
    assert not world.starts
    world.accept(50, [b"a@far.test"], b"alice@example.test")
    world.accept(51, [b"b@far.test", b"c@far.test"], b"alice@far.test")
    assert domains(world) == [b"far.test"] * 2
    for delivery in list(world.starts):
        world.report(delivery, K)
    world.write_all()
    assert {50, 51} <= world.ended
    assert world.manager.destination(b"far.test").resting_until is None
    (resting,) = world.manager.resting()
    assert world.manager.destination(resting).name == "far.test"
    wake(world)
    assert domains(world) == [b"far.test"]
    rows = [
        summarize(stored, Routes(world.settings), world.now, {resting: 2 * BIRTH})
        for stored in world.queue.values()
    ]
    assert {one.recipients[0].next for one in rows} == {2 * BIRTH}
