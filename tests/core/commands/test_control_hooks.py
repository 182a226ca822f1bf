"""`openqmail control check` and the hooks of control/hooks: what a start would find, it finds."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openqmail.core.control import extensions
from openqmail.core.control.extensions import Entry

Run = Callable[..., Any]
Hooked = Callable[[str], None]


@pytest.fixture
def hooked(made: Path, room: Path, monkeypatch: pytest.MonkeyPatch) -> Hooked:
    """Has a home whose hook is a module of this text, with a `Hook` in it."""
    folder = room / "addon"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    points = {"tried": Entry("openqmail.hooks", "tried", "tried_hook:Hook")}
    registered = extensions.registered
    monkeypatch.setattr(
        extensions, "registered", lambda group: points if group == "openqmail.hooks" else registered(group)
    )
    (made / "control" / "hooks").write_text("tried\n")

    def write(text: str) -> None:
        (folder / "tried_hook.py").write_text(text)

    return write


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise RuntimeError('no such luck')", "(tried_hook:Hook) cannot be loaded: no such luck"),
        ("import os\nos._exit(0)", "its hooks cannot be made in smtpd: the process that tried it died"),
        (
            "def Hook(context):\n    raise ValueError('no')",
            "cannot be made in smtpd: ValueError('no') (tried_hook.py:2)",
        ),
        ("import sys\ndef Hook(context):\n    sys.exit(3)", "made in smtpd: SystemExit(3) (tried_hook.py:3)"),
        (
            "class Hook:\n    def __init__(self, context): ...\n    def recpt(self): ...",
            "has none of the methods",
        ),
        ("def Hook(context): ...", "gives None where a hook is wanted"),
        (
            "def Hook(context):\n    if context.place == 'remote': raise ValueError('no')\n"
            "    return type('Made', (), {'mail': None})",
            "cannot be made in remote: ValueError('no') (tried_hook.py:2)",
        ),
    ],
)
def test_a_hook_that_no_start_could_make_is_an_error(
    run: Run, made: Path, hooked: Hooked, text: str, why: str
) -> None:
    hooked(text)
    ran = run("--home", made, "control", "check")
    assert ran.code == 100
    assert "error: control/hooks" in ran.out and why in ran.out
    assert "tried_hook" not in sys.modules, "it was not imported by the command"


def test_a_hook_is_made_by_who_would_ask_it(run: Run, made: Path, hooked: Hooked) -> None:
    uid = made.stat().st_uid
    hooked(
        f"import os\ndef Hook(context):\n    assert os.getresuid() == ({uid},) * 3\n"
        "    return type('Made', (), {'mail': None})\n"
    )
    ran = run("--home", made, "control", "check")
    assert (ran.code, "no errors" in ran.out) == (0, True), ran.out
    assert "tried_hook" not in sys.modules
    assert os.geteuid() == os.getuid(), "who asked is who he was"
