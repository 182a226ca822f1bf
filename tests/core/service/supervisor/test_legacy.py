"""What one program leaves to the next: one that it cannot read is refused before anything is lost."""

import json
import os
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from homes import OWNER
from openqmail.core.control.settings import Listener
from openqmail.core.service.frames.codec import VERSION
from openqmail.core.service.supervisor.legacy import ChildLeft, Legacy, try_installed
from openqmail.core.values import OpenqmailError

SMTP, SUBMISSION = Listener("smtp", "127.0.0.1", 25), Listener("submission", "127.0.0.1", 587)
CHILD = ChildLeft(3, "send", 2, "ready", 4711, 65534, 9, True)


@pytest.fixture
def made() -> Iterator[Legacy]:
    some = [socket.socket() for _ in range(4)]
    lock = os.open(os.devnull, os.O_RDONLY)
    yield Legacy.of(17, 2, lock, {SMTP: some[:1], SUBMISSION: some[1:2]}, [SMTP], some[2], some[3], [CHILD])
    os.close(lock)
    for one in some:
        one.close()


def without(legacy: Legacy, *keys: str, **more: Any) -> bytes:
    found = json.loads(legacy.encoded())
    return json.dumps({key: value for key, value in found.items() if key not in keys} | more).encode()


@pytest.fixture
def home(tmp_path: Path) -> str:
    (tmp_path / "control").mkdir()
    (tmp_path / "control/me").write_text("a.example\n")
    if os.geteuid() == 0:  # in this place a home of root's would not be root's alone
        os.chown(tmp_path, pwd.getpwnam(OWNER).pw_uid, -1)
    return str(tmp_path)


def test_what_is_left_is_taken_once_and_by_this_process_alone(made: Legacy) -> None:
    environ = {Legacy.VARIABLE: made.encoded().decode()}
    assert Legacy.take(environ) == made
    assert Legacy.take(environ) is None
    assert Legacy.take({Legacy.VARIABLE: without(made, pid=os.getpid() + 1).decode()}) is None


def test_the_listeners_are_found_again_and_whose_they_were(made: Legacy) -> None:
    assert [(one.listener, one.given) for one in made.bound] == [(SMTP, True), (SUBMISSION, False)]


def test_an_older_program_may_leave_less_and_a_newer_one_more(made: Legacy) -> None:
    found = Legacy.decoded(without(made, "version", "since", "generation", news=[1]))
    assert found.children == (CHILD,)
    assert (found.version, found.frames) == (1, VERSION)


def test_one_that_does_not_tell_its_frames_has_the_first_and_is_refused(made: Legacy) -> None:
    with pytest.raises(OpenqmailError, match="speaks version 1 of the frames"):
        Legacy.decoded(without(made, "frames"))


def test_what_the_installed_program_understands_is_no_obstacle(made: Legacy, home: str) -> None:
    assert try_installed(home, made) == ""


@pytest.mark.parametrize("lacking", ["lock", "children", "bound"])
def test_a_legacy_that_lacks_something_is_refused_by_the_trial(made: Legacy, home: str, lacking: str) -> None:
    class Older(Legacy):
        def encoded(self) -> bytes:
            return without(made, lacking)

    old = Older(**{name: getattr(made, name) for name in made.__struct_fields__})
    assert f"is not understood: Object missing required field `{lacking}`" in try_installed(home, old)


def test_a_trial_that_fails_says_why_in_a_sentence_of_the_administrators(made: Legacy, home: str) -> None:
    Path(home, "control", "databytes").write_text("many\n")
    assert try_installed(home, made).startswith("control/databytes, line 1: ")


@pytest.mark.parametrize("version", [{"version": 2}, {"frames": VERSION + 1}])
def test_another_version_is_refused(made: Legacy, version: dict[str, int]) -> None:
    with pytest.raises(OpenqmailError, match="stop it and start it anew"):
        Legacy.decoded(without(made, **version))
