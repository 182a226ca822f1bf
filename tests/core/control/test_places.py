"""Where in the control files something is said."""

from pathlib import Path

import pytest

from openqmail.core.control.assign import Users, compile_cdb, line_of, parse_assign
from openqmail.core.control.home import Home
from openqmail.core.control.places import place_of


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "control").mkdir()
    (tmp_path / "control/me").write_text("a.example\n")
    return Home(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "text", "key", "place"),
    [
        ("locals", "# ours\n\nb.example\nA.example\n", b"a.example", "control/locals line 4"),
        ("locals", "bücher.example\n", b"xn--bcher-kva.example", "control/locals line 1"),
        ("virtualdomains", "a.test:x\n.test:y\n", b".test", "control/virtualdomains line 2 (.test)"),
        ("virtualdomains", "a.test:x\n:y\n", b"", "control/virtualdomains line 2 (all others)"),
        ("smtproutes", "a.test:b.test\n", b"a.test", "control/smtproutes line 1"),
        ("smtproutes", "a.test:b.test\n", b"c.test", "control/smtproutes"),
        ("envnoathost", "b.example\n", b"b.example", "control/envnoathost"),
    ],
)
def test_the_line_that_has_a_key_is_found(home: Home, name: str, text: str, key: bytes, place: str) -> None:
    Path(home.control, name).write_text(text)
    assert place_of(home, name, key) == place


def test_a_file_that_is_not_there_is_named_with_what_holds_instead(home: Home) -> None:
    assert place_of(home, "locals", b"a.example") == "control/me (control/locals is not there)"
    assert place_of(home, "checkrcpt") == "control/checkrcpt"


ASSIGN = b"=joe:u:1:1:/h:::\n+joe-:u:1:1:/h:-::\n=JOE-x:u:2:1:/g:::\n.\n"


@pytest.mark.parametrize(
    ("local", "wildcard", "key", "line", "ext"),
    [
        (b"Joe", False, b"joe", 1, b""),
        (b"joe-List", True, b"joe-", 2, b"List"),
        (b"joe-X", False, b"joe-x", 3, b""),
    ],
)
def test_the_entry_of_a_user_and_its_line_are_found(
    tmp_path: Path, local: bytes, wildcard: bool, key: bytes, line: int, ext: bytes
) -> None:
    (tmp_path / "cdb").write_bytes(compile_cdb(parse_assign(ASSIGN)[0]))
    users = Users(str(tmp_path / "cdb"))
    entry = users.entry(local)
    assert entry is not None
    assert (entry.wildcard, entry.local, entry.user.ext) == (wildcard, key, ext)
    assert entry.user == users.find(local)
    assert line_of(ASSIGN, entry) == line
    assert line_of(b".\n" + ASSIGN, entry) == 0


def test_nobody_has_no_entry(tmp_path: Path) -> None:
    (tmp_path / "cdb").write_bytes(compile_cdb(parse_assign(ASSIGN)[0]))
    assert Users(str(tmp_path / "cdb")).entry(b"jim") is None
