"""What the send manager does about a message, from its acceptance to its end."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from openqmail.core.log import Event as LogEvent
from openqmail.core.log import Warn
from openqmail.core.queue.store import Change, Progress
from openqmail.core.send.backlog import LOADS
from openqmail.core.send.events import (
    Bounce,
    BounceFailed,
    Event,
    Finished,
    Flush,
    Known,
    Load,
    Loaded,
    Record,
    Recorded,
    Reported,
    StartLocal,
    StartRemote,
    Stop,
    Wake,
    WakeAt,
)
from openqmail.core.send.fairness import WAITING
from openqmail.core.send.work import GROUP
from openqmail.core.values import Outcome, Result

K, Z, D = Outcome.SUCCESS, Outcome.DEFERRAL, Outcome.FAILURE
Plays = Callable[..., Any]


def started(actions: list[Any]) -> list[Any]:
    return [action for action in actions if isinstance(action, StartLocal | StartRemote)]


def only(actions: list[Any], kind: type) -> Any:
    found = [action for action in actions if isinstance(action, kind)]
    assert len(found) == 1, actions
    return found[0]


def test_one_local_recipient_from_acceptance_to_the_end(play: Plays) -> None:
    world = play()
    start = only(world.accept(7, [b"bob@example.test"]), StartLocal)
    assert (start.position, start.recipient, start.sender, start.again) == (
        0,
        b"bob@example.test",
        b"alice@example.test",
        False,
    )
    assert world.manager.running() == (1, 0)
    assert world.tell(Finished(start.delivery)) == []
    assert world.manager.running() == (0, 0) and not world.manager.idle
    record = only(world.report(start.delivery, K, b"did 1+0+0\n"), Record)
    assert record == Record(7, (Change(0, K, b"did 1+0+0\n"),), (0, 0), True)
    assert not world.manager.idle
    world.write(7)
    assert world.manager.idle and world.manager.messages == 0
    assert world.log.lines() == [
        b"new msg 7",
        b"info msg 7: bytes 256 from <alice@example.test> qp 1000 uid 8001",
        b"starting delivery 1: msg 7 to local bob@example.test",
        b"status: local 1/10 remote 0/20",
        b"delivery 1: success: did_1+0+0/",
        b"status: local 0/10 remote 0/20",
        b"end msg 7",
    ]


def test_recipients_of_one_domain_share_a_transaction_and_have_lines_of_their_own(play: Plays) -> None:
    world = play()
    start = only(world.accept(1, [b"a@far.test", b"b@FAR.test", b"c@near.test"])[:-1], StartRemote)
    assert (start.domain, start.positions, start.recipients) == (
        b"far.test",
        (0, 1),
        (b"a@far.test", b"b@FAR.test"),
    )
    assert world.manager.running() == (0, 2)
    world.starts.pop(1)
    world.tell(Reported(1, (Result(K, b"ok\n"), Result(D, b"no\n"))))
    assert world.log.lines()[2:] == [
        b"starting delivery 1: msg 1 to remote a@far.test",
        b"starting delivery 2: msg 1 to remote b@FAR.test",
        b"status: local 0/10 remote 1/20",
        b"starting delivery 3: msg 1 to remote c@near.test",
        b"status: local 0/10 remote 2/20",
        b"delivery 1: success: ok/",
        b"delivery 2: failure: no/",
        b"status: local 0/10 remote 1/20",
    ]


def test_a_transaction_has_at_most_a_hundred_recipients(play: Plays) -> None:
    world = play()
    starts = started(world.accept(1, [b"u%d@far.test" % count for count in range(GROUP + 1)]))
    assert [len(start.recipients) for start in starts] == [GROUP, 1]


def test_a_mailing_list_recipient_sees_its_own_sender(play: Plays) -> None:
    world = play()
    starts = started(
        world.accept(
            1, [b"a@far.test", b"b@far.test", b"bob@example.test"], sender=b"list-owner-@example.test-@[]"
        )
    )
    assert sorted(start.sender for start in starts) == [
        b"list-owner-a=far.test@example.test",
        b"list-owner-b=far.test@example.test",
        b"list-owner-bob=example.test@example.test",
    ]


def test_each_kind_of_recipient_is_tried_again_on_its_own_schedule(play: Plays) -> None:
    world = play()
    birth = int(world.now)
    world.accept(1, [b"bob@example.test", b"a@far.test"])
    world.report(1, Z)
    world.report(2, Z)
    world.write_all()
    assert world.queue[1].due == (birth + 100, birth + 400)
    assert world.wake == birth + 100 and world.manager.waiting == 1

    world.now = birth + 100
    assert only(world.tell(Wake()), Load) == Load(1)
    world.load_all()
    assert [type(start) for start in world.starts.values()] == [StartLocal]
    assert world.starts[3].again is True
    world.report(3, K)
    world.write_all()
    assert world.queue[1].due == (birth + 400, birth + 400)

    world.now = birth + 400
    world.tell(Wake())
    world.load_all()
    assert [type(start) for start in world.starts.values()] == [StartRemote]
    world.report(4, K)
    world.write_all()
    assert world.ended == {1}


def test_after_the_lifetime_a_deferral_is_a_failure(play: Plays) -> None:
    world = play(queuelifetime=1000)
    birth = int(world.now)
    world.accept(1, [b"bob@example.test"])
    world.report(1, Z, b"later\n")
    world.write_all()
    world.now = birth + 1001
    world.tell(Wake())
    world.load_all()
    world.report(2, Z, b"later\n")
    world.write_all()
    bounce = world.bounces[0]
    assert bounce.failures == (
        b"<bob@example.test>:\n"
        b"later\nI'm not going to try again; this message has been in the queue too long.\n\n"
    )
    assert world.ended == {1}


def test_one_bounce_a_message_when_nothing_is_left_to_try(play: Plays) -> None:
    world = play(virtualdomains={b"virt.test": b"bob-v"})
    world.accept(1, [b"joe@virt.test", b"noat", b"ok@example.test", b"fail@far.test"])
    for delivery, outcome in ((3, D), (1, D), (4, K), (2, Z)):
        world.report(delivery, outcome, b"text %d\n" % delivery)
        world.write_all()
    assert not world.bounces
    world.now += 400
    world.tell(Wake())
    world.load_all()
    world.report(5, D, b"text 5\n")
    world.write(1)
    assert world.bounces == [
        Bounce(
            1,
            b"",
            b"alice@example.test",
            b"<noat@mail.example.test>:\ntext 3\n\n<joe@virt.test>:\ntext 1\n\n<fail@far.test>:\ntext 5\n\n",
            False,
        )
    ]
    world.write(1)
    assert world.log.lines()[-2:] == [b"bounce msg 1 qp 99", b"end msg 1"]


@pytest.mark.parametrize(
    ("sender", "bounce_from", "bounce_to", "double"),
    [
        (b"alice@example.test", b"", b"alice@example.test", False),
        (b"list-@example.test-@[]", b"", b"list-@example.test", False),
        (b"", b"#@[]", b"postmaster@mail.example.test", True),
    ],
)
def test_to_whom_a_bounce_goes(
    play: Plays, sender: bytes, bounce_from: bytes, bounce_to: bytes, double: bool
) -> None:
    world = play()
    world.accept(1, [b"bob@example.test"], sender=sender)
    world.report(1, D)
    world.write_all()
    bounce = world.bounces[0]
    assert (bounce.sender, bounce.recipient, bounce.double) == (bounce_from, bounce_to, double)


def test_a_double_bounce_that_fails_is_discarded(play: Plays) -> None:
    world = play()
    world.accept(1, [b"bob@example.test"], sender=b"#@[]")
    world.report(1, D)
    assert world.writes[1].ended
    world.write_all()
    assert not world.bounces and world.ended == {1}
    assert world.log.lines()[-2:] == [b"triple bounce: discarding bounce/1", b"end msg 1"]


def test_a_bounce_that_cannot_be_queued_is_tried_again(play: Plays) -> None:
    world = play()
    world.accept(1, [b"bob@example.test"])
    world.report(1, D, b"no\n")
    world.write(1)
    world.writes.pop(1)
    world.tell(BounceFailed(1))
    assert world.manager.idle
    world.now = world.wake
    world.tell(Wake())
    world.load_all()
    assert len(world.bounces) == 2 and world.bounces[0] == world.bounces[1]
    world.write_all()
    assert world.ended == {1}


def test_after_a_crash_the_bounce_is_made_from_what_is_recorded(play: Plays) -> None:
    world = play()
    world.accept(1, [b"bob@example.test"])
    world.report(1, D, b"no\n")
    world.write(1)
    world.restart()
    world.tell(Known(1, min(world.queue[1].due)))
    world.load_all()
    assert world.bounces[0] == world.bounces[1]


def test_what_an_earlier_run_may_have_left_files_of_is_started_as_again(play: Plays) -> None:
    world = play()
    world.accept(1, [b"bob@example.test"])
    world.accept(2, [b"bob@example.test", b"carol@example.test"])
    world.restart()
    for number, stored in world.queue.items():  # as recovery finds it: no attempt was recorded
        world.queue[number] = msgspec.structs.replace(stored, again=True)
        world.tell(Known(number, 0))
    world.load_all()
    starts = list(world.starts.values())
    assert [start.stored.progress[start.position].attempts for start in starts] == [0, 0, 0]
    assert [start.again for start in starts] == [True, True, True]


def test_a_forward_was_recorded_already(play: Plays) -> None:
    world = play()
    world.accept(1, [b"bob@example.test"])
    world.starts.pop(1)
    record = only(world.tell(Reported(1, (Result(K, b"did 0+1+0\n"),), recorded=True)), Record)
    assert record == Record(1, (), (0, 0), True)


def test_a_message_without_recipients_ends(play: Plays) -> None:
    world = play()
    world.accept(1, [])
    world.write_all()
    assert world.log.lines()[-1] == b"end msg 1"


def test_a_limit_of_zero_holds_a_channel(play: Plays) -> None:
    world = play(concurrencylocal=0)
    assert [type(start) for start in started(world.accept(1, [b"bob@example.test", b"a@far.test"]))] == [
        StartRemote
    ]
    world.settings.concurrencylocal = 5
    world.manager.reconfigure(world.settings)
    only(world.tell(Wake()), StartLocal)


def test_a_flush_tries_all_now_both_kinds(play: Plays) -> None:
    world = play()
    world.accept(1, [b"bob@example.test", b"a@far.test"])
    world.report(1, Z)
    world.report(2, Z)
    world.write_all()
    world.tell(Flush())
    world.load_all()
    assert {type(start) for start in world.starts.values()} == {StartLocal, StartRemote}


def test_after_a_stop_nothing_starts_and_what_runs_is_recorded(play: Plays) -> None:
    world = play(concurrencylocal=1)
    world.accept(1, [b"bob@example.test"])
    world.accept(2, [b"bob@example.test"])
    world.tell(Stop())
    assert world.log.lines()[-1] == b"status: local 1/1 remote 0/20 exitasap"  # at once: it may take its time
    assert not world.manager.idle
    assert not started(world.report(1, D))
    world.write_all()
    assert world.manager.idle and not world.bounces
    assert not started(world.accept(3, [b"bob@example.test"]))
    assert set(world.queue) == {1, 2, 3}


@pytest.mark.parametrize("age", [0, 10**7])
def test_what_is_broken_off_by_a_stop_is_due_as_it_was(play: Plays, age: int) -> None:
    """Nor does it end mail that has waited too long: nobody has said that it cannot be delivered."""
    world = play()
    world.accept(1, [b"bob@example.test", b"x@far.test"])
    world.now += age
    world.tell(Stop(abandon=True))
    world.report(1, Z)
    world.report(2, K)
    world.write_all()
    assert world.manager.idle and not world.bounces
    stored = world.queue[1]
    assert [one.outcome for one in stored.progress] == [None, Outcome.SUCCESS]
    assert stored.progress[0].attempts == 0 and stored.due == (0, 0)


def test_wake_is_asked_for_only_when_it_is_earlier(play: Plays) -> None:
    world = play()
    soon = int(world.now) + 100
    assert world.tell(Known(1, soon)) == [WakeAt(soon)]
    assert world.tell(Known(2, soon + 50)) == []
    assert world.tell(Known(3, soon - 50)) == [WakeAt(soon - 50)]
    world.now = soon - 50
    assert world.tell(Wake()) == [Load(3), WakeAt(soon)]


def test_only_so_many_are_loaded_at_once(play: Plays) -> None:
    world = play(concurrencylocal=0)
    for number in range(LOADS + 50):
        world.accept(number, [b"bob@example.test"])
    world.restart()
    for number in world.queue:
        world.tell(Known(number, 0))
    assert len(world.loads) == LOADS
    world.load_all()
    assert world.manager.waiting == 0 and world.manager.messages == LOADS + 50


def test_a_message_that_is_gone_is_forgotten(play: Plays) -> None:
    world = play()
    world.tell(Known(5, 0))
    world.tell(Loaded(5, None))
    assert world.manager.messages == 0 and world.manager.idle


def test_a_big_message_does_not_keep_a_small_one_waiting(play: Plays) -> None:
    world = play(concurrencylocal=2)
    world.accept(1, [b"user%d@example.test" % count for count in range(2000)])
    world.accept(2, [b"bob@example.test"])
    for _ in range(2):
        world.report(next(iter(world.starts)), K)
    assert b"msg 2 to local bob" in b"\n".join(world.log.lines())


def test_a_dead_host_does_not_keep_a_healthy_one_waiting(play: Plays) -> None:
    world = play(concurrencydestination=5)
    for number in range(10_000):
        world.accept(number, [b"a@dead.test"])
    assert world.manager.running() == (0, 5)
    only(world.accept(10_000, [b"a@live.test"]), StartRemote)
    assert world.manager.waiting >= 10_000 - WAITING - 10  # numbers only
    assert world.manager.messages == 10_001


def test_what_waits_as_a_number_is_delivered_in_its_turn(play: Plays) -> None:
    world = play(concurrencydestination=5)
    total = WAITING * 2
    for number in range(total):
        world.accept(number, [b"a@slow.test"])
    order = []
    while world.starts:
        delivery = next(iter(world.starts))
        order.append(world.starts[delivery].stored.id.number)
        world.report(delivery, K)
        world.write_all()
        world.load_all()
    assert order == list(range(total))
    assert world.ended == set(range(total)) and world.manager.messages == 0


def test_a_healthy_host_is_found_behind_a_long_run_of_a_dead_one(play: Plays) -> None:
    world = play(concurrencydestination=5, concurrencylocal=0, concurrencyremote=0)
    for number in range(3000):
        world.accept(number, [b"a@dead.test"])
    world.accept(3000, [b"a@live.test"])
    world.settings.concurrencyremote = 20
    world.restart()
    for number in world.queue:
        world.tell(Known(number, 0))
    world.load_all()
    assert [start.domain for start in world.starts.values()].count(b"live.test") == 1


def test_what_an_administrator_takes_is_let_go_when_nothing_of_it_runs(play: Plays) -> None:
    world = play(concurrencylocal=1)
    birth = int(world.now)
    world.accept(1, [b"bob@example.test", b"joe@example.test"])  # one runs, one waits
    world.accept(2, [b"bob@example.test"])
    assert world.take(1, 2, 3) == [2, 3]
    assert not started(world.report(1, Z)) and world.taken == [2, 3]
    world.write(1)
    assert world.taken == [2, 3, 1] and world.queue[1].due == (birth + 100, birth + 100)
    assert world.manager.messages == 0 and world.manager.idle
    only(world.put_back(2), Load)
    world.load_all()
    assert [start.stored.id.number for start in world.starts.values()] == [2]


def test_a_message_that_ends_while_it_is_taken_has_ended(play: Plays) -> None:
    world = play()
    world.accept(1, [b"bob@example.test"])
    world.take(1)
    world.report(1, K)
    assert not world.taken
    world.write(1)
    assert world.taken == [1] and world.ended == {1}
    assert world.log.lines()[-1] == b"end msg 1"


@pytest.mark.parametrize("fails", [False, True])
def test_a_bounce_under_way_is_waited_for_and_none_is_begun(play: Plays, fails: bool) -> None:
    world = play()
    for number in (1, 2):
        world.accept(number, [b"bob@example.test"])
    world.report(1, D)
    world.write(1)
    assert world.take(1, 2) == [] and len(world.bounces) == 1
    if fails:
        world.writes.pop(1)
        world.tell(BounceFailed(1))
    else:
        world.write(1)
    assert world.taken == [1] and (1 in world.queue) is fails
    world.report(2, D)
    world.write(2)
    assert world.taken == [1, 2] and len(world.bounces) == 1 and 2 in world.queue
    world.put_back(2, 0)
    world.load_all()
    assert world.bounces[1].failures == b"<bob@example.test>:\nso\n\n"


def test_what_is_parked_or_recalled_or_being_loaded_can_be_taken(play: Plays) -> None:
    world = play(concurrencydestination=1)
    total = WAITING * 2
    for number in range(total):
        world.accept(number, [b"a@slow.test"])
    while not world.loads:  # until parked ones are recalled
        world.report(next(iter(world.starts)), K)
        world.write_all()
    loading, parked = world.loads[0], total - 1
    assert world.take(loading, parked) == [parked]
    world.load_all()
    assert world.taken == [parked, loading]
    order = []
    while world.starts:
        delivery = next(iter(world.starts))
        order.append(world.starts[delivery].stored.id.number)
        world.report(delivery, K)
        world.write_all()
        world.load_all()
    assert order == sorted(order) and set(world.queue) == {loading, parked}
    world.put_back(parked)
    world.put_back(loading)
    world.load_all()
    assert [start.stored.id.number for start in world.starts.values()] == [parked]


def test_retry_tries_both_kinds_of_recipients_at_once(play: Plays) -> None:
    world = play()
    world.accept(1, [b"bob@example.test", b"a@far.test"])
    world.report(1, Z)
    world.report(2, Z)
    world.write_all()
    assert world.take(1) == [1] and world.manager.waiting == 0
    world.put_back(1, 0)
    world.load_all()
    assert {type(start) for start in world.starts.values()} == {StartLocal, StartRemote}


def stored_before(world: Any, channels: tuple[Any, ...], outcomes: tuple[Any, ...], bounce: bytes) -> None:
    """Message 1 as it lies in qmail's layout: routed for good, and some of it done with."""
    world.accept(1, [b"bob-v-joe@virt.test", b"x@gone.test"])
    world.restart()
    progress = tuple(Progress(outcome) for outcome in outcomes)
    changes = {"channels": channels, "progress": progress, "bounce": bounce}
    world.queue[1] = msgspec.structs.replace(world.queue[1], **changes)
    world.bounces.clear()
    world.tell(Known(1, 0))
    world.load_all()


