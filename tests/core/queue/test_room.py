"""Which segments are emptied: as few as may be, and never so that it takes more room than it brings."""

from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.queue.room import PINNED, Written, to_be_emptied

MIB = 1 << 20
MUCH = 1 << 40
LIMIT = 1 << 30


def segments(count, size=2 * MIB, age=1.0, moved=0):
    """And one that is written to."""
    return [
        *(Written(number, size, age, moved) for number in range(1, count + 1)),
        Written(count + 1, 0, 0.0, 0),
    ]


def test_where_there_is_room_young_segments_stay():
    assert to_be_emptied(segments(16), LIMIT, MUCH, MUCH // 10) == set()


def test_an_old_one_is_emptied_however_much_room_there_is():
    old = Written(1, MIB, PINNED + 1, 500 * MIB)
    assert to_be_emptied([old, *segments(3)[1:]], LIMIT, MUCH, MUCH // 10) == {1}


def test_a_long_journal_is_emptied_up_to_the_limit_by_the_size_that_its_segments_have():
    assert to_be_emptied(segments(10, moved=MIB), 8 * MIB, MUCH, 0) == {1, 2, 3, 4, 5, 6}


def test_a_message_that_keeps_a_small_disk_full_of_what_has_ended_is_moved():
    slow = Written(1, 2 * MIB, 30.0, 17_000)
    assert 1 in to_be_emptied([slow, *segments(14)[1:]], LIMIT, 3 * MIB, 3 * MIB)


def test_a_message_that_keeps_the_segment_that_is_written_to_is_moved_where_no_mail_is_taken():
    [written] = [Written(1, MIB, 1.0, 17_000)]
    assert to_be_emptied([written], LIMIT, 3 * MIB - 1, 3 * MIB) == {1}
    assert to_be_emptied([written], LIMIT, 3 * MIB, 3 * MIB) == set(), "there it goes on by itself"


def test_the_oldest_go_though_the_next_ones_are_not_worth_it():
    dear = [Written(number, MIB, 1.0, 2 * MIB) for number in range(2, 4)]
    assert to_be_emptied([Written(1, MIB, 1.0, 17_000), *dear], LIMIT, 20 * MIB, 21 * MIB) == {1}


def test_mail_that_would_take_more_room_in_the_layout_stays_where_it_is():
    assert to_be_emptied(segments(14, moved=3 * MIB), LIMIT, 15 * MIB, 16 * MIB) == set()


@given(
    sizes=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=20),
    free=st.integers(0, 999),
    watermark=st.integers(0, 999),
)
def test_where_room_is_short_moving_takes_a_part_of_it_and_brings_more(sizes, free, watermark):
    written = [Written(at, size, 0.0, moved) for at, (size, moved) in enumerate(sizes)]
    found = to_be_emptied(written, LIMIT, free, watermark)
    assert found == set(range(len(found))), "only the oldest can go"
    if found:
        size, moved = (sum(column) for column in zip(*sizes[: len(found)], strict=True))
        assert moved <= free // 4 and size > moved
