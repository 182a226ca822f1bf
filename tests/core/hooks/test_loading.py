"""From the lines of control/hooks to a chain: what a line says of a hook holds, and where each is made."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from openqmail.core.control import Home, extensions
from openqmail.core.control.extensions import Entry
from openqmail.core.control.reader import read_settings
from openqmail.core.control.settings import Settings
from openqmail.core.hooks import HookContext, SessionFacts, load_chain
from openqmail.core.log import MemoryLog
from openqmail.core.values import ControlError, Decision, Reject, Reply
from openqmail.core.world import SystemClock

FACTS = SessionFacts("smtp", "192.0.2.1", 4000, "192.0.2.2", relay=False)
NO = Reject(Reply(550, b"5.7.1", (b"no",)))
made: list[tuple[str, HookContext]] = []


class Hook:
    def __init__(self, context: HookContext) -> None:
        made.append((type(self).__name__.lower(), context))


class Stuck(Hook):
    async def mail(self, *facts: Any) -> None:
        await asyncio.Event().wait()


class Broken(Hook):
    def mail(self, *facts: Any) -> None:
        raise ValueError("no idea")


class Refusing(Hook):
    def mail(self, *facts: Any) -> Reject:
        return NO


class Signer(Hook):
    def prepare(self, *facts: Any) -> None: ...


class Recpt(Hook):
    def recpt(self, *facts: Any) -> None: ...


def unwilling(context: HookContext) -> None:
    raise OSError("no such luck")


def opens(context: HookContext) -> None:
    Path("/no/such/file").read_text()


def exits(context: HookContext) -> None:
    sys.exit(3)


def nothing(context: HookContext) -> None: ...


def misspelt(context: HookContext) -> Any:
    return Recpt(context)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {
        name.__name__.lower(): Entry("openqmail.hooks", name.__name__.lower(), f"{__name__}:{name.__name__}")
        for name in (Stuck, Broken, Refusing, Signer, Recpt, unwilling, opens, exits, nothing, misspelt)
    }
    monkeypatch.setattr(extensions, "registered", lambda group: points if group == "openqmail.hooks" else {})
    made.clear()


def settings(folder: Path, hooks: str) -> Settings:
    (folder / "control").mkdir()
    (folder / "control/me").write_text("a.example\n")
    (folder / "control/hooks").write_text(hooks)
    return read_settings(Home(str(folder)))


def asked(folder: Path, hooks: str) -> tuple[Decision, list[bytes]]:
    """What hooks of these lines say to a sender, and what is logged."""
    log = MemoryLog()

    async def asking() -> Decision:
        chain = load_chain(settings(folder, hooks), log, SystemClock())
        answer = chain.ask("mail", FACTS, b"x@y.example")
        async with asyncio.timeout(20):
            return answer if isinstance(answer, Decision) else await answer

    return asyncio.run(asking()), log.lines()


def test_the_time_of_a_line_is_the_hooks(tmp_path: Path) -> None:
    decision, log = asked(tmp_path, "stuck timeout=1\n")
    assert decision.refusal is not None and decision.refusal.reply.code == 451  # type: ignore[union-attr]
    assert b"hook stuck took more than 1 seconds at mail; deferred" in log[0]


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("broken", 451, b"deferred"),
        ("broken on_error=defer", 451, b"deferred"),
        ("broken on_error=pass", 550, b"passed over"),
        ("stuck timeout=1 on_error=pass", 550, b"passed over"),
    ],
)
def test_what_a_failure_means_is_said_by_its_line(tmp_path: Path, line: str, code: int, said: bytes) -> None:
    decision, log = asked(tmp_path, f"{line}\nrefusing\n")
    assert decision.refusal is not None and decision.refusal.reply.code == code  # type: ignore[union-attr]
    assert said in log[0]


def test_a_class_is_made_only_where_it_is_asked_and_programs_are_smtpds(tmp_path: Path) -> None:
    found = settings(tmp_path, "refusing\nsigner\n")
    programs: Any = object()
    load_chain(found, MemoryLog(), SystemClock(), "smtpd", programs)
    load_chain(found, MemoryLog(), SystemClock(), "remote")
    load_chain(found, MemoryLog(), SystemClock(), "send")
    assert [(name, context.place, context.programs) for name, context in made] == [
        ("refusing", "smtpd", programs),
        ("signer", "remote", None),
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unwilling", r"OSError\('no such luck'\) \(test_loading.py:\d+\); remove or mend it"),
        ("opens", r"FileNotFoundError: .*'/no/such/file' \(test_loading.py:\d+\); remove or mend it"),
        ("exits", r"SystemExit\(3\) \(test_loading.py:\d+\); remove or mend it"),
    ],
)
def test_one_that_cannot_be_made_is_named(tmp_path: Path, name: str, said: str) -> None:
    said = rf"control/hooks, line 2: the hook '{name}' \(.*:{name}\) cannot be made in smtpd: {said}"
    with pytest.raises(ControlError, match=said):
        load_chain(settings(tmp_path, f"refusing\n{name}\n"), MemoryLog(), SystemClock())


@pytest.mark.parametrize("place", ["smtpd", "send", "remote"])
@pytest.mark.parametrize("name", ["recpt", "misspelt", "nothing"])
def test_one_that_is_asked_nothing_anywhere_is_an_error(tmp_path: Path, name: str, place: Any) -> None:
    """It would filter nothing, and nobody would know."""
    said = rf"hooks, line 3: the hook '{name}' .*(none of the methods .*connect, .*finished\)|gives None)"
    with pytest.raises(ControlError, match=said):
        load_chain(settings(tmp_path, f"# ours\nrefusing\n{name}\n"), MemoryLog(), SystemClock(), place)
