"""The supervisor's mind: whoever dies, reloads or ends, what must run runs and who must meet meets."""

from collections.abc import Callable, Sequence
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.service.supervisor import machine as mind

ROLES: tuple[mind.Role, ...] = ("gate", "local", "remote", "send", "smtpd")
"""Those that there always are."""
RENEWED = [role for role in mind.RENEWED if role in ROLES]


class World:
    """Does what the machine asks for; children become ready or end when the test says so."""

    def __init__(self, fronts: int = 1) -> None:
        self.machine = mind.Machine(fronts)
        self.now = 0.0
        self.alive: dict[int, mind.Start] = {}
        self.ready: set[int] = set()
        self.links: list[mind.Link] = []
        self.told: dict[int, list[str]] = {}
        self.wakes: list[float] = []
        self.said: list[object] = []
        self.killed: set[int] = set()
        self.fronts = self.asked = fronts
        self.do(self.machine.begin(self.now))

    def do(self, actions: list[mind.Action]) -> None:
        for action in actions:
            if isinstance(action, mind.Start):
                if action.role == "smtpd":
                    assert self.named("send") & self.ready, "a front end before the queue is open"
                self.alive[action.child] = action
            elif isinstance(action, mind.Link):
                assert action.client in self.alive
                assert action.server in self.alive
                self.links.append(action)
            elif isinstance(action, mind.Tell):
                assert action.child in self.alive
                self.told.setdefault(action.child, []).append(action.word)
            elif isinstance(action, mind.Kill):
                self.killed.add(action.child)
            elif isinstance(action, mind.WakeAt):
                self.wakes.append(action.time)
            else:
                self.said.append(action)
                if isinstance(action, mind.Taken):
                    self.fronts = self.asked

    def named(self, role: mind.Role) -> set[int]:
        return {number for number, start in self.alive.items() if start.role == role}

    def get_ready(self, number: int) -> None:
        self.ready.add(number)
        self.do(self.machine.ready(number, self.now))

    def die(self, number: int) -> None:
        del self.alive[number]
        self.ready.discard(number)
        self.do(self.machine.ended(number, self.now))

    def wake(self) -> None:
        """The next time that was asked for has come."""
        if self.wakes:
            self.now = max(self.now, min(self.wakes))
            self.wakes = [when for when in self.wakes if when > self.now]
            self.do(self.machine.wake(self.now))

    def reload(self, fronts: int = 1) -> None:
        self.asked = fronts
        self.do(self.machine.reload(fronts, self.now))

    def upgrade(self, fronts: int = 1, dead: Sequence[int] = ()) -> None:
        """Another program goes on with the same children; these have died when it begins."""
        self.fronts = fronts
        children, generation = list(self.machine.children.values()), self.machine.generation
        self.machine, self.links, self.wakes, self.said = mind.Machine(fronts), [], [], []
        self.machine.adopt(children, generation, self.now)
        for number in dead:
            self.die(number)
        self.do(self.machine.begin(self.now))
        self.do(self.machine.hand_over(self.now))

    def leaving(self) -> list[int]:
        return [
            number for number in self.alive if {"leave", "handover", "hurry"} & set(self.told.get(number, []))
        ]

    def calm(self) -> None:
        """Everybody becomes ready, and who was told to leave does."""
        for _ in range(200):
            for number in self.leaving():
                self.die(number)
            waiting = [number for number in self.alive if number not in self.ready]
            if waiting:
                self.get_ready(waiting[0])
            elif self.wakes:
                self.wake()
            else:
                return
        raise AssertionError("it never comes to rest")

    def partner(self, number: int, port: str) -> int:
        """Whom it was introduced to last."""
        return [link.server for link in self.links if (link.client, link.port) == (number, port)][-1]


def whole(world: World, fronts: int = 1) -> None:
    for role in ROLES:
        assert len(world.named(role)) == (fronts if role == "smtpd" else 1), role
    for port, asks, serves in mind.LINKS:
        for number in world.named(asks):
            assert {world.partner(number, port)} == world.named(serves), port


def serving(fronts: int = 1) -> World:
    world = World(fronts)
    world.calm()
    assert world.said == [mind.Serving(False)]
    return world


