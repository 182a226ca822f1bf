"""From which address mail goes out: what the files say, and which line holds for a sender."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.control import Home, check, read_settings
from openqmail.core.control.assign import compile_cdb
from openqmail.core.control.bindings import ANY, Bindings, Source
from openqmail.core.control.outgoing import bound, domain_binding, domain_ip, lines, outgoing_ip
from openqmail.core.control.text import ControlText

Parse = Callable[[str], tuple[tuple[bytes, ...], Source]]


def parsed(parse: Parse, text: str) -> tuple[dict[bytes, Source], list[str]]:
    """The values without their places, and the problems."""
    given = ControlText("control/x", text.encode())
    found = lines(parse)(given)
    return {key: Source(one.v4, one.v6, one.helo) for key, one in found.items()}, list(
        map(str, given.problems)
    )


def only(parse: Parse, line: str) -> Source:
    found, problems = parsed(parse, line)
    assert not problems
    (source,) = set(found.values())
    return source


# --- control/bindings -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "keys", "source"),
    [
        (
            "Example.org:192.0.2.1:[2001:DB8:0::1]:MX.example.org",
            [b"example.org"],
            Source("192.0.2.1", "2001:db8::1", b"mx.example.org"),
        ),
        ("<>:192.0.2.2:-:", [b"<>"], Source("192.0.2.2", None)),
        ("*:*:*:", [b"*"], Source("", "")),
        (".example.org:-:*:", [b".example.org"], Source(None, "")),
        ("User@example.org:*:-:[192.0.2.1]", [b"user@example.org"], Source("", None, b"[192.0.2.1]")),
        ("example.org:*:*:[2001:db8::1]", [b"example.org"], Source("", "", b"[IPv6:2001:db8::1]")),
        ("u@[IPv6:::1]:*:*:", [b"u@[::1]"], Source("", "")),
        ("u@[192.0.2.9]:*:*:", [b"u@[192.0.2.9]"], Source("", "")),
        ("bücher.example:*:-:", ["bücher.example".encode(), b"xn--bcher-kva.example"], Source("", None)),
    ],
)
def test_a_line_of_bindings(line: str, keys: list[bytes], source: Source) -> None:
    found, problems = parsed(bound, line)
    assert not problems
    assert found == dict.fromkeys(keys, source)


@pytest.mark.parametrize(
    "line",
    [
        "example.org",
        "example.org:192.0.2.1",
        "example.org:192.0.2.1:*",
        "example.org:192.0.2.1:*:helo:more",
        ":192.0.2.1:*:",
        "example.org:::",
        "example.org::*:",
        "example.org:-:-:",
        "example.org:0.0.0.0:*:",
        "example.org:*:[::]:",
        "example.org:224.0.0.1:*:",
        "example.org:*:[ff02::1]:",
        "example.org:*:[fe80::1]:",
        "example.org:*:[2001:db8::1%eth0]:",
        "example.org:*:2001:db8::1:",
        "example.org:[2001:db8::1]:*:",
        "example.org:*:[192.0.2.1]:",
        "example.org:*:[::ffff:192.0.2.1]:",
        "example.org:192.0.2.1:*:no name",
        "@example.org:*:*:",
    ],
)
def test_a_line_that_cannot_be_meant_is_a_problem_with_its_number(line: str) -> None:
    found, problems = parsed(bound, f"# first\n{line}")
    assert not found
    assert len(problems) == 1
    assert problems[0].startswith("control/x, line 2: ")


def test_two_meanings_for_one_key_are_a_problem_and_the_same_twice_is_none() -> None:
    assert not parsed(bound, "a.example:*:-:\nA.example:*:-:")[1]
    (problem,) = parsed(bound, "a.example:*:-:\na.example:-:*:")[1]
    assert problem == "control/x, line 2: a.example has another value in control/x, line 1; keep one of them"


ADDRESSES4 = st.one_of(
    st.sampled_from(["-", "*"]),
    st.ip_addresses(v=4).filter(lambda one: not (one.is_multicast or one.is_unspecified)),
)
ADDRESSES6 = st.one_of(
    st.sampled_from(["-", "*"]),
    st.ip_addresses(v=6).filter(
        lambda one: not (one.is_multicast or one.is_unspecified or one.is_link_local or one.ipv4_mapped)
    ),
)
NAMES = st.from_regex(r"[a-z]([a-z0-9]{0,5}[a-z0-9])?(\.[a-z]([a-z0-9]{0,5}[a-z0-9])?){0,3}", fullmatch=True)
KEYS = st.one_of(
    st.sampled_from(["*", "<>"]), NAMES, NAMES.map(".{}".format), st.builds("{}@{}".format, NAMES, NAMES)
)


@given(KEYS, ADDRESSES4, ADDRESSES6, st.one_of(st.just(""), NAMES))
def test_what_is_written_is_what_is_read(key, v4, v6, helo):
    six = v6 if isinstance(v6, str) else f"[{v6.exploded}]"
    found, problems = parsed(bound, f"{key}:{v4}:{six}:{helo}")
    if (v4, v6) == ("-", "-"):
        assert problems
        return
    words = {"-": None, "*": ""}
    wanted = Source(words.get(v4, str(v4)), words.get(v6, str(v6)), helo.encode())
    assert (found, problems) == ({key.encode(): wanted}, [])


@given(st.text(alphabet="ab.*<>@:[]-1%|,é \t#", max_size=40))
def test_any_text_is_values_or_problems(text):
    for parse in (bound, domain_binding, domain_ip, outgoing_ip):
        for key, source in parsed(parse, text)[0].items():
            assert key
            assert source.v4 is not None or source.v6 is not None


# --- which line holds ------------------------------------------------------------------

TABLE = {
    b"user@a.example.org": Source("192.0.2.1"),
    b"a.example.org": Source("192.0.2.2"),
    b".example.org": Source("192.0.2.3"),
    b".org": Source("192.0.2.4"),
    b"<>": Source("192.0.2.5"),
    b"*": Source("192.0.2.6"),
}


@pytest.mark.parametrize(
    ("sender", "v4"),
    [
        (b"user@a.example.org", "192.0.2.1"),
        (b"USER@A.Example.Org", "192.0.2.1"),
        (b"other@a.example.org", "192.0.2.2"),
        (b"x@b.a.example.org", "192.0.2.3"),
        (b"x@example.org", "192.0.2.4"),
        (b"x@org", "192.0.2.6"),
        (b"x@example.net", "192.0.2.6"),
        (b"root", "192.0.2.6"),
        (b'"a@b"@a.example.org', "192.0.2.2"),
        (b"", "192.0.2.5"),
        (b"#@[]", "192.0.2.5"),
    ],
)
def test_the_most_particular_line_holds(sender: bytes, v4: str) -> None:
    assert Bindings(TABLE).source_of(sender).v4 == v4


def test_a_bounce_without_a_line_of_its_own_has_everybodys() -> None:
    assert Bindings({b"*": Source("192.0.2.6")}).source_of(b"").v4 == "192.0.2.6"


@given(st.binary(max_size=30))
def test_a_sender_whom_no_line_speaks_of_goes_out_as_the_system_chooses(sender):
    assert Bindings({b"never.example": Source("192.0.2.1")}).source_of(sender) == ANY


# --- the older files ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parse", "line", "source"),
    [
        (domain_binding, "example.org:192.0.2.1", Source("192.0.2.1", None)),
        (domain_binding, "user@example.org:192.0.2.1", Source("192.0.2.1", None)),
        (domain_binding, ".example.org:", Source("", "")),
        (domain_binding, ":192.0.2.1", Source("192.0.2.1", None)),
        (domain_binding, "example.org:2001:db8::1", Source(None, "2001:db8::1")),
        (domain_ip, "example.org:192.0.2.1", Source("192.0.2.1", None)),
        (domain_ip, "example.org:192.0.2.1|MX.example.org", Source("192.0.2.1", None, b"mx.example.org")),
        (domain_ip, "*:2001:db8::1%eth0|mx.example.org", Source(None, "2001:db8::1", b"mx.example.org")),
        (domain_ip, "example.org:|mx.example.org", Source("", "", b"mx.example.org")),
        (outgoing_ip, "192.0.2.1", Source("192.0.2.1", None)),
        (outgoing_ip, "0.0.0.0", Source("", "")),
        (outgoing_ip, "2001:db8::1", Source(None, "2001:db8::1")),
    ],
)
def test_a_line_of_an_older_file(parse: Parse, line: str, source: Source) -> None:
    assert only(parse, line) == source


def test_an_empty_key_of_an_older_file_is_everybody() -> None:
    for parse in (domain_binding, domain_ip):
        assert set(parsed(parse, ":192.0.2.1")[0]) == {b"*"}


def test_several_addresses_in_outgoingip_are_a_problem() -> None:
    assert parsed(outgoing_ip, "192.0.2.1\n192.0.2.2")[1]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    for name in ("control", "users"):
        (tmp_path / name).mkdir()
    (tmp_path / "control" / "me").write_text("mail.example.org\n")
    (tmp_path / "control" / "listen").write_text("smtp 127.0.0.1:2525\n")
    (tmp_path / "users" / "assign").write_bytes(b".\n")
    (tmp_path / "users" / "cdb").write_bytes(compile_cdb([]))
    return Home(str(tmp_path))


def write(home: Home, **files: str) -> None:
    for name, text in files.items():
        Path(home.control, name).write_text(text)


OLDER = {
    "domainbindings": "a.example:192.0.2.1\n",
    "domainips": "a.example:192.0.2.2|a\nb.example:192.0.2.3|b\n",
    "outgoingip": "192.0.2.4\n",
}


def test_older_files_are_read_together_the_more_particular_first(home: Home) -> None:
    write(home, **OLDER)
    sources = read_settings(home).sources()
    found = [sources.source_of(b"x@" + domain) for domain in (b"a.example", b"b.example", b"c.example")]
    assert [one.v4 for one in found] == ["192.0.2.1", "192.0.2.3", "192.0.2.4"]
    assert [one.helo for one in found] == [b"", b"b", b""]
    assert found[1].place == "control/domainips, line 2"
    assert not check(home).warnings


def test_bindings_alone_counts_where_it_has_a_line(home: Home) -> None:
    write(home, **OLDER, bindings="# all here\nb.example:*:-:\n")
    assert read_settings(home).sources().lines == {
        b"b.example": Source("", None, b"", "control/bindings, line 2")
    }
    assert {str(one).partition(":")[0] for one in check(home).warnings} == {
        f"control/{name}" for name in OLDER
    }


@pytest.mark.parametrize("content", ["", "# all goes out as the system chooses\n", "\n\n"])
def test_bindings_without_a_line_counts_all_the_same(home: Home, content: str) -> None:
    write(home, **OLDER, bindings=content)
    assert not read_settings(home).sources().lines
    assert {str(one).partition(":")[0] for one in check(home).warnings} == {
        f"control/{name}" for name in OLDER
    }


def test_without_any_of_the_files_nobody_has_a_source_of_his_own(home: Home) -> None:
    assert not read_settings(home).sources().lines


def test_every_address_that_must_be_this_hosts_is_named_once_with_its_line(home: Home) -> None:
    write(home, bindings="a.example:192.0.2.1:[2001:db8::1]:\nb.example:192.0.2.1:-:\n*:*:*:\n")
    assert read_settings(home).sources().addresses() == {
        "192.0.2.1": "control/bindings, line 1",
        "2001:db8::1": "control/bindings, line 1",
    }
