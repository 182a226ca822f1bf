"""users/smtpauth: what each line means, what is wrong in it, and changes that touch no other line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.control.mechanisms import Served
from openqmail.core.control.smtpauth import LINE, parse_smtpauth, served_by, with_secrets, written
from openqmail.core.sasl import (
    CRAM_MD5,
    LOGIN,
    PLAIN,
    SCRAM,
    SCRAM_PLUS,
    Hash,
    Plain,
    ScramVerifier,
    make_verifier,
    parse_secret,
)

ARGON2 = "$argon2id$v=19$m=19456,t=2,p=1$O3hGX7TFDtqxZg/e9tCOJA$+BF3Zah6s3PcAYXo9JrHnRH3KUZgsdWogFAZtG4dTPI"
DOVECOTS = (  # doveadm pw -s SCRAM-SHA-256 writes this form; the values are RFC 7677's
    "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)


def test_each_form_serves_its_mechanisms() -> None:
    content = (
        f"# people\n\na:{ARGON2}\nb:{DOVECOTS}\nc:secret\nd:{{PLAIN}}$x\ne@x.example:{ARGON2} {DOVECOTS}\n"
    )
    entries, problems = parse_smtpauth(content.encode())
    assert not problems
    both = {PLAIN, LOGIN}
    assert {login: set(entry.mechanisms) for login, entry in entries.items()} == {
        b"a": both,
        b"b": {*both, SCRAM, SCRAM_PLUS},
        b"c": {*both, CRAM_MD5},
        b"d": {*both, CRAM_MD5},
        b"e@x.example": {*both, SCRAM, SCRAM_PLUS},
    }
    assert entries[b"c"].secrets == (Plain(b"secret"),)
    assert entries[b"d"].secrets == (Plain(b"$x"),)
    assert served_by(entries) == Served(frozenset({*both, SCRAM, SCRAM_PLUS, CRAM_MD5}), frozenset(both))
    assert served_by({}) == Served()


def test_dovecots_verifiers_are_read_and_written() -> None:
    verifier = parse_secret(DOVECOTS)
    assert isinstance(verifier, ScramVerifier)
    assert verifier == make_verifier(b"pencil", verifier.salt, 4096)
    assert verifier.written() == DOVECOTS


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (ARGON2, "argon2id"),
        ("$1$abcdefgh$k7D63vE3axegCBn62xqCv1", "md5-crypt"),
        ("$5$rounds=1000$abcdefgh$oTFBG3Bb2HyYn.i8JKj50x9WXE3nb6KTFW7jDa19Qd/", "sha256-crypt"),
        ("$2b$05$Tk9ctzHFn/kitwm9nlAnzOxcvexDa3S2Fp84wIklDQLanaSv2zrVG", "bcrypt"),
        ("$2y$05$Tk9ctzHFn/kitwm9nlAnzOxcvexDa3S2Fp84wIklDQLanaSv2zrVG", "bcrypt"),
        ("$y$j9T$F5Jx5fExrKuPp53xLKQ..1$kYSCgdrYsjfbV6NA92FXVV.hUus2LWqFx5F0UX1VKbB", "yescrypt"),
    ],
)
def test_hashes_are_known_by_their_prefix(text: str, kind: str) -> None:
    assert parse_secret(text) == Hash(kind, text)
    assert parse_secret(text).written() == text


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("hush", "has no colon"),
        ("alice:", "has no secret"),
        (":hush", "has a login that is empty"),
        ("al ice:hush", "has a login with a colon, a blank"),
        ("a" * 256 + ":hush", "longer than 255 bytes"),
        ("alice:$6$hush", "has a hash of a form"),
        ("alice:$6$abcdefgh$" + "a" * 86 + ":19000:0:99999:7:::", "a line of /etc/shadow"),
        ("alice:$1$" + "a" * 8 + "$hush", "has a hash of a form"),
        ("alice:$2b$31$" + "a" * 53, "has a hash of a form"),
        ("alice:$6$rounds=99999999$abc$" + "a" * 86, "has a hash of a form"),
        ("alice:*:19000:0:99999:7:::", "would lock"),
        ("alice:!", "would lock"),
        ("alice:abJnggxhB/yWI", "hash of the old crypt"),
        ("alice:{SSHA}hush", "in braces that is not known"),
        ("alice:{hush", "in braces that is not known"),
        ("alice:{PLAIN.b64}!hush", "not base64"),
        ("alice:{SCRAM-SHA-256}hush", "a verifier of another form"),
        ("alice:{SCRAM-SHA-256}4096,aHVzaA==,aHVzaA==,aHVzaA==", "cut off"),
        (f"alice:{DOVECOTS.replace('4096', '100')}", "100 iterations"),
        (f"alice:{DOVECOTS.replace('4096', '9999999')}", "9999999 iterations"),
        ("alice:" + "hush " * 9, "more than 8 secrets"),
        ("alice:" + "hush" * LINE, "is longer than"),
    ],
)
def test_a_bad_line_is_told_with_its_number_and_without_its_secret(line: str, why: str) -> None:
    entries, problems = parse_smtpauth(f"# one\nbob:pw\n{line}\ncarol:pw\n".encode())
    assert [(one.file, one.line) for one in problems] == [("users/smtpauth", 3)]
    assert why in str(problems[0])
    assert "hush" not in str(problems[0])
    assert list(entries) == [b"bob", b"carol"], "one mistake locks out nobody else"


def test_what_is_no_utf_8_is_told() -> None:
    entries, problems = parse_smtpauth(b"a:\xff\nb:x\n")
    assert list(entries) == [b"b"] and problems[0].line == 1


def test_of_two_lines_for_a_login_the_first_counts() -> None:
    entries, problems = parse_smtpauth("caf\u00e9:one\ncafe\u0301:two\n".encode())
    assert [entry.secrets for entry in entries.values()] == [(Plain(b"one"),)]
    assert "line 1" in str(problems[0]) and problems[0].line == 2


@given(st.binary(max_size=200))
def test_any_content_is_read(content: bytes) -> None:
    entries, problems = parse_smtpauth(content)
    assert len(entries) + len(problems) <= content.count(b"\n") + 1


secret = st.one_of(
    st.binary(min_size=1, max_size=80).map(Plain),
    st.builds(make_verifier, st.just(b"x"), st.binary(min_size=1, max_size=64), st.just(4096)),
)


@given(st.lists(secret, min_size=1, max_size=8))
def test_what_is_written_is_read_again(secrets: list) -> None:
    content = with_secrets(b"", b"alice", written(secrets))
    entries, problems = parse_smtpauth(content)
    assert not problems and entries[b"alice"].secrets == tuple(secrets)


def test_changes_keep_every_other_line() -> None:
    content = b"# who\nbob:x\n\nalice:old\nnonsense\ncarol:y"
    changed = with_secrets(content, b"alice", "new")
    assert changed == b"# who\nbob:x\n\nalice:new\nnonsense\ncarol:y\n"
    assert with_secrets(changed, b"dave", "z") == changed + b"dave:z\n"
    assert with_secrets(changed, b"bob", None) == b"# who\n\nalice:new\nnonsense\ncarol:y\n"
    assert with_secrets(b"alice:a\nalice:b\n", b"alice", "new") == b"alice:new\n", (
        "no second line of one login"
    )


def test_nothing_is_shown_of_an_entry() -> None:
    entries, _ = parse_smtpauth(f"alice:hush {DOVECOTS}\n".encode())
    assert "hush" not in repr(entries) and "W22Z" not in repr(entries)
    assert "hush" not in repr(entries[b"alice"].secrets)