def test_front_ends_come_when_the_queue_is_open() -> None:
    world = World()
    assert not world.named("smtpd")
    world.get_ready(*world.named("send"))
    assert len(world.named("smtpd")) == 1


def test_front_ends_ask_local_for_mailboxes_and_programs_by_connections_of_their_own() -> None:
    world = serving(2)
    (local,) = world.named("local")
    assert {(link.port, link.client) for link in world.links if link.server == local} == {
        ("local", *world.named("send")),
        ("logins", *world.named("gate")),
        *((port, front) for front in world.named("smtpd") for port in ("check", "programs")),
    }
    world.die(local)
    world.calm()
    (local,) = world.named("local")
    for port in ("check", "programs"):
        assert {world.partner(front, port) for front in world.named("smtpd")} == {local}


def test_everybody_is_there_and_knows_whom_he_asks() -> None:
    whole(serving(3), 3)


def test_a_start_that_fails_ends_all() -> None:
    world = World()
    world.die(*world.named("send"))
    world.calm()
    assert world.said == [mind.Ended()]
    assert not world.alive


def test_who_dies_is_started_anew_and_introduced_again() -> None:
    for role in ROLES:
        world = serving()
        world.die(*world.named(role))
        world.calm()
        whole(world)
        assert world.machine.state == "serving"


def test_it_serves_when_everybody_is_ready_and_not_before() -> None:
    for last in ROLES:
        world = World()
        while waiting := [
            one for one in world.alive if one not in world.ready and world.alive[one].role != last
        ]:
            world.get_ready(waiting[0])
        assert world.said == [], f"{last} is not ready"
        world.calm()
        assert world.said == [mind.Serving(False)]


def test_who_has_lived_and_dies_is_started_anew_so_soon_that_clients_hardly_wait() -> None:
    for role in ROLES:
        world = serving()
        world.now += mind.SETTLED + 1
        world.die(*world.named(role))
        assert min(world.wakes) - world.now <= 0.1
        world.wake()
        assert len(world.named(role)) == 1


def test_who_dies_again_and_again_is_started_ever_later_but_never_given_up() -> None:
    world = serving()
    waits = []
    for _ in range(30):
        world.die(*world.named("remote"))
        waits.append(round(min(world.wakes) - world.now, 3))
        while not world.named("remote"):
            world.wake()
    assert waits == sorted(waits)
    assert waits[0] < 1
    assert waits[-1] == mind.LATEST_AGAIN


def test_a_reload_makes_new_ones_before_the_old_ones_leave() -> None:
    world = serving()
    before = {role: world.named(role) for role in ROLES}
    world.reload()
    world.get_ready(world.machine.trial)
    for role in RENEWED:
        assert len(world.named(role)) == 2
    assert set(world.leaving()) == before["smtpd"], "its successor is ready already"
    assert [world.told[number] for role in ("send", "gate") for number in before[role]] == [["reload"]] * 2
    world.calm()
    whole(world)
    assert world.said[-1] == mind.Serving(True)
    for role in ROLES:
        assert (world.named(role) == before[role]) == (role not in mind.RENEWED)


def test_old_ones_have_as_long_as_their_work_takes_until_all_is_to_end() -> None:
    world = serving()
    old = world.named("remote")
    world.reload()
    world.get_ready(world.machine.trial)
    tells: list[mind.Action] = []
    for number in [one for one in world.alive if one not in world.ready]:
        world.ready.add(number)
        tells += world.machine.ready(number, world.now)
    assert [one.seconds for one in tells if isinstance(one, mind.Tell) and one.child in old] == [inf]
    world.do(tells)
    last = world.machine.terminate(world.now)
    fronts = world.named("smtpd")
    assert {one.child for one in last if isinstance(one, mind.Tell) and one.seconds == mind.DRAIN} == fronts


def test_new_settings_are_tried_by_one_front_end_before_anybody_else_has_them() -> None:
    world = serving(2)
    before = set(world.alive)
    world.reload(2)
    [trial] = set(world.alive) - before
    assert world.alive[trial] == mind.Start(trial, "smtpd", 2, trial=True)
    assert not world.told
    world.get_ready(trial)
    assert mind.Taken() in world.said
    assert not any(world.alive[number].trial for number in set(world.alive) - before - {trial})
    world.calm()
    whole(world, 2)
    assert trial in world.named("smtpd")


