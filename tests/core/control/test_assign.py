"""users/assign and users/cdb, beside what qmail-newu and qmail-lspawn were seen to do."""

import csv
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.control import User, Users, compile_cdb, parse_assign
from openqmail.core.values import TemporaryFailure

ASSIGN = b"=joe:alice:8001:8001:/home/alice:::\n+joe-:alice:8001:8001:/home/alice:-::\n.\n"


@pytest.fixture
def tools(vectors: Path) -> Path:
    return vectors / "notqmail" / "tools"


def users_of(content: bytes, path: Path) -> Users:
    found, problems = parse_assign(content)
    assert not problems
    path.write_bytes(compile_cdb(found))
    return Users(str(path))


def test_compiled_as_qmail_newu_does(tools: Path) -> None:
    compared = 0
    for case in json.loads((tools / "programs.json").read_text()):
        if not case["case"].startswith("newu-") or case["case"] in ("newu-no-file", "newu-odd-first"):
            continue
        recorded = re.search(r'users/assign (".*")', case["note"])
        assert recorded, case["case"]
        found, problems = parse_assign(json.loads(recorded[1]).encode("latin-1"))
        assert bool(problems) == (case["exit"] != 0), case["case"]
        if not problems:
            assert compile_cdb(found) == (tools / case["cdb"]).read_bytes(), case["case"]
            compared += 1
    assert compared >= 6


def test_a_line_that_begins_oddly_is_an_error_here() -> None:
    """qmail-newu takes any first character for `=`: a typing error becomes a user."""
    _, problems = parse_assign(b"xjoe:alice:1:2:/h:::\n.\n")
    assert [str(problem) for problem in problems] == [
        "users/assign, line 1: begins with neither = nor +; write =local:user:uid:gid:home:dash:ext:"
    ]


def test_every_bad_line_is_named() -> None:
    content = b"=a:b\n" + ASSIGN[:-2] + b"\n=c:u:x:1:/h:::\n=d:u:1:1:/h\0:::\n"
    _, problems = parse_assign(content)
    assert [problem.line for problem in problems] == [1, 4, 5, 6, 7]


def test_looked_up_as_qmail_lspawn_does(tools: Path, tmp_path: Path) -> None:
    users = users_of((tools / "assign-lookups.assign.txt").read_bytes(), tmp_path / "cdb")
    with (tools / "assign-lookups.tsv").open(newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    compared = 0
    for row in rows:
        fields = dict(re.findall(r"(user|ext|home|uid|gid)=([^_]*)(?=_|$|/did)", row["report"]))
        if "user" not in fields:
            continue  # a .qmail file of another name answered
        user = users.find(row["recipient local part at example.test"].encode())
        assert user is not None
        assert user.name.decode() == fields["user"], row
        assert user.ext.decode() == fields["ext"], row
        assert (user.uid, user.gid) == (int(fields["uid"]), int(fields["gid"].split("/")[0])), row
        compared += 1
    assert compared >= 10


def test_exact_then_longest_prefix_at_a_break(tmp_path: Path) -> None:
    users = users_of(ASSIGN, tmp_path / "cdb")
    assert users.find(b"JOE") == User(b"alice", 8001, 8001, b"/home/alice", b"", b"")
    assert users.find(b"Joe-List-X") == User(b"alice", 8001, 8001, b"/home/alice", b"-", b"List-X")
    assert users.find(b"joey") is None
    assert users.find(b"") is None


def test_a_new_user_is_seen_at_once(tmp_path: Path) -> None:
    path = tmp_path / "cdb"
    users_of(b".\n", path)
    users = Users(str(path))
    assert users.find(b"joe") is None
    users_of(ASSIGN, tmp_path / "new")
    os.rename(tmp_path / "new", path)
    assert users.find(b"joe") is not None


def test_a_missing_file_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "cdb"
    users_of(ASSIGN, path)
    users = Users(str(path), fresh=0)
    assert users.find(b"joe") is not None
    path.unlink()
    with pytest.raises(TemporaryFailure, match="cannot be read"):
        users.find(b"joe")
    users_of(ASSIGN, path)
    assert users.find(b"joe") is not None


def test_a_known_user_is_believed_while_the_last_look_is_fresh(tmp_path: Path) -> None:
    path = tmp_path / "cdb"
    users_of(ASSIGN, path)
    users = Users(str(path), fresh=3600)
    known = users.find(b"joe")
    path.unlink()
    assert users.find(b"joe") == known
    with pytest.raises(TemporaryFailure):
        users.find(b"joe-x")  # whoever is not known makes it look anew


def test_a_damaged_file_defers(tmp_path: Path) -> None:
    path = tmp_path / "cdb"
    path.write_bytes(b"garbage")
    users = Users(str(path))
    for _ in range(2):
        with pytest.raises(TemporaryFailure, match="damaged"):
            users.find(b"joe")
    users_of(ASSIGN, path)
    assert users.find(b"joe") is not None


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_no_content_breaks_the_parser(content: bytes) -> None:
    found, problems = parse_assign(content)
    assert problems or compile_cdb(found)
