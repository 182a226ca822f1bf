"""Every check of the house; `./nox -l` lists them, plain `./nox` runs those that must pass.

Tests run on installed wheels, never on the source tree, so that a missing file or dependency
shows.  A Python that is not on this machine is reported as skipped.
"""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import nox

ROOT = Path(__file__).parent
DIST = ROOT / "dist"
PACKAGES = sorted(path.parent for path in (ROOT / "packages").glob("*/pyproject.toml"))
PYTHONS = ("3.11", "3.12", "3.13", "3.14")

AT_ONCE = ["-n", "auto", "--dist", "worksteal"]
"""As many tests as there are processors; for those that share nothing of this machine."""

BUILD = ["hatchling==1.33.0"]
PROMETHEUS = "prometheus-client==0.26.0"
TEST = [
    "pytest==9.2.0",
    "pytest-timeout==2.4.0",
    "pytest-xdist==3.8.0",
    "hypothesis==6.170.17",
    "pyseccomp==0.1.2",
    "dnspython==2.9.2",
    "aiosmtpd==1.4.6",
    "cryptography==50.0.2",
    "scramp==1.5.0",
    PROMETHEUS,
]
LINT = ["ruff==0.17.6", "import-linter==2.17"]
TYPES = ["mypy==2.4.1", "pytest==9.2.0", PROMETHEUS]

nox.needs_version = ">=2025.10"
nox.options.default_venv_backend = "venv"
nox.options.download_python = "never"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False
nox.options.stop_on_first_error = False


# --- what is on this machine --------------------------------------------------------------


@functools.cache
def interpreter(version: str) -> str | None:
    """The path of a Python of this version that really starts; shims of pyenv may not."""
    found = [shutil.which(f"python{version}"), shutil.which("python3")]
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False).stdout.strip()
        found += sorted(map(str, Path(root).glob(f"versions/{version}*/bin/python{version}")), reverse=True)
    ask = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2], sys._base_executable)"
    for path in filter(None, found):
        told = subprocess.run([path, "-c", ask], capture_output=True, text=True, check=False).stdout.split()
        if told[:1] == [version]:
            return told[1]
    return None


OLDEST = next((path for path in map(interpreter, PYTHONS) if path), "python3")
"""Sessions that need one Python only run on this one."""


DEBIANS = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else OLDEST
"""The distribution's own Python, which is what a server runs on: it is built with every
optimisation, where one that was built by hand often is not, and is half as fast."""


def wheels(*names: str) -> list[str]:
    """The built wheels of these distributions."""
    return [str(wheel) for name in names for wheel in DIST.glob(f"{name.replace('-', '_')}-*.whl")]


def install_wheels(session: nox.Session, *names: str) -> None:
    """The wheels and what they need; the wheels anew, even when their version is the same."""
    session.install("-q", *wheels(*names))
    session.install("-q", "--no-deps", "--force-reinstall", *wheels(*names))


def run_tests(session: nox.Session, *arguments: str) -> None:
    # Hidden from the sessions: a PYTHONPATH that would let the source tree in.
    session.run("python", "-m", "pytest", "-q", *arguments, env={"PYTHONPATH": None})


# --- checks -------------------------------------------------------------------------------


@nox.session(python=OLDEST)
def lint(session: nox.Session) -> None:
    """Style, common mistakes, and the floors of the design."""
    session.install("-q", *LINT)
    session.run("ruff", "check", "--quiet", ".")
    session.run("ruff", "format", "--quiet", "--check", ".")
    sources = os.pathsep.join(str(package / "src") for package in PACKAGES)
    session.run("lint-imports", "--no-logo", env={"PYTHONPATH": sources})


@nox.session(python=OLDEST)
def types(session: nox.Session) -> None:
    """mypy --strict, as each supported Python would see it."""
    session.install("-q", *TYPES, *runtime_requirements())
    for version in PYTHONS:
        session.run("mypy", "--python-version", version, "--no-error-summary")


def runtime_requirements() -> list[str]:
    import tomllib  # noqa: PLC0415

    found: list[str] = []
    for package in PACKAGES:
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        found += [name for name in project["dependencies"] if not name.startswith("openqmail-")]
    return found


@nox.session(python=OLDEST)
def build(session: nox.Session) -> None:
    """Wheel and sdist of every distribution, into dist/."""
    session.install("-q", *BUILD)
    shutil.rmtree(DIST, ignore_errors=True)
    for package in PACKAGES:
        session.chdir(package)
        session.run("python", "-m", "hatchling", "build", "-d", str(DIST), silent=True)


# --- tests, a session a distribution and Python -------------------------------------------