def test_settings_of_which_a_front_end_ends_are_nobody_elses() -> None:
    world = serving(2)
    before = dict(world.alive)
    world.reload(3)
    world.die(world.machine.trial)
    assert world.said[-1] == mind.Refused()
    world.calm()
    assert world.alive == before
    assert not world.told
    world.die(*world.named("remote"))
    world.calm()
    whole(world, 2)
    assert {start.generation for start in world.alive.values()} == {1}
    world.reload(3)
    world.calm()
    whole(world, 3)
    assert world.said[-2:] == [mind.Taken(), mind.Serving(True)]


def test_who_dies_while_settings_are_tried_is_started_anew_with_the_old_ones() -> None:
    for role in RENEWED:
        world = serving()
        world.reload()
        trial = world.machine.trial
        world.die(*(world.named(role) - {trial}))
        while not world.named(role) - {trial}:
            world.wake()
        [anew] = world.named(role) - {trial}
        assert world.alive[anew] == mind.Start(anew, role, 1)
        world.calm()
        whole(world)
        assert {world.alive[number].generation for number in world.named(role)} == {2}


def test_settings_that_come_while_others_are_tried_take_their_place() -> None:
    world = serving()
    world.reload(2)
    first = world.machine.trial
    world.reload(3)
    assert world.leaving() == [first]
    world.die(first)
    assert mind.Refused() not in world.said
    world.calm()
    whole(world, 3)


def test_settings_that_come_while_the_queue_is_closed_are_tried_when_it_is_open() -> None:
    world = serving()
    world.die(*world.named("send"))
    world.reload(2)
    assert not world.machine.trial
    world.calm()
    whole(world, 2)


def test_a_stop_while_settings_are_tried_asks_no_more_about_them() -> None:
    world = serving()
    world.reload()
    world.do(world.machine.terminate(world.now))
    world.calm()
    assert world.said == [mind.Serving(False), mind.Ended()]


def test_a_reload_may_change_the_number_of_front_ends() -> None:
    world = serving(1)
    for fronts in (3, 2):
        world.reload(fronts)
        world.calm()
        whole(world, fronts)


def test_at_the_end_front_ends_leave_before_the_queue_and_the_queue_before_the_others() -> None:
    world = serving()
    world.do(world.machine.terminate(world.now))
    for roles in ({"smtpd"}, {"send"}, {"gate", "local", "remote"}):
        assert {world.alive[number].role for number in world.leaving()} == roles
        for number in world.leaving():
            world.die(number)
    assert world.said[-1] == mind.Ended()


def test_what_does_not_end_is_hurried_then_killed() -> None:
    world = serving()
    world.do(world.machine.terminate(world.now))
    while not world.killed:
        world.wake()
    assert world.killed == world.named("smtpd")
    while world.wakes:
        world.wake()
    assert world.killed == set(world.alive)
    assert "hurry" in world.told[next(iter(world.named("smtpd")))]


@pytest.mark.parametrize("times", [1, 2])
def test_a_front_end_that_does_not_end_has_nobody_killed_but_itself(times: int) -> None:
    """The queue is told to leave when that is gone, and has time to be closed."""
    world = serving()
    for _ in range(times):
        world.do(world.machine.terminate(world.now))
    while not world.killed:
        world.wake()
    [front] = world.killed
    world.die(front)
    [queue] = world.named("send")
    assert world.told[queue][-1] == "leave"
    world.die(queue)
    for number in list(world.alive):
        assert "leave" in world.told[number]
        world.die(number)
    world.wake()
    assert world.killed == {front} and world.said[-1] == mind.Ended()


def test_a_second_term_hurries_all() -> None:
    world = serving()
    world.do(world.machine.terminate(world.now))
    world.do(world.machine.terminate(world.now))
    assert all("hurry" in world.told[number] for number in world.alive)


def upgraded(old: World) -> World:
    old.upgrade()
    return old


