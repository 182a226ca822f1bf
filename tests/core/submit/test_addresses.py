"""Address lists: who is named in them, what is put in where something is missing, what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.submit.addresses import AddressError, Defaults, mailboxes, plain

DEFAULTS = Defaults(b"dh.example.test", b"example.test", b"plus.test")


def read(text: bytes) -> list[bytes]:
    return [DEFAULTS.complete(mailbox) for mailbox in mailboxes(text)]


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        (b"bob", [b"bob@dh.example.test"]),
        (b"bob, ann@host,x@h+ , z@a.b", [b"bob@dh.example.test", b"ann@host.example.test",
                                         b"x@h.plus.test", b"z@a.b"]),
        (b'"Quoted, Name" <q@x.test>, Dot. Name <d@x.test>', [b"q@x.test", b"d@x.test"]),
        (b"(one) c@x.test (more (nested \\)) comment)", [b"c@x.test"]),
        (b"b@x.test c@x.test", [b"b@x.test", b"c@x.test"]),
        (b"One <n1@x.test> Two <n2@x.test>", [b"n1@x.test", b"n2@x.test"]),
        (b"friends: b@x.test, C <c@y.test>; , d@z.test", [b"b@x.test", b"c@y.test", b"d@z.test"]),
        (b"undisclosed-recipients:;", []),
        (b"<@r1.test,@r2.test:b@x.test>", [b"b@x.test"]),
        (b'"quo\\"ted"@x.test, back\\slash@x.test, "dot..dot"@x.test',
         [b'quo"ted@x.test', b"backslash@x.test", b"dot..dot@x.test"]),
        (b"b@[10.0.0.1], c@[IPv6:::1]", [b"b@[10.0.0.1]", b"c@[IPv6:::1]"]),
        (b" a @ x . test,\n c@x.test", [b"a@x.test", b"c@x.test"]),
        (b",, a@x.test ,,", [b"a@x.test"]),
        (b"t\xe9@x.test", [b"t\xe9@x.test"]),
        (b"<>", [b""]),
        (b"", []),
        (b" \t\r\n", []),
    ],
)  # fmt: skip
def test_who_is_named(text: bytes, addresses: list[bytes]) -> None:
    assert read(text) == addresses


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'a@x.test, "open', "never closed"),
        (b"a@x.test (open", "never closed"),
        (b"a@[10.0.0.1", "never closed"),
        (b"a@x.test <b@x.test", "no '>' behind"),
        (b"b@x.test>", "no '<' before"),
        (b"a) b", "nothing that it closes"),
        (b"a@b@c.test", "two '@'"),
        (b"@x.test", "nothing before its '@'"),
        (b"carol@", "no host behind"),
        (b"carol@x..test", "a dot too many"),
        (b"carol@x.test.", "a dot too many"),
        (b"friends: a@x.test", "not ended by a semicolon"),
        (b"a@x.test; b@x.test", "a semicolon stands where no group ends"),
        (b"a: b: c;", "a colon stands where no group begins"),
        (b"<a@x.test, b@x.test>", "a comma stands between"),
        (b"<a b@x.test>", "two addresses"),
        (b"a@x\0.test", "control character"),
        (b"a@\"x\".test", "in quotes"),
        (b"a@x\\+", "backslash"),
        (b"[a]@x.test", "'[' stands before"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(text: bytes, why: str) -> None:
    with pytest.raises(AddressError, match=".*".join(why.split("\0")).replace("[", r"\[")):
        read(text)


@given(st.text('ab.@<>,:;()[]"\\ +\t\n', max_size=30).map(str.encode))
def test_any_text_is_read_or_refused(text: bytes) -> None:
    try:
        found = mailboxes(text)
    except AddressError:
        return
    ends = [mailbox.end for mailbox in found]
    assert ends == sorted(ends)
    assert all(0 <= end <= len(text) for end in ends)
    for address in map(DEFAULTS.complete, found):
        assert b"\n" not in address or b"\n" in text
        assert not address or b"@" in address


LOCAL = st.binary(min_size=1, max_size=20).map(
    lambda text: bytes([octet if octet >= 32 and octet != 127 else 95 for octet in text])
)


@given(st.lists(LOCAL, min_size=1, max_size=4))
def test_a_quoted_local_part_comes_out_as_it_was(parts: list[bytes]) -> None:
    quoted = [b'"%b"@x.test' % part.replace(b"\\", b"\\\\").replace(b'"', b'\\"') for part in parts]
    assert read(b", ".join(quoted)) == [part + b"@x.test" for part in parts]


@given(LOCAL)
def test_a_programs_plain_address_is_taken_literally(local: bytes) -> None:
    assert DEFAULTS.complete(plain(local + b"@x.test")) == local + b"@x.test"


@pytest.mark.parametrize("bad", [b"", b"@x.test", b"bob@", b"bob@x y", b"a\nb@x.test", b"bob@<x>", b"bob@.x"])
def test_a_programs_address_that_is_none_is_refused(bad: bytes) -> None:
    with pytest.raises(AddressError):
        plain(bad)


def test_a_default_host_is_completed_itself() -> None:
    assert Defaults(b"mail", b"example.test", b"p").complete(plain(b"bob")) == b"bob@mail.example.test"
    assert Defaults(b"mail.x+", b"example.test", b"p.test").complete(plain(b"bob")) == b"bob@mail.x.p.test"