def tests_of(name: str, version: str) -> None:
    """Makes the session `tests-NAME-VERSION`: this wheel and core's, and nothing else."""
    python = interpreter(version)
    if python is None:

        @nox.session(name=f"tests-{name}-{version}", venv_backend="none", default=True)
        def absent(session: nox.Session) -> None:
            session.skip(f"there is no Python {version} on this machine")

        return

    @nox.session(name=f"tests-{name}-{version}", python=python, requires=["build"], default=True)
    def tests(session: nox.Session) -> None:
        session.install("-q", *TEST)
        install_wheels(session, *dict.fromkeys(["openqmail-core", f"openqmail-{name}"]))
        run_tests(session, *AT_ONCE, f"tests/{name}", *session.posargs)


for _package in PACKAGES:
    for _version in PYTHONS:
        tests_of(_package.name.removeprefix("openqmail-"), _version)


@nox.session(name="tests-interop", python=OLDEST, requires=["build"])
def tests_interop(session: nox.Session) -> None:
    """The real service beside other people's programs, before strangers, on disks that fail.

    A disk that fills up or loses its power takes root and loop devices; else those are skipped."""
    session.install("-q", *TEST)
    install_wheels(session, "openqmail-core")
    folders = ("tests/interop", "tests/hostile", "tests/power", "tests/fulldisk")
    run_tests(session, *folders, *session.posargs)


@nox.session(name="tests-simulation", python=OLDEST, requires=["build"])
def tests_simulation(session: nox.Session) -> None:
    """A thousand histories on a simulated disk, clock and loop; `simulate` plays more."""
    session.install("-q", *TEST)
    install_wheels(session, "openqmail-core")
    run_tests(session, *AT_ONCE, "tests/simulation", *session.posargs)


@nox.session(name="tests-packaging", python=OLDEST, requires=["build"])
def tests_packaging(session: nox.Session) -> None:
    """Wheels, sdists, versions, and an add-on that comes in by every door."""
    session.install("-q", *TEST, *BUILD)
    install_wheels(session, *(package.name for package in PACKAGES))
    run_tests(session, "tests/packaging", *session.posargs)


# --- shown, not claimed -------------------------------------------------------------------


def script(session: nox.Session, path: str) -> None:
    install_wheels(session, "openqmail-core")
    environ = {"PYTHONPATH": str(ROOT / "tests/support")}
    # Told to end, a script stops its services and removes its folder.
    session.run("python", path, *session.posargs, env=environ, interrupt_timeout=10, terminate_timeout=10)


@nox.session(python=OLDEST, requires=["build"], default=False)
def demo(session: nox.Session) -> None:
    """The main job on real mail, with a kill in the middle; ends with a table."""
    script(session, "tests/demo/demo.py")


@nox.session(python=OLDEST, requires=["build"], default=False)
def crash(session: nox.Session) -> None:
    """20,000 messages, the service killed 200 times, and more in four other phases: none lost."""
    script(session, "tests/crash/crash.py")


@nox.session(python=OLDEST, requires=["build"], default=False)
def processes(session: nox.Session) -> None:
    """Each process killed 50 times, all of them ten times, 100 reloads, ten upgrades: none lost."""
    script(session, "tests/processes/lives.py")


@nox.session(python=OLDEST, requires=["build"], default=False)
def power(session: nox.Session) -> None:
    """The disk's power cut 50 times on ext4, and on xfs, amid mixed mail; needs root, loop devices."""
    script(session, "tests/power/power.py")


@nox.session(python=OLDEST, requires=["build"], default=False)
def simulate(session: nox.Session) -> None:
    """`nox -s simulate -- --seeds N`: the queue on a simulated disk, through N random histories."""
    script(session, "tests/simulation/simulate.py")


@nox.session(python=DEBIANS, requires=["build"], default=False)
def bench(session: nox.Session) -> None:
    """Beside Postfix, as ratios; needs Debian's postfix, and root.  `-- --help` tells more works."""
    script(session, "bench/bench.py")


@nox.session(python=DEBIANS, requires=["build"], default=False)
def startup(session: nox.Session) -> None:
    """What starting `sendmail` costs, beside a bare interpreter; more than asked is a fault."""
    script(session, "bench/startup.py")


@nox.session(python=OLDEST, requires=["build"])
def docs(session: nox.Session) -> None:
    """Links, commands and generated pages of the docs are true."""
    install_wheels(session, "openqmail-core")
    session.run("python", "tests/docs/check.py", env={"PYTHONPATH": None})


@nox.session(venv_backend="none", default=False)
def bump(session: nox.Session) -> None:
    """`nox -s bump -- X.Y.Z`: this version for every distribution."""
    if len(session.posargs) != 1 or not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", session.posargs[0]):
        session.error("say the new version: nox -s bump -- 0.2.0")
    for package in PACKAGES:
        for about in package.glob("src/openqmail/*/__about__.py"):
            text = about.read_text()
            new = re.sub(r'__version__ = ".*"', f'__version__ = "{session.posargs[0]}"', text)
            about.write_text(new)
            session.log(f"{about.relative_to(ROOT)}: {session.posargs[0]}")
