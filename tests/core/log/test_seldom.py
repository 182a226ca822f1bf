"""What may be said again, and when."""

from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.log import Seldom, seldom

SECONDS = 60.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 100)), max_size=50))
def test_the_same_is_said_once_in_so_many_seconds_whatever_else_is_said(sayings):
    one, now, said = Seldom(SECONDS), 0.0, {}
    for what, pause in sayings:
        now += pause
        last = said.get(what)
        assert one.may_say(what, now) == (last is None or now >= last + SECONDS)
        if last is None or now >= last + SECONDS:
            said[what] = now


def test_who_says_ever_something_else_takes_no_more_memory():
    one = Seldom(SECONDS)
    said = [one.may_say(b"%d" % number, 0.0) for number in range(3 * seldom.MOST)]
    assert all(said)
    assert len(one._said) <= seldom.MOST
    assert not one.may_say(b"%d" % (3 * seldom.MOST - 1), SECONDS / 2)