def test_what_lies_in_the_layout_is_not_routed_again(play: Plays) -> None:
    world = play(virtualdomains={b"virt.test": b"bob-v", b"gone.test": b"carol"})
    stored_before(world, ("local", "remote"), (None, None), b"<before@x.test>:\nno\n\n")
    local, remote = sorted(world.starts.values(), key=lambda start: start.delivery)
    assert (local.recipient, remote.recipients, remote.domain) == (
        b"bob-v-joe@virt.test",
        (b"x@gone.test",),
        b"gone.test",
    )
    world.report(remote.delivery, D)
    world.report(local.delivery, D)
    world.write_all()
    assert world.bounces[0].failures == (
        b"<before@x.test>:\nno\n\n<x@gone.test>:\nso\n\n<joe@virt.test>:\nso\n\n"
    )


@pytest.mark.parametrize("bounce", [b"<bob@example.test>:\nno\n\n", b""])
def test_with_nobody_left_a_bounce_that_is_pending_is_made_and_the_message_ends(
    play: Plays, bounce: bytes
) -> None:
    world = play()
    stored_before(world, ("local", "remote"), (K, K), bounce)
    world.write_all()
    assert [one.failures for one in world.bounces] == ([bounce] if bounce else [])
    assert world.ended == {1}


UNKNOWN: list[Event] = [
    Finished(9),
    Reported(9, ()),
    Recorded(9),
    BounceFailed(9),
    Loaded(9, None),
    Wake(),
    Flush(),
]


