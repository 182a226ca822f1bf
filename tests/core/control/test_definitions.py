"""What a definition says of its file is so: what holds without the file, and who reads it."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from openqmail.core import control, gate, local, remote, send, smtpd
from openqmail.core.control import DEFINITIONS, Home, Settings, defaults, read_settings
from openqmail.core.service.supervisor.machine import Role
from openqmail.core.values import ControlError

PROCESSES = {*get_args(Role), "supervisor"}
"""As `openqmail status` names them."""

ROOMS = {"gate": gate, "local": local, "remote": remote, "send": send, "smtpd": smtpd}


def test_what_holds_without_a_file_is_said_in_its_definition_alone(tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "me").write_text("mail.example.org\n")
    assert defaults(b"mail.example.org") == read_settings(Home(str(tmp_path)))
    fields = msgspec.structs.fields(Settings)
    assert [one.name for one in fields if not one.required] == ["added"]


def test_a_field_that_is_named_is_another_and_nothing_else_is() -> None:
    usual, found = defaults(b"a.example"), defaults(b"a.example", databytes=7, locals=frozenset())
    assert found == msgspec.structs.replace(usual, databytes=7, locals=frozenset())
    with pytest.raises(TypeError):
        defaults(b"a.example", databyte=7)
    with pytest.raises(ControlError):
        defaults(b"not a host")


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda one: one.name)
def test_who_reads_a_file_is_a_process_of_the_status_or_sendmail(definition: control.Definition) -> None:
    assert definition.readers
    assert len(set(definition.readers)) == len(definition.readers)
    assert not set(definition.readers) - PROCESSES - {"sendmail"}


@pytest.mark.parametrize("role", ROOMS)
def test_a_process_that_looks_at_a_setting_is_among_the_readers_of_its_file(role: str) -> None:
    (folder,) = ROOMS[role].__path__
    looked_at = {
        name
        for path in Path(folder).rglob("*.py")
        for name in re.findall(r"settings\.([a-z]+)", path.read_text())
    }
    known = {one.name: one.readers for one in DEFINITIONS}
    assert looked_at & known.keys()
    assert not [name for name in sorted(looked_at & known.keys()) if role not in known[name]]
