"""XCLIENT's attributes, and who is heard."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.smtp import Offer, ServerSession, events
from openqmail.core.smtp.tables import Refusal, State
from openqmail.core.smtp.xclient import XClient, read_xclient

OFFER = Offer(name=b"mx.test", size=0, max_recipients=3, timeout=300.0, xclient=True)

GOOD = {
    b"ADDR=192.0.2.9": XClient(client="192.0.2.9"),
    b"addr=192.0.2.9 port=4711": XClient(client="192.0.2.9", port=4711),
    b"ADDR=IPV6:2001:DB8::9": XClient(client="2001:db8::9"),
    b"ADDR=2001:db8::9": XClient(client="2001:db8::9"),
    b"ADDR=IPv6:::ffff:192.0.2.9": XClient(client="192.0.2.9"),
    b"NAME=spike.example HELO=+5B192.0.2.9+5D PROTO=ESMTP": XClient(
        name=b"spike.example", helo=b"[192.0.2.9]"
    ),
    b"NAME=[UNAVAILABLE] REVERSE_NAME=[TEMPUNAVAIL] PORT=[UNAVAILABLE]": XClient(
        name=b"", reverse_name=b"", port=0
    ),
    b"LOGIN=alice+40example.org": XClient(login=b"alice@example.org"),
    b"LOGIN=[unavailable]": XClient(login=b""),
    b"LOGIN=a+3Db+2Bc": XClient(login=b"a=b+c"),
    b"DESTADDR=198.51.100.1 DESTPORT=25": XClient(server="198.51.100.1", server_port=25),
}
BAD = [
    b"",
    b" ",
    b"ADDR",
    b"ADDR=",
    b"=192.0.2.9",
    b"ADDR=192.0.2.9 ADDR=192.0.2.9",
    b"ADDR=192.0.2.9  PORT=1",
    b"ADDR=[UNAVAILABLE]",
    b"ADDR=192.0.2.999",
    b"ADDR=IPV6:192.0.2.9",
    b"ADDR=fe80::1%25eth0",
    b"ADDR=localhost",
    b"PORT=65536",
    b"PORT=-1",
    b"PROTO=HTTP",
    b"NAME=two+20words",
    b"NAME=x+0Ay",
    b"NAME=+0D+0A",
    b"HELO=a+0D+0ARSET",
    b"LOGIN=a+00b",
    b"LOGIN=a+2",
    b"LOGIN=a+2b",
    b"LOGIN=+",
    b"SHOE=43",
    b"NAME=" + b"x" * 256,
    "NAME=bücher.example".encode(),
]


@pytest.mark.parametrize("argument", GOOD, ids=repr)
def test_attributes_are_read(argument: bytes) -> None:
    assert read_xclient(argument) == GOOD[argument]


@pytest.mark.parametrize("argument", BAD, ids=repr)
def test_what_is_not_well_formed_is_refused(argument: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        read_xclient(argument)
    assert refusal.value.reply.code == 501


@given(st.sampled_from([b"NAME=", b"ADDR=", b"HELO=", b"LOGIN=", b"PORT=", b""]), st.binary(max_size=60))
@settings(max_examples=400)
def test_any_octets_are_attributes_or_refused(name: bytes, value: bytes) -> None:
    try:
        said = read_xclient(name + value)
    except Refusal:
        return
    for each in msgspec.structs.astuple(said):
        assert not isinstance(each, bytes) or not set(each) & {0, 10, 13, 32}


def machine(offer: Offer = OFFER, before: bytes = b"EHLO front\r\n") -> ServerSession:
    made = ServerSession(offer)
    made.accept()
    made.receive_data(before or b"NOOP\r\n")
    while not isinstance(made.next_event(), events.NeedData):
        made.accept()
    made.data_to_send()
    return made


@pytest.mark.parametrize("before", [b"", b"EHLO front\r\n", b"HELO front\r\n"])
def test_a_front_end_is_heard_outside_of_a_transaction(before: bytes) -> None:
    heard = machine(before=before)
    heard.receive_data(b"XCLIENT ADDR=192.0.2.9\r\n")
    assert heard.next_event() == events.XClientSaid(XClient(client="192.0.2.9"))


def test_it_is_offered_to_front_ends_alone() -> None:
    assert b"250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT REVERSE_NAME\r\n" in OFFER.ehlo
    assert b"XCLIENT" not in msgspec.structs.replace(OFFER, xclient=False).ehlo


@pytest.mark.parametrize(
    ("offer", "before", "line", "code"),
    [
        (False, b"", b"XCLIENT ADDR=192.0.2.9\r\n", b"502"),
        (False, b"EHLO c\r\n", b"XCLIENT ADDR=192.0.2.9\r\n", b"502"),
        (True, b"EHLO c\r\nMAIL FROM:<s@x>\r\n", b"XCLIENT ADDR=192.0.2.9\r\n", b"503"),
        (True, b"EHLO c\r\nMAIL FROM:<s@x>\r\nRCPT TO:<r@x>\r\n", b"XCLIENT ADDR=192.0.2.9\r\n", b"503"),
        (True, b"EHLO c\r\n", b"XCLIENT ADDR=192.0.2.9\r\nEHLO d\r\n", b"503"),
        (True, b"EHLO c\r\n", b"XCLIENT WHO=me\r\n", b"501"),
    ],
)
def test_where_it_has_no_place_it_is_refused(offer: bool, before: bytes, line: bytes, code: bytes) -> None:
    heard = machine(msgspec.structs.replace(OFFER, xclient=offer), before)
    heard.receive_data(line)
    assert not isinstance(heard.next_event(), events.XClientSaid)
    assert heard.data_to_send()[:3] == code and heard.state is not State.CLOSED
