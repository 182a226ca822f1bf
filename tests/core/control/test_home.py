"""Finding a home, and what is said when there is none."""

import os
from pathlib import Path

import pytest

from openqmail.core.control.home import SOCKET_PATH, Home, check_socket_paths
from openqmail.core.values import HomeError


def test_the_option_wins_over_the_environment(tmp_path: Path) -> None:
    for name in ("option", "environment"):
        (tmp_path / name / "control").mkdir(parents=True)
    environ = {"OPENQMAIL_HOME": str(tmp_path / "environment")}
    assert Home.find(str(tmp_path / "option"), environ).path == str(tmp_path / "option")
    found = Home.find(None, environ)
    assert found.path == str(tmp_path / "environment")
    assert found.run == str(tmp_path / "environment" / "run")
    assert found.owner == (os.stat(tmp_path).st_uid, os.stat(tmp_path / "environment").st_gid)


def test_no_home_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for argument, wanted in (
        (None, "OPENQMAIL_HOME"),
        (str(tmp_path / "nowhere"), "is not there; 'openqmail init"),
        (str(tmp_path), "no folder control"),
        (str(tmp_path / "file"), "not a folder"),
    ):
        with pytest.raises(HomeError, match=wanted):
            Home.find(argument, {})


def test_a_folder_is_offered_to_init_only_when_it_would_take_it(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match=f"'openqmail init {tmp_path} --me"):
        Home.find(str(tmp_path), {})
    (tmp_path / "letter").touch()
    with pytest.raises(HomeError, match="in a new or empty folder") as raised:
        Home.find(str(tmp_path), {})
    assert f"init {tmp_path}" not in str(raised.value)


def test_a_path_too_long_for_a_socket_is_refused_to_the_byte() -> None:
    fits = "/" + "x" * (SOCKET_PATH - len("/run/submit") - 1)
    check_socket_paths(fits)
    with pytest.raises(HomeError, match="108 bytes, the system takes 107"):
        check_socket_paths(fits + "x")
