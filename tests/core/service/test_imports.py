"""What a service imports before it forks: add-ons are found, also when looking for them aside fails."""

import subprocess
import sys

import pytest

A_START = """
from openqmail.core.control import extensions
from openqmail.core.service import run

def broken():
    raise RuntimeError("no such luck")

if {}:
    extensions.everything = broken
run._import_all()
print(bool(extensions._told), *extensions.registered("openqmail.services"))
"""


@pytest.mark.parametrize("breaks", [False, True])
def test_services_are_found_whatever_becomes_of_looking_for_them_aside(breaks: bool) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", A_START.format(breaks)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    aside, *services = ran.stdout.split()
    assert "smtp" in services
    assert aside == str(not breaks)
    assert ("looking for add-ons broke: RuntimeError('no such luck')" in ran.stderr) == breaks