@pytest.mark.parametrize("event", UNKNOWN)
def test_what_is_not_known_is_ignored(play: Plays, event: Event) -> None:
    world = play()
    world.accept(1, [b"bob@example.test"])
    assert not [action for action in world.tell(event) if not isinstance(action, LogEvent)]
    world.report(1, K)
    world.write_all()
    assert world.ended == {1}


def test_a_recipient_without_a_report_is_deferred(play: Plays) -> None:
    world = play()
    world.accept(1, [b"a@far.test", b"b@far.test"])
    world.starts.pop(1)
    world.tell(Reported(1, (Result(K, b"ok\n"),)))
    world.write_all()
    assert [progress.outcome for progress in world.queue[1].progress] == [K, None]


def test_why_a_delivery_was_put_off_is_told_with_the_number_of_the_message_and_to_no_sender(
    play: Plays,
) -> None:
    world = play(queuelifetime=-1)  # so that there is a bounce as well
    world.accept(7, [b"a@far.test", b"b@far.test"])
    world.starts.pop(1)
    result = Result(Z, b"no host\n", host=True, why="mail for far.test waits: 192.0.2.53:53 says SERVFAIL")
    world.tell(Reported(1, (result, result)))
    world.write_all()
    told = [line for line in world.log.lines() if b"SERVFAIL" in line]
    assert told == [b"warning: msg 7: mail for far.test waits: 192.0.2.53:53 says SERVFAIL"]
    assert [event.number for event in world.log.events if isinstance(event, Warn)] == [7]
    assert len(world.bounces) == 1
    assert "SERVFAIL" not in repr((world.queue, world.bounces))


def test_a_report_is_kept_only_up_to_a_length(play: Plays) -> None:
    world = play()
    world.accept(1, [b"bob@example.test"])
    record = only(world.report(1, D, b"x" * 50_000), Record)
    assert record.changes[0].text == b"<bob@example.test>:\n" + b"x" * 10_000 + b"\n\n"
    assert max(map(len, world.log.lines())) < 10_100
