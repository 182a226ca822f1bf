"""What all tests share: the recorded behaviour of other programs, and homes of the real service."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from homes import Home, Place

ROOT = Path(__file__).resolve().parents[1]

# How long an example takes is the machine's affair, not the test's.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of recordings: OPENQMAIL_VECTORS, or shared/vectors beside the checkout."""
    named = os.environ.get("OPENQMAIL_VECTORS")
    folder = Path(named) if named else ROOT.parent / "shared" / "vectors"
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}: set OPENQMAIL_VECTORS to their folder")
    return folder


@pytest.fixture
def place() -> Iterator[Place]:
    """A folder for homes; every service in it is ended when the test is."""
    with Place() as made:
        yield made


@pytest.fixture
def home(place: Place) -> Home:
    """A home `a.example` of the real `openqmail init`, with alice and bob; not started."""
    return place.home("a.example", "alice", "bob")
