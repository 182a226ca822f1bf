"""Real programs from Debian; a test skips, with the reason, where one is missing."""

import os
import shutil
from collections.abc import Callable

import pytest

Program = Callable[[str], str]


@pytest.fixture(scope="session")
def program() -> Program:
    """`program("swaks")`: the path of an installed program."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/lib/postfix/sbin"])

    def find(name: str) -> str:
        found = shutil.which(name, path=path)
        if found is None:
            pytest.skip(f"there is no {name} on this machine; as root, .ci/run installs it")
        return found

    return find
