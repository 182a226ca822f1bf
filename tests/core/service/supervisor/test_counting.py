"""What the children have counted, added up by the supervisor."""

from types import SimpleNamespace
from typing import Any, cast

from openqmail.core.service.figures import MOST
from openqmail.core.service.frames.supervision import Counted
from openqmail.core.service.supervisor.counting import Totals
from openqmail.core.service.supervisor.running import Running


def child(role: str, generation: int = 1, pid: int = 7) -> Running:
    channel = cast(Any, SimpleNamespace())  # nothing is said to it here
    return Running(cast(Any, role), generation, pid, 0, channel)


def test_what_grows_is_added_up_over_all_children_of_a_role_and_outlives_them() -> None:
    totals, first, second, other = Totals(), child("smtpd"), child("smtpd", 2, 8), child("send", 1, 9)
    totals.take(first, Counted((1, 10), (5,)))
    totals.take(first, Counted((2, 20, 300), (6,)))  # one figure more than before
    totals.take(second, Counted((4, 40), (70,)))
    totals.take(other, Counted((1000,), ()))
    told = totals.figures([second, other], 4711)  # the first has ended
    assert told.since == 4711
    assert told.grown == {"smtpd": (7, 70, 300), "send": (1000,)}
    assert told.present == {"smtpd": (70,), "send": ()}
    assert [one.pid for one in told.processes[1:]] == [8, 9]  # the supervisor itself is the first


def test_what_is_there_now_is_the_latest_word_of_each_child_and_their_sum() -> None:
    totals, first, second = Totals(), child("smtpd"), child("smtpd", 1, 8)
    for present in ((3, 1), (2, 0)):
        totals.take(first, Counted((), present))
    totals.take(second, Counted((), (10, 20, 30)))
    assert totals.figures(iter([first, second]), 0).present == {"smtpd": (12, 20, 30)}
    assert totals.figures([child("gate")], 0).present == {"gate": ()}


def test_a_sum_never_outgrows_what_a_message_holds() -> None:
    totals, one = Totals(), child("send")
    for _ in range(2):
        totals.take(one, Counted((MOST - 1,), ()))
    assert totals.figures([one], 0).grown == {"send": (MOST - 2,)}
