"""qmail's files as bytes: what we write we read, and what notqmail wrote we read and write the same."""

import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import STATES

from openqmail.core import dsn
from openqmail.core.queue.layout.forms import (
    Extra,
    Listed,
    Todo,
    bytes_of,
    decode_info,
    decode_recipients,
    decode_todo,
    encode_attempts,
    encode_info,
    encode_recipients,
    missing_paragraphs,
    text_of,
    whole_info,
    whole_paragraphs,
)

no_nul = st.binary(max_size=60).map(lambda data: data.replace(b"\0", b"0"))
latin = st.binary(max_size=40).map(text_of)
places = st.builds("{}{}".format, st.sampled_from("lr"), st.integers(0, 99))
tried = st.dictionaries(places, st.tuples(st.integers(1, 1000), latin), max_size=4)
extras = st.builds(
    Extra,
    st.binary(min_size=24, max_size=24).map(bytes.hex),
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 31),
    st.integers(0, 1 << 31),
    st.booleans(),
    latin,
    latin,
    st.dictionaries(places, st.tuples(latin, latin), max_size=4),
    tried,
)
lists = st.lists(st.builds(Listed, st.booleans(), no_nul), max_size=20)
paragraphs = st.lists(
    st.binary(max_size=30).map(lambda text: b"<%s>:\n\n" % text.replace(b"\0", b"").replace(b"\n", b"")),
    max_size=6,
)


@given(no_nul, st.none() | extras)
def test_a_sender_and_what_we_know_beyond_it_come_back(sender, extra):
    data = encode_info(sender, extra)
    assert decode_info(data) == (sender, extra)
    assert data.split(b"\0")[0] == b"F" + sender, "up to the first NUL it is qmail's own"


@given(no_nul, extras, st.lists(tried, max_size=4), st.integers(0, 60))
def test_attempts_add_up_and_a_torn_one_is_passed_over(sender, extra, later, cut):
    data = encode_info(sender, extra) + b"".join(encode_attempts(one) for one in later)
    expected = dict(extra.tried)
    for one in later:
        for name, (attempts, text) in one.items():
            expected[name] = (attempts + expected.get(name, (0, ""))[0], text)
    torn = encode_attempts({"l0": (1, "torn")})[:-1]
    for tail in (b"", torn[:cut], bytes(cut)):
        read, found = decode_info(data + tail)
        assert read == sender and found.tried == expected and found.key == extra.key
        assert whole_info(data + tail) == data


@given(lists)
def test_recipients_come_back_in_their_order(listed):
    assert decode_recipients(encode_recipients(listed)) == listed


@given(st.integers(0, 1 << 31), st.integers(0, 1 << 31), no_nul, st.lists(no_nul, max_size=8))
def test_what_a_qmail_queue_wrote_is_read(uid, pid, sender, recipients):
    data = b"u%d\0p%d\0F%s\0" % (uid, pid, sender) + b"".join(b"T%s\0" % one for one in recipients)
    assert decode_todo(data) == Todo(uid, pid, sender, tuple(recipients))


@given(st.binary(max_size=80))
def test_any_other_bytes_are_refused_with_a_sentence_and_nothing_else(data):
    for decode in (decode_info, decode_recipients, decode_todo):
        try:
            decode(data)
        except ValueError as error:
            assert len(str(error)) > 10


@pytest.mark.parametrize("data", [b"", b"F", b"Fa@b", b"Xa\0", b"\0"])
def test_what_is_no_info_file_is_refused(data):
    with pytest.raises(ValueError, match="does not begin"):
        decode_info(data)


@pytest.mark.parametrize("data", [b"Ta@b", b"Ta@b\0\0", b"Xa@b\0", b"a@b\0", b"\0"])
def test_what_is_no_list_of_recipients_is_refused(data):
    with pytest.raises(ValueError):
        decode_recipients(data)


@pytest.mark.parametrize(
    "data", [b"u1\0p2\0Fa\0Tb", b"u1\0p2\0Tb\0", b"ux\0p2\0Fa\0", b"Fa\0Zb\0", b"", b"\0"]
)
def test_what_is_no_todo_file_is_refused(data):
    with pytest.raises(ValueError):
        decode_todo(data)


@given(st.binary())
def test_any_byte_goes_through_json(data):
    assert bytes_of(text_of(data)) == data


@given(paragraphs, st.integers(0, 200))
def test_of_a_torn_bounce_whole_paragraphs_stay(written, cut):
    data = b"".join(written)
    whole = whole_paragraphs(data[:cut])
    assert data.startswith(whole) and whole in [b"".join(written[:n]) for n in range(len(written) + 1)]
    assert whole_paragraphs(data) == data
    assert whole_paragraphs(data + bytes(7)) == data, "zeros where a block never came"


@given(paragraphs, st.integers(0, 6))
def test_what_a_bounce_lacks_is_added_once(written, there):
    data = b"".join(written[:there])
    added = data + b"".join(missing_paragraphs(data, written))
    assert sorted(added.split(b"\n\n")) == sorted(b"".join(written).split(b"\n\n"))


@given(st.lists(st.text("a\n/", max_size=6).map(str.encode), max_size=6))
def test_of_whatever_reports_nothing_is_added_twice(reports):
    written = [dsn.report(b"a@b", text) for text in reports]
    assert missing_paragraphs(b"".join(written), written) == []
    assert missing_paragraphs(b"", written) == written


def test_very_many_failures_are_looked_for_in_one_pass():
    """One pass for each would outlast the time that a test has."""
    written = [dsn.report(b"u%d@b" % number, b"no such user, %d\n" % number * 40) for number in range(30_000)]
    assert missing_paragraphs(b"".join(written[:29_000]), written) == written[29_000:]


@pytest.mark.parametrize("state", STATES)
def test_every_recorded_file_is_read_and_written_again_byte_for_byte(vectors, state):
    with tarfile.open(vectors / "notqmail" / "queue" / f"{state}.tar.gz") as archive:
        for member in archive.getmembers():
            kind = member.name.split("/")[1] if "/" in member.name else ""
            if not member.isfile() and not member.islnk():
                continue
            data = archive.extractfile(member).read()
            if kind == "info":
                sender, extra = decode_info(data)
                assert extra is None and encode_info(sender) == data
            elif kind in ("local", "remote"):
                assert encode_recipients(decode_recipients(data)) == data
            elif kind == "bounce":
                assert whole_paragraphs(data) == data
            elif kind == "todo":
                todo = decode_todo(data)
                head = b"u%d\0p%d\0F%s\0" % (todo.uid, todo.pid, todo.sender)
                assert head + b"".join(b"T%s\0" % one for one in todo.recipients) == data
