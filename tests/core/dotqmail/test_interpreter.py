"""Which `.qmail` file counts, and what its lines ask for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.dotqmail import DotFile, Maildir, Plan, interpret
from openqmail.core.dotqmail.interpreter import names
from openqmail.core.values import Outcome

DEFAULT = b"./Maildir/\n"


def plan(
    files: dict[bytes, bytes | DotFile], dash: bytes = b"", ext: bytes = b"", default: bytes = DEFAULT
) -> Plan:
    def look(name: bytes) -> DotFile | None:
        file = files.get(name)
        return DotFile(file) if isinstance(file, bytes) else file

    return interpret(look, dash, ext, default)


def refusal(made: Plan) -> tuple[Outcome, bytes]:
    assert made.refusal is not None
    assert not made.deliveries
    assert not made.forwards
    return made.refusal.outcome, made.refusal.text


def test_no_file_is_the_default_delivery_for_a_basic_address_only() -> None:
    assert plan({}).deliveries == (Maildir(b"./Maildir/"),)
    assert refusal(plan({}, b"-", b"x")) == (
        Outcome.FAILURE,
        b"Sorry, no mailbox here by that name. (#5.1.1)\n",
    )


def test_the_exact_file_then_default_at_each_dash_from_the_right() -> None:
    assert list(names(b"-", b"a-b.C-D")) == [
        b".qmail-a-b:c-d",
        b".qmail-a-b:c-default",
        b".qmail-a-default",
        b".qmail-default",
    ]
    assert list(names(b"-", b"list-")) == [b".qmail-list-", b".qmail-list-default", b".qmail-default"]
    assert list(names(b"-", b"-")) == [b".qmail--", b".qmail--default", b".qmail-default"]
    assert list(names(b"-", b"")) == [b".qmail-", b".qmail-default"]
    assert list(names(b"", b"")) == [b".qmail"]


def test_the_longest_default_wins() -> None:
    files: dict[bytes, bytes | DotFile] = {b".qmail-a-default": b"&near\n", b".qmail-default": b"&far\n"}
    assert plan(files, b"-", b"a-b-c").forwards == (b"near",)
    assert plan(files, b"-", b"ab-c").forwards == (b"far",)


def test_an_empty_file_means_the_default_delivery_even_with_an_extension() -> None:
    assert plan({b".qmail-x": b""}, b"-", b"x").deliveries == (Maildir(b"./Maildir/"),)


def test_lines_become_deliveries_in_order_and_one_forward() -> None:
    made = plan({b".qmail": b"# note\n&a@x.test  \n./M/\t\n\n/abs/\nbare@x.test\n& spaced\n./last/"})
    assert made.deliveries == (Maildir(b"./M/"), Maildir(b"/abs/"), Maildir(b"./last/"))
    assert made.forwards == (b"a@x.test", b"bare@x.test", b" spaced")
    assert made.refusal is None


def test_a_blank_first_line_defers() -> None:
    for content in (b"\n./M/\n", b" \t\n./M/\n", b"\n"):
        assert refusal(plan({b".qmail": content})) == (
            Outcome.DEFERRAL,
            b"Uh-oh: first line of .qmail file is blank. (#4.2.1)\n",
        )


@pytest.mark.parametrize("line", [b"|program", b"+list"])
def test_a_line_that_is_not_known_defers_all_of_it_and_is_named(line: bytes) -> None:
    outcome, text = refusal(plan({b".qmail-x": b"&a@x.test\n./M/\n" + line + b"\n"}, b"-", b"x"))
    assert outcome is Outcome.DEFERRAL
    assert text.startswith(b".qmail-x, line 3: ")
    assert text.endswith(b" is not supported yet. (#4.3.0)\n")


def test_an_executable_file_may_only_forward() -> None:
    assert plan({b".qmail": DotFile(b"&a@x.test\n", executable=True)}).forwards == (b"a@x.test",)
    assert refusal(plan({b".qmail": DotFile(b"&a@x.test\n./M/\n", executable=True)})) == (
        Outcome.DEFERRAL,
        b"Uh-oh: .qmail has file delivery but has x bit set. (#4.7.0)\n",
    )


def test_a_file_with_a_problem_defers_and_no_other_is_looked_for() -> None:
    made = plan({b".qmail-x": DotFile(b"", problem=b"Why.\n"), b".qmail-default": b"&a\n"}, b"-", b"x")
    assert refusal(made) == (Outcome.DEFERRAL, b"Why.\n")


def test_the_trail_tells_what_was_looked_for_and_what_decided() -> None:
    assert plan({b".qmail-default": b"&a\n"}, b"-", b"x").trail == (
        b".qmail-x is not there",
        b".qmail-default decides",
    )


@settings(max_examples=150)
@given(st.binary(max_size=60), st.binary(max_size=80))
def test_any_extension_and_any_content_give_a_plan(ext: bytes, content: bytes) -> None:
    made = plan({b".qmail-default": content}, b"-", ext)
    assert (made.refusal is None) or not (made.deliveries or made.forwards)
    assert all(b"\n" not in address and b"\0" not in address for address in made.forwards)
    for name in names(b"-", ext):
        assert b"." not in name[1:]  # so no `..` ever
