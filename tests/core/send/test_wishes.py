"""Who is told what of a message, and when: RFC 3461's NOTIFY, obeyed by the manager."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.queue.store import Change
from openqmail.core.send.events import Notify, NotifyFailed, Record, Reported, Wake
from openqmail.core.send.schedule import last_try, next_try
from openqmail.core.send.wishes import LATE
from openqmail.core.values import (
    Outcome,
    Recipient,
    Result,
)

K, Z, D = Outcome.SUCCESS, Outcome.DEFERRAL, Outcome.FAILURE
Plays = Callable[..., Any]
SENDER = b"alice@example.test"
HOUR = 3600


def only(actions: list[Any], kind: type) -> Any:
    found = [action for action in actions if isinstance(action, kind)]
    assert len(found) == 1, actions
    return found[0]


def none(actions: list[Any], *kinds: type) -> bool:
    return not any(isinstance(action, kinds) for action in actions)


def to(address: bytes, notify: bytes = b"") -> Recipient:
    return Recipient(address, notify, b"rfc822;first@old.test" if notify else b"")


def test_a_delivery_here_and_its_notice_are_one_record(play: Plays) -> None:
    world = play()
    world.accept(1, [to(b"bob@example.test", b"SUCCESS")])
    notify = only(world.report(1, K, b"did 1+0+0\n"), Notify)
    (told,) = notify.told
    assert (told.action, told.address, told.orcpt) == (
        "delivered",
        b"bob@example.test",
        b"rfc822;first@old.test",
    )
    assert notify.changes == (Change(0, K, b"did 1+0+0\n"),)
    assert not world.manager.idle
    end = only(world.write(1), Record)
    assert (end.changes, end.ended) == ((), True)
    world.write(1)
    assert world.manager.idle and 1 in world.ended


@pytest.mark.parametrize(("dsn", "told"), [(False, ["relayed"]), (True, [])])
def test_a_host_that_tells_by_itself_is_left_to_do_so(play: Plays, dsn: bool, told: list[str]) -> None:
    world = play()
    world.accept(1, [to(b"a@far.test", b"SUCCESS,FAILURE")])
    world.starts.pop(1)
    world.tell(Reported(1, (Result(K, b"ok\n", dsn=dsn),)))
    world.write_all()
    assert [one.action for notify in world.notices for one in notify.told] == told
    assert 1 in world.ended


@pytest.mark.parametrize("notify", [b"", b"NEVER", b"FAILURE", b"DELAY", b"FAILURE,DELAY"])
def test_nobody_is_told_of_a_success_unasked(play: Plays, notify: bytes) -> None:
    world = play()
    world.accept(1, [to(b"bob@example.test", notify)])
    assert none(world.report(1, K), Notify)


@pytest.mark.parametrize("sender", [b"", b"#@[]"])
def test_a_bounce_s_sender_is_nobody_who_could_be_told(play: Plays, sender: bytes) -> None:
    world = play()
    world.accept(1, [to(b"bob@example.test", b"SUCCESS")], sender=sender)
    assert none(world.report(1, K), Notify)


@pytest.mark.parametrize(
    ("notify", "bounces"),
    [(b"", True), (b"FAILURE", True), (b"DELAY,FAILURE", True), (b"NEVER", False), (b"SUCCESS", False)],
)
def test_a_failure_is_told_to_who_wants_to_know(play: Plays, notify: bytes, bounces: bool) -> None:
    world = play()
    world.accept(1, [to(b"bob@example.test", notify)])
    world.report(1, D, b"no\n")
    world.write_all()
    assert bool(world.bounces) is bounces and 1 in world.ended
    assert b"delivery 1: failure: no/" in world.log.lines()


def test_a_failure_nobody_wants_to_know_of_leaves_nothing_in_the_bounce_of_the_others(play: Plays) -> None:
    world = play()
    world.accept(1, [to(b"bob@example.test", b"NEVER"), to(b"carol@example.test")])
    world.report(1, D, b"no\n")
    world.report(2, D, b"neither\n")
    world.write(1)
    assert world.queue[1].bounce == b"" or b"bob" not in world.queue[1].bounce
    world.write_all()
    (bounce,) = world.bounces
    assert bounce.failures == b"<carol@example.test>:\nneither\n\n"


def test_what_nobody_wants_to_know_of_a_bounce_the_postmaster_is_told(play: Plays) -> None:
    world = play()
    world.accept(1, [to(b"bob@example.test", b"NEVER")], sender=b"")
    world.report(1, D)
    world.write_all()
    (bounce,) = world.bounces
    assert bounce.double and bounce.recipient == b"postmaster@mail.example.test"


def test_a_mailing_list_s_sender_is_told_at_the_address_without_the_suffix(play: Plays) -> None:
    world = play()
    world.accept(1, [to(b"bob@example.test", b"SUCCESS")], sender=b"list-@example.test-@[]")
    assert not none(world.report(1, K), Notify)


def late(world: Any, *recipients: Recipient) -> list[Notify]:
    """Tries the message by the schedule until it has been four hours in the queue, in vain; the notices
    asked for by then."""
    world.accept(1, list(recipients))
    born = int(world.now)
    while True:
        for delivery in sorted(world.starts):
            world.report(delivery, Z, b"later (#4.4.1)\n")
        world.write_all()
        if world.notices or world.now - born > 3 * LATE:
            return list(world.notices)
        world.now = min(world.queue[1].due)
        world.tell(Wake())
        world.load_all()


@pytest.mark.parametrize("address", [b"a@far.test", b"bob@example.test"])
def test_who_wants_to_know_is_told_once_that_a_message_is_late(play: Plays, address: bytes) -> None:
    world = play()
    born = int(world.now)
    (notify,) = late(world, to(address, b"DELAY"))
    assert LATE <= world.now - born < LATE + HOUR
    assert [(one.action, one.address, one.text) for one in notify.told] == [
        ("delayed", address, b"later (#4.4.1)\n")
    ]
    while world.now - born < 5 * LATE:
        world.write_all()
        world.now = min(world.queue[1].due)
        world.tell(Wake())
        world.load_all()
        for delivery in sorted(world.starts):
            world.report(delivery, Z)
    assert len(world.notices) == 1


def test_a_restart_does_not_tell_again(play: Plays) -> None:
    world = play()
    late(world, to(b"a@far.test", b"DELAY"))
    world.write_all()
    due = min(world.queue[1].due)
    world.restart()
    world.now = due
    world.put_back_all()
    for delivery in sorted(world.starts):
        world.report(delivery, Z)
    world.write_all()
    assert len(world.notices) == 1


def test_one_notice_tells_of_all_who_are_late_together(play: Plays) -> None:
    world = play()
    (both,) = late(
        world, to(b"a@far.test", b"DELAY"), to(b"b@near.test", b"SUCCESS,DELAY"), to(b"c@near.test")
    )
    assert sorted(one.address for one in both.told) == [b"a@far.test", b"b@near.test"]


def test_nobody_is_told_of_a_delay_unasked(play: Plays) -> None:
    assert late(play(), to(b"a@far.test"), to(b"b@far.test", b"FAILURE")) == []


def test_a_message_that_comes_late_to_its_first_try_is_late_at_once(play: Plays) -> None:
    world = play(concurrencyremote=0)
    world.accept(1, [to(b"a@far.test", b"DELAY")])
    world.now += LATE + 1
    world.settings.concurrencyremote = 20
    world.manager.reconfigure(world.settings)
    world.tell(Wake())
    assert not none(world.report(1, Z), Notify)


@given(
    st.integers(0, 2**31),
    st.integers(0, 10**7),
    st.sampled_from(["local", "remote"]),
)
def test_the_time_of_the_next_try_tells_of_the_last(birth: int, age: int, channel: Any) -> None:
    before = last_try(birth, next_try(birth, birth + age, channel), channel) - birth
    assert before <= age and (before >= LATE) is (age >= LATE)
    assert last_try(birth, 0, channel) < birth and last_try(birth, birth, channel) < birth


def test_a_notice_that_cannot_be_queued_loses_no_result(play: Plays) -> None:
    world = play()
    world.accept(1, [to(b"bob@example.test", b"SUCCESS"), to(b"carol@example.test")])
    world.report(1, K, b"did 1+0+0\n")
    del world.writes[1]
    record = only(world.tell(NotifyFailed(1)), Record)
    assert record.changes == (Change(0, K, b"did 1+0+0\n"),)
    world.report(2, K)
    world.write_all()
    assert 1 in world.ended and world.manager.idle


def test_a_message_that_is_taken_away_is_let_go_behind_its_notice(play: Plays) -> None:
    world = play()
    world.accept(1, [to(b"bob@example.test", b"SUCCESS"), to(b"a@far.test")])
    world.report(1, K)
    assert world.take(1) == []
    world.report(2, Z)
    world.write_all()
    assert world.taken == [1]
