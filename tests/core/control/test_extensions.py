"""Entry points: found by name, and errors that say what is installed."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from openqmail.core.control import extensions
from openqmail.core.control.extensions import Entry
from openqmail.core.values import ControlError, OpenqmailError

_registered = extensions.registered


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {
        "good": Entry("openqmail.hooks", "good", "collections:OrderedDict"),
        "broken": Entry("openqmail.hooks", "broken", "no.such.module:thing"),
    }
    monkeypatch.setattr(extensions, "registered", lambda group: points if group == "openqmail.hooks" else {})


def test_what_is_registered_is_loaded() -> None:
    from collections import OrderedDict

    assert extensions.load("openqmail.hooks", "good") is OrderedDict


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(ControlError, match="control/hooks: there is no hook 'x'; installed: good, broken"):
        extensions.load("openqmail.hooks", "x")
    with pytest.raises(OpenqmailError, match="there is no command 'x'; installed: none"):
        extensions.load("openqmail.commands", "x")


def test_what_was_installed_behind_a_services_back_is_taken_by_an_upgrade(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extensions, "registered", _registered)
    monkeypatch.setattr(extensions, "_told", {})
    extensions.tell([Entry("openqmail.services", "smtp", "os:name")])
    said = "there is no hook 'x'; installed: none; .* a service runs, 'openqmail upgrade' takes"
    with pytest.raises(ControlError, match=said):
        extensions.load("openqmail.hooks", "x")


def test_a_broken_add_on_is_named() -> None:
    with pytest.raises(ControlError, match=r"the hook 'broken' \(no.such.module:thing\) cannot be loaded"):
        extensions.load("openqmail.hooks", "broken")


@pytest.mark.parametrize("value", ["os", "os:path.join", "os : path.join", "os:path.join [extra]"])
def test_an_entry_point_is_loaded_as_importlib_does_it(value: str) -> None:
    point = EntryPoint("x", value, "openqmail.hooks")
    assert Entry(point.group, point.name, point.value).load() is point.load()


def test_of_two_of_one_name_the_first_on_the_path_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = "openqmail.hooks"
    for folder in ("first", "second"):
        info = tmp_path / folder / f"addon_{folder}-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: addon-{folder}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[{group}]\nalone-{folder} = {folder}:a\nboth = {folder}:b\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / one) for one in ("second", "first")] + sys.path)
    monkeypatch.setattr(extensions, "_told", {})
    extensions._found.cache_clear()
    try:
        found = _registered(group)
        told = [entry for entry in extensions.everything() if entry.group == group]
    finally:
        extensions._found.cache_clear()
    assert found["both"].value == "second:b"
    assert (found["alone-first"].value, found["alone-second"].value) == ("first:a", "second:a")
    assert told == list(found.values())
