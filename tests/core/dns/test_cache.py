"""The cache of answers: bounded in size and time."""

from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.dns import Answer, Cache, LookupFailed, MailExchanger, NoSuchName

ANSWER = Answer((MailExchanger(10, b"mx.test"),), 60)


def test_an_answer_lives_as_long_as_its_ttl():
    cache = Cache()
    cache.put(b"a.test", "MX", ANSWER, 60, now=100.0)
    assert cache.get(b"a.test", "MX", 130.0) == Answer(ANSWER.records, 30.0)
    assert cache.get(b"a.test", "A", 130.0) is None
    assert cache.get(b"a.test", "MX", 160.0) is None
    assert len(cache) == 0


def test_nothing_is_believed_for_longer_than_an_hour_nor_a_refusal_longer_than_five_minutes():
    cache = Cache()
    cache.put(b"a.test", "MX", ANSWER, 1e9, now=0.0)
    cache.put(b"b.test", "MX", Answer((), 1e9), 1e9, now=0.0)
    cache.put(b"c.test", "MX", NoSuchName("no"), 1e9, now=0.0)
    assert cache.get(b"a.test", "MX", 3599.0) is not None
    assert cache.get(b"b.test", "MX", 299.0) is not None
    assert isinstance(cache.get(b"c.test", "MX", 299.0), NoSuchName)
    assert cache.get(b"a.test", "MX", 3600.0) is None
    assert cache.get(b"b.test", "MX", 300.0) is None
    assert cache.get(b"c.test", "MX", 300.0) is None


def test_what_was_not_asked_for_the_longest_goes_first():
    cache = Cache(size=10)
    for number in range(5):
        cache.put(b"%d.test" % number, "MX", ANSWER, 60, now=0.0)
    assert cache.get(b"0.test", "MX", 1.0) is not None
    cache.put(b"5.test", "MX", ANSWER, 60, now=0.0)
    assert cache.get(b"1.test", "MX", 1.0) is None
    assert cache.get(b"0.test", "MX", 1.0) is not None


def test_dnssec_status_is_kept():
    cache = Cache()
    cache.put(b"a.test", "A", Answer(("192.0.2.1",), 60, authentic=True), 60, now=0.0)
    assert cache.get(b"a.test", "A", 1.0) == Answer(("192.0.2.1",), 59.0, authentic=True)


def test_an_answer_larger_than_the_cache_is_not_kept_and_drives_nothing_out():
    cache = Cache(size=10)
    cache.put(b"a.test", "MX", ANSWER, 60, now=0.0)
    cache.put(b"b.test", "A", Answer(("192.0.2.1",) * 10, 60), 60, now=0.0)
    assert cache.get(b"b.test", "A", 1.0) is None
    assert cache.get(b"a.test", "MX", 1.0) is not None


VALUES = st.one_of(
    st.integers(0, 12).map(lambda count: Answer(("192.0.2.1",) * count, 0)),
    st.just(NoSuchName("no")),
    st.just(LookupFailed("later")),
)


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 5), VALUES, st.floats(-1, 5000), st.floats(0, 100)), max_size=60),
)
def test_it_never_exceeds_its_size_and_never_answers_beyond_the_ttl(size, puts):
    cache, now, known = Cache(size), 0.0, {}
    for number, value, ttl, later in puts:
        now += later
        name = b"%d" % number
        cache.put(name, "A", value, ttl, now)
        known[name] = (now + ttl, value)
        entries = 0
        for other, (expires, last) in known.items():
            found = cache.get(other, "A", now)
            if found is None:
                continue
            assert now < expires
            if isinstance(found, Answer):
                assert found.records == last.records
                assert now + found.ttl <= expires + 1e-6
                entries += len(found.records)
            else:
                assert found is last
            entries += 1
        assert entries <= len(cache) <= size
