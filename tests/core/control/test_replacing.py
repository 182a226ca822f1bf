"""Files that are written by one at a time."""

import fcntl
import os
import stat
from pathlib import Path

import pytest

from openqmail.core.control import replacing
from openqmail.core.control.replacing import LOCK, one_writer
from openqmail.core.values import TemporaryFailure


def test_who_can_only_read_the_folder_keeps_nobody_waiting(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with one_writer(str(tmp_path)):
        assert stat.S_IMODE((tmp_path / LOCK).stat().st_mode) == 0o600
    os.close(folder)


def test_a_lock_file_that_others_could_open_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch(0o644)
    with one_writer(str(tmp_path)):
        assert stat.S_IMODE((tmp_path / LOCK).stat().st_mode) == 0o600


def test_who_waits_too_long_is_told_for_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacing, "PATIENCE", 0.05)
    told = pytest.raises(TemporaryFailure, match=r"\.lock: another 'openqmail user'")
    with one_writer(str(tmp_path)), told, one_writer(str(tmp_path)):
        raise AssertionError
    with one_writer(str(tmp_path)):
        pass
