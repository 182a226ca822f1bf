"""The forms on the disk: what is written is read back, anything else is not accepted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.queue import Change
from openqmail.core.queue.journal.records import (
    BATCH_SIZE,
    HEAD_SIZE,
    Applied,
    Kept,
    Moved,
    SegmentHead,
    Submitted,
    TooLong,
    apply_changes,
    bounce_of,
    decode_batch_head,
    decode_record,
    decode_segment_head,
    encode_batch_head,
    encode_record,
    encode_segment_head,
    holds,
    is_of_earlier_form,
    kept,
    pack_progress,
    recorded,
    split,
    unpack_progress,
)
from openqmail.core.values import Envelope, Outcome, Recipient

small = st.integers(0, 1 << 40)
texts = st.binary(max_size=40)
keys = st.binary(min_size=24, max_size=24)
dues = st.tuples(small, small)
changes = st.builds(Change, st.integers(0, 50), st.sampled_from(Outcome), texts)
results = st.builds(recorded, small, st.lists(changes, max_size=4).map(tuple), dues, st.booleans())
letters = st.sampled_from(["K", "D", "Z"])
kept_changes = st.tuples(st.sampled_from("lr"), st.integers(0, 50), letters, texts)
kept_results = st.builds(
    Kept, small, keys, st.lists(kept_changes, max_size=4).map(tuple), dues, st.booleans()
)
histories = st.lists(
    st.builds(recorded, small, st.lists(changes, max_size=4).map(tuple), dues, st.booleans()), max_size=5
)
messages = st.builds(
    Submitted,
    small,
    small,
    small,
    st.builds(
        Envelope,
        texts,
        st.lists(st.builds(Recipient, texts, texts, texts), max_size=4).map(tuple),
        smtputf8=st.booleans(),
    ),
    st.sampled_from([b"", b"d" * 32]),
    st.none() | results | kept_results,
    st.sampled_from([b"", b"k" * 24]),
    st.lists(st.tuples(st.integers(0, 50), letters | st.just(""), small, texts), max_size=3).map(tuple),
    dues,
)
records = st.one_of(
    results, kept_results, messages, st.builds(Moved, small, keys), st.builds(Applied, small, small)
)


@settings(max_examples=100)
@given(st.lists(st.tuples(records, texts), max_size=5))
def test_records_come_back_as_they_were(given_records):
    payload = b"".join(encode_record(record, len(body)) + body for record, body in given_records)
    at, read = 0, []
    while at < len(payload):
        record, body, size = decode_record(payload, at)
        read.append((record, payload[body : body + size]))
        at = body + size
    assert read == given_records


@settings(max_examples=200)
@given(st.binary(max_size=100))
def test_bytes_that_are_no_record_are_refused_with_a_sentence(data):
    try:
        decode_record(data)
    except ValueError as error:
        assert "record" in str(error)


def test_a_length_beyond_the_batch_is_refused():
    whole = encode_record(Submitted(1, 1, 4, Envelope(b"a", ())), 4) + b"body"
    for cut in range(len(whole)):
        with pytest.raises(ValueError, match="record"):
            decode_record(whole[:cut])


def test_a_head_of_a_segment_with_any_bit_changed_is_none():
    head = SegmentHead(b"q" * 16, b"n" * 16, 5, 4, 1000, 3)
    data = encode_segment_head(head)
    assert len(data) == HEAD_SIZE and decode_segment_head(data) == head
    for at in range(HEAD_SIZE):
        assert decode_segment_head(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) is None
        assert decode_segment_head(data[:at]) is None


def test_a_batch_is_one_only_under_its_own_segments_nonce():
    nonce, other = b"n" * 16, b"o" * 16
    data = encode_batch_head(nonce, 3, b"payload", 500)
    head = decode_batch_head(nonce, data)
    assert head is not None and (head.sequence, head.length, head.synced) == (3, 7, 500)
    assert holds(nonce, head, b"payload") and not holds(nonce, head, b"pay1oad")
    assert decode_batch_head(other, data) is None and not holds(other, head, b"payload")
    for at in range(BATCH_SIZE):
        assert decode_batch_head(nonce, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) is None


@given(histories)
def test_progress_carried_over_to_a_new_segment_is_the_same(history):
    progress = {}
    for record in history:
        apply_changes(progress, record)
    carried = unpack_progress(pack_progress(progress))
    assert carried == progress and list(carried) == list(progress)
    assert bounce_of(carried) == bounce_of(progress)


def test_a_bounce_has_the_failures_in_the_order_in_which_they_occurred():
    progress = {}
    for position in (2, 0, 1):
        apply_changes(
            progress,
            recorded(1, (Change(position, Outcome.FAILURE, b"<%d>:\n\n" % position),), (0, 0), False),
        )
    assert bounce_of(progress) == b"<2>:\n\n<0>:\n\n<1>:\n\n"


def test_a_segment_of_the_version_before_is_recognised_and_not_read_as_one_of_ours():
    old = b"oqmail\x00\x01" + bytes(200)
    assert is_of_earlier_form(old) and decode_segment_head(old) is None
    assert not is_of_earlier_form(encode_segment_head(SegmentHead(b"q" * 16, b"n" * 16, 1, 0, 0, 1)))


def test_what_recovery_would_refuse_is_not_written(monkeypatch):
    monkeypatch.setattr("openqmail.core.queue.journal.records.MAX_BATCH", 1000)
    encode_batch_head(b"n" * 16, 0, b"x" * 1000, 0)
    with pytest.raises(TooLong, match="1001 bytes"):
        encode_batch_head(b"n" * 16, 0, b"x" * 1001, 0)


@given(results | kept_results, st.integers(30, 200))
def test_a_record_in_pieces_says_the_same(record, room):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openqmail.core.queue.journal.records.MAX_CHANGES", room)
        pieces = split(record)
    assert sum((one.changes for one in pieces), ()) == record.changes
    assert [one.ended for one in pieces] == [False] * (len(pieces) - 1) + [record.ended]
    assert all(
        len(one.changes) == 1 or sum(len(text) for *_, text in one.changes) <= room for one in pieces[1:]
    )
    assert {(one.number, one.key, one.due) for one in pieces} == {(record.number, record.key, record.due)}


@given(st.binary(max_size=20))
def test_a_report_has_no_nul_once_it_is_in_the_store(text):
    change = Change(0, Outcome.FAILURE, text)
    [(_, _, told)] = recorded(1, (change,), (0, 0), False).changes
    [(_, _, _, kept_text)] = kept(1, b"k", (change,), lambda position: ("l", 0), (0, 0), False).changes
    assert told == kept_text == text.replace(b"\0", b"?")
