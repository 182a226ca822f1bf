"""Questions and replies as bytes, with dnspython as the other reader."""

import contextlib

import dns.flags
import dns.message
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.dns import MailExchanger, wire

LABEL = st.from_regex(rb"[a-zA-Z0-9_-]{1,63}", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=6).map(b".".join).filter(lambda name: len(name) < 250)


@given(NAME, st.sampled_from(["A", "AAAA", "MX"]), st.booleans())
def test_a_question_reads_as_what_was_meant(name, kind, authentic):
    question = wire.Question(wire.name_of(name), wire.KINDS[kind])
    message = dns.message.from_wire(wire.ask(b"\x12\x34", question, authentic=authentic))
    assert message.id == 0x1234
    assert message.question[0].to_text() == f"{name.decode().lower()}. IN {kind}"
    assert message.flags == dns.flags.RD | (dns.flags.AD if authentic else 0)
    assert (message.edns, message.payload, message.ednsflags) == (0, 1232, 0)


@given(
    NAME, st.lists(st.tuples(st.integers(0, 65535), NAME), min_size=1, max_size=20), st.integers(0, 2**31 - 1)
)
def test_a_reply_is_read_as_it_was_written(name, exchangers, ttl):
    reply = dns.message.make_response(dns.message.make_query(name.decode() + ".", "MX"))
    texts = [f"{preference} {host.decode()}." for preference, host in exchangers]
    reply.answer.append(dns.rrset.from_text(name.decode() + ".", ttl, "IN", "MX", *texts))
    found = wire.read(reply.to_wire(), wire.MX).sets[(wire.name_of(name), wire.MX)]
    assert found.ttl == ttl
    assert set(found.values) == {MailExchanger(each, host.lower()) for each, host in exchangers}


@given(NAME, st.lists(st.binary(max_size=255), min_size=1, max_size=5))
def test_the_strings_of_a_text_are_one_text(name, strings):
    reply = dns.message.make_response(dns.message.make_query(name.decode() + ".", "TXT"))
    text = dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings)
    reply.answer.append(dns.rrset.from_rdata(name.decode() + ".", 60, text))
    found = wire.read(reply.to_wire(), wire.TXT).sets[(wire.name_of(name), wire.TXT)]
    assert found.values == (b"".join(strings),)


def test_a_text_that_ends_within_a_string_is_malformed():
    reply = dns.message.make_response(dns.message.make_query("a.test.", "TXT", use_edns=False))
    reply.answer.append(dns.rrset.from_text("a.test.", 60, "IN", "TXT", '"abc"'))
    data = bytearray(reply.to_wire())
    data[-4] = 9
    with pytest.raises(wire.Malformed, match="text of a wrong length"):
        wire.read(bytes(data), wire.TXT)


@given(NAME, NAME)
def test_a_pointer_is_a_name_as_people_write_it(name, target):
    reply = dns.message.make_response(dns.message.make_query(name.decode() + ".", "PTR"))
    reply.answer.append(dns.rrset.from_text(name.decode() + ".", 60, "IN", "PTR", target.decode() + "."))
    found = wire.read(reply.to_wire(), wire.PTR).sets[(wire.name_of(name), wire.PTR)]
    assert found.values == (target.lower(),)


@given(st.binary(max_size=300), st.sampled_from(list(wire.KINDS.values())))
def test_junk_is_malformed_or_read_but_nothing_else(junk, kind):
    for data in (junk, b"\0\0\x81\x80" + junk):
        with contextlib.suppress(wire.Malformed):
            wire.read(data, kind)


@given(st.data())
def test_a_damaged_reply_is_malformed_or_read_but_nothing_else(data):
    reply = dns.message.make_response(dns.message.make_query("a.test.", "MX", use_edns=0))
    reply.answer.append(dns.rrset.from_text("a.test.", 60, "IN", "CNAME", "b.test."))
    reply.answer.append(dns.rrset.from_text("b.test.", 60, "IN", "MX", "5 mx.a.test.", "6 mx.b.test."))
    reply.authority.append(dns.rrset.from_text("test.", 60, "IN", "SOA", "a. b. 1 2 3 4 5"))
    damaged = bytearray(reply.to_wire())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(wire.Malformed):
        wire.read(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]), wire.MX)


@pytest.mark.parametrize(
    ("written", "shown"),
    [("a\\.b.test.", b"a\\046b.test"), ("a\\032\\200.Test.", b"a\\032\\200.test"), (".", b"")],
)
def test_a_name_that_is_no_hosts_is_shown_escaped(written, shown):
    name = dns.name.from_text(written).to_wire()
    reply = b"\0\0\x81\x80\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1"
    assert wire.text_of(wire.read(reply, wire.A).question.name) == shown


def test_a_dot_within_a_label_is_not_one_between_labels():
    assert wire.read(
        b"\0\0\x81\x80\0\1\0\0\0\0\0\0" + dns.name.from_text("a\\.test.").to_wire() + b"\0\1\0\1", wire.A
    ).question.name != wire.name_of(b"a.test")


def test_a_denial_holds_for_the_lesser_of_the_two_times_of_the_soa():
    reply = dns.message.make_response(dns.message.make_query("a.test.", "MX"))
    for ttl, minimum in ((60, 30), (30, 60)):
        reply.authority = [dns.rrset.from_text("test.", ttl, "IN", "SOA", f"a. b. 1 2 3 4 {minimum}")]
        assert wire.read(reply.to_wire(), wire.MX).soa == (wire.name_of(b"test"), 30)