def test_an_upgrade_replaces_all_and_two_queues_are_never_open() -> None:
    old = serving()
    before = {role: old.named(role) for role in ROLES}
    new = upgraded(old)
    assert new.named("send") == before["send"]
    for number in before["smtpd"]:
        assert number not in new.leaving()
    (queue,) = before["send"]
    assert new.told[queue] == ["handover"]
    new.die(queue)
    assert len(new.named("send")) == 1
    new.calm()
    whole(new)
    assert not set().union(*before.values()) & set(new.alive)
    assert new.said == [mind.Serving(False)]


def test_an_old_queue_that_does_not_end_in_an_upgrade_is_killed_for_the_new_one() -> None:
    world = upgraded(serving())
    (queue,) = world.named("send")
    while world.wakes and not world.killed:
        world.wake()
    assert world.killed == {queue}
    world.die(queue)
    world.calm()
    whole(world)


def test_in_an_upgrade_old_front_ends_meet_the_new_queue() -> None:
    new = upgraded(old := serving())
    fronts = old.named("smtpd")
    new.die(*new.named("send"))
    new.get_ready(*new.named("send"))
    for number in fronts:
        assert new.partner(number, "submission") in new.named("send")


def test_whoever_dies_in_the_midst_of_an_upgrade_does_not_end_the_service() -> None:
    for role in ROLES:
        for before in (True, False):
            world = serving()
            (number,) = world.named(role)
            world.upgrade(dead=[number] if before else [])
            if not before:
                world.die(number)
            assert len(world.named("send")) == 1, role
            world.calm()
            whole(world)
            world.upgrade()
            for old in [one for one in world.alive if one not in world.named("send")]:
                world.die(old)
            world.calm()
            whole(world)


STEPS: tuple[Callable[[World, int], None], ...] = (
    lambda world, lot: world.get_ready(_one(world.alive, lot)) if world.alive else None,
    lambda world, lot: world.die(_one(world.alive, lot)) if world.alive else None,
    lambda world, lot: world.wake(),
    lambda world, lot: world.reload(1 + lot % 3),
    lambda world, lot: world.upgrade(1 + lot % 3, [one for one in world.alive if (one + lot) % 5 == 0]),
)
RENEWALS = (3, 4)
"""Steps that the shell takes only while it serves."""


def _one(numbers: dict[int, mind.Start], lot: int) -> int:
    return sorted(numbers)[lot % len(numbers)]


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(range(len(STEPS))), st.integers(0, 99)), max_size=60))
def test_whatever_happens_in_the_end_all_is_whole_or_all_is_ended(steps: list[tuple[int, int]]) -> None:
    world = serving()
    for step, lot in steps:
        if step not in RENEWALS or world.machine.state == "serving":
            STEPS[step](world, lot)
    world.calm()
    whole(world, world.fronts)
    world.do(world.machine.terminate(world.now))
    world.calm()
    assert world.said[-1] == mind.Ended()
    assert not world.alive


def test_figures_are_told_by_a_process_only_where_that_is_wanted() -> None:
    world = serving()
    assert not world.named("metrics")
    world.do(world.machine.reload(1, world.now, metrics=True))
    world.calm()
    [teller] = world.named("metrics")
    assert world.said[-1] == mind.Serving(True)
    world.die(teller)
    world.calm()
    assert len(world.named("metrics")) == 1
    world.do(world.machine.reload(1, world.now, metrics=True))
    world.calm()
    [after] = world.named("metrics")
    assert after != teller, "it has the old address"
    world.do(world.machine.reload(1, world.now))
    world.calm()
    assert not world.named("metrics")
    whole(world)


def test_figures_that_are_not_wanted_any_more_are_not_started_anew() -> None:
    world = serving()
    world.do(world.machine.reload(1, world.now, metrics=True))
    world.calm()
    world.die(*world.named("metrics"))
    world.do(world.machine.reload(1, world.now))
    world.calm()
    assert not world.named("metrics")


def test_settings_that_are_refused_bring_no_process_for_figures() -> None:
    world = serving()
    world.do(world.machine.reload(1, world.now, metrics=True))
    world.die(world.machine.trial)
    world.calm()
    assert not world.named("metrics")
    whole(world)
