"""Entry points: found by name, and errors that say what is installed."""

from importlib.metadata import EntryPoint

import pytest

from openqmail.core.control import extensions
from openqmail.core.control.extensions import Entry
from openqmail.core.values import ControlError, OpenqmailError


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


def test_a_broken_add_on_is_named() -> None:
    with pytest.raises(ControlError, match=r"the hook 'broken' \(no.such.module:thing\) cannot be loaded"):
        extensions.load("openqmail.hooks", "broken")


@pytest.mark.parametrize("value", ["os", "os:path.join", "os : path.join", "os:path.join [extra]"])
def test_an_entry_point_is_loaded_as_importlib_does_it(value: str) -> None:
    point = EntryPoint("x", value, "openqmail.hooks")
    assert Entry(point.group, point.name, point.value).load() is point.load()
