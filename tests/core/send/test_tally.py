"""The send manager counts what it logs."""

from collections.abc import Callable
from typing import Any

from openqmail.core.send.events import Reported, Stop
from openqmail.core.values import Outcome, Result

K, Z, D = Outcome.SUCCESS, Outcome.DEFERRAL, Outcome.FAILURE
Plays = Callable[..., Any]


def test_a_delivery_is_counted_for_each_recipient_by_channel_and_result(play: Plays) -> None:
    world = play()
    world.accept(1, [b"bob@example.test", b"a@far.test", b"b@far.test", b"c@far.test"])
    world.report(1, K, b"did 1+0+0\n")
    world.starts.pop(2)
    world.tell(Reported(2, (Result(K, b"ok\n"), Result(D, b"no\n"), Result(Z, b"later\n"))))
    tally = world.manager.tally
    assert tally.deliveries == {"local": {K: 1, Z: 0, D: 0}, "remote": {K: 1, Z: 1, D: 1}}
    assert (tally.accepted, tally.bounces, sum(tally.in_queue)) == (1, 0, 0)


def test_a_message_is_counted_as_it_comes_and_when_all_of_it_is_done(play: Plays) -> None:
    world = play()
    world.accept(7, [b"bob@example.test"])
    world.now += 70
    world.report(1, K, b"did 1+0+0\n")
    tally = world.manager.tally
    assert sum(tally.in_queue) == 0, "its end is not on disk yet"
    world.write(7)
    assert (tally.accepted, sum(tally.in_queue), tally.seconds) == (1, 1, 70)


def test_a_bounce_is_counted_once_it_is_queued(play: Plays) -> None:
    world = play()
    world.accept(7, [b"bob@example.test"])
    world.report(1, D, b"no such mailbox\n")
    world.write(7)
    before = world.manager.tally.bounces
    world.write(7)
    assert (before, world.manager.tally.bounces) == (0, 1)
    assert sum(world.manager.tally.in_queue) == 1


def test_what_is_broken_off_counts_as_the_deferral_that_is_logged(play: Plays) -> None:
    world = play()
    world.accept(7, [b"a@far.test"])
    world.tell(Stop(True))
    world.report(1, Z, b"stopped\n")
    assert world.manager.tally.deliveries["remote"][Z] == 1
    assert b"delivery 1: deferral: stopped/" in world.log.lines()
