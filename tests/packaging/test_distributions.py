"""What a distribution must be: built alone, the same each time, typed, of one version with the others."""

import hashlib
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

from builds import Build


def about(package: Path) -> str:
    (file,) = package.glob("src/openqmail/*/__about__.py")
    found = re.search(r'^__version__ = "(.+)"$', file.read_text(), re.MULTILINE)
    assert found, file
    return found[1]


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_every_distribution_has_the_same_version(packages: list[Path]) -> None:
    assert len({about(package) for package in packages}) == 1


def test_no_distribution_claims_the_namespace(packages: list[Path]) -> None:
    """A stray openqmail/__init__.py would hide every other distribution."""
    assert [str(p) for package in packages for p in package.glob("src/openqmail/__init__.py")] == []


def test_wheel_holds_its_package_typed_and_nothing_else(packages: list[Path], build: Build) -> None:
    for package in packages:
        name = package.name.removeprefix("openqmail-")
        with zipfile.ZipFile(build(package, "wheel")) as wheel:
            names = wheel.namelist()
            metadata = wheel.read(next(n for n in names if n.endswith("dist-info/METADATA"))).decode()
        assert f"openqmail/{name}/py.typed" in names
        assert "openqmail/__init__.py" not in names
        strangers = [n for n in names if not n.startswith((f"openqmail/{name}/", f"openqmail_{name}-"))]
        assert strangers == []
        assert f"\nVersion: {about(package)}\n" in metadata
        assert any(n.endswith("licenses/LICENSE") for n in names)
        sources = {str(p.relative_to(package / "src")) for p in (package / "src").rglob("*.py")}
        assert sources <= set(names)


def test_builds_are_reproducible(packages: list[Path], build: Build) -> None:
    """The same source and SOURCE_DATE_EPOCH give the same bytes, whatever the mtimes and umask."""
    for package in packages:
        for kind in ("wheel", "sdist"):
            first, second = build(package, kind), build(package, kind, umask=0o077)
            assert first.name == second.name
            assert digest(first) == digest(second), f"{kind} of {package.name}"


def test_sdist_builds_the_same_wheel(packages: list[Path], build: Build, tmp_path: Path) -> None:
    for package in packages:
        sdist = build(package, "sdist")
        with tarfile.open(sdist) as archive:
            archive.extractall(tmp_path, filter="data")
        unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
        assert digest(build(unpacked, "wheel")) == digest(build(package, "wheel"))


def test_core_depends_on_no_other_distribution_of_the_house(packages: list[Path]) -> None:
    for package in packages:
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        ours = {re.split(r"[<>=;\[ ]", need)[0] for need in project["dependencies"] if "openqmail" in need}
        assert ours == (set() if package.name == "openqmail-core" else {"openqmail-core"})


def test_core_comes_in_by_the_doors_of_add_ons() -> None:
    """Its own SMTP service and transports are entry points that can be loaded."""
    for group, name in (
        ("openqmail.services", "smtp"),
        ("openqmail.services", "smtps"),
        ("openqmail.services", "submission"),
        ("openqmail.services", "submissions"),
        ("openqmail.transports", "smtp"),
        ("openqmail.transports", "lmtp"),
    ):
        (point,) = entry_points(group=group, name=name)
        assert callable(point.load())


def test_importing_core_alone_is_enough() -> None:
    """No module of core needs an add-on, a test library or anything undeclared."""
    code = (
        "import importlib, pkgutil, openqmail.core as core\n"
        "for found in pkgutil.walk_packages(core.__path__, 'openqmail.core.'):\n"
        "    importlib.import_module(found.name)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
