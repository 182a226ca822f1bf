"""The name server of these tests, as a fixture."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def nameserver():
    """The class Nameserver."""
    if "core_dns_nameserver" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "core_dns_nameserver", Path(__file__).with_name("nameserver.py")
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules["core_dns_nameserver"] = module
        spec.loader.exec_module(module)
    return sys.modules["core_dns_nameserver"].Nameserver
