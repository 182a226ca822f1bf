"""What these tests share: the name server of the dns tests, and scripted peers."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def nameserver():
    """The class Nameserver."""
    if "core_dns_nameserver" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "core_dns_nameserver", Path(__file__).parents[1] / "dns" / "nameserver.py"
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules["core_dns_nameserver"] = module
        spec.loader.exec_module(module)
    return sys.modules["core_dns_nameserver"].Nameserver


def _load_here(name):
    key = f"core_remote_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, Path(__file__).with_name(f"{name}.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[key] = module
        spec.loader.exec_module(module)
    return sys.modules[key]


@pytest.fixture(scope="session")
def scene():
    """The module scene: peers that do as they are told, settings and jobs."""
    return _load_here("scene")


@pytest.fixture(scope="session")
def tls_scene():
    """The module tls_scene: peers with TLS."""
    return _load_here("tls_scene")


@pytest.fixture(scope="session")
def authority():
    """Who signs for the hosts of these tests."""
    from certificates import Authority

    return Authority()


@pytest.fixture
def trusted(authority, tmp_path, monkeypatch):
    """The system believes that authority, and no other."""
    file = tmp_path / "system.pem"
    file.write_bytes(authority.certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
