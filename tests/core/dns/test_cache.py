"""The cache of answers: bounded in size and time."""

from openqmail.core.dns import Answer, Cache, MailExchanger, NoSuchName

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


def test_it_does_not_grow_beyond_its_size():
    cache = Cache(size=10)
    for number in range(100):
        cache.put(b"%d.test" % number, "MX", ANSWER, 60, now=0.0)
    assert len(cache) == 10
    assert cache.get(b"99.test", "MX", 1.0) is not None
    assert cache.get(b"0.test", "MX", 1.0) is None
