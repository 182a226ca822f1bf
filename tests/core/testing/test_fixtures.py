"""The fixtures: MTAs end with their tests, however those end, and a suite without them pays nothing."""

import signal
import subprocess
import sys

import pytest

FAILING = """
def test_fails(mta_factory):
    one, other = mta_factory(), mta_factory(domain="b.example")
    one.submit("x@y.example", "alice@a.example", "hello")
    assert not one.wait_for("alice")

def test_waits_in_vain(mta):
    mta.wait_for("alice", seconds=0.05)

def test_interrupts(mta, virtual_mta_factory):
    virtual_mta_factory()
    raise KeyboardInterrupt
"""


@pytest.fixture
def temporary(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("t")
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_a_test_that_fails_or_is_interrupted_leaves_nothing(run_pytest, temporary):
    code, said = run_pytest("-p", "no:tmpdir", test_failing=FAILING)
    assert code == pytest.ExitCode.INTERRUPTED, said
    assert "2 failed" in said
    assert "no mail for alice within 0.05 s; the log's last lines:" in said
    assert [one.name for one in temporary.iterdir() if one.name.startswith("openqmail-")] == []


def test_a_suite_that_is_terminated_leaves_no_folder_behind(temporary):
    code = """
import signal, sys
from openqmail.core.testing import Mta
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
mta = Mta()
mta.start()
print("up", flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        assert len(list(temporary.iterdir())) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 3
    assert list(temporary.iterdir()) == []


def test_many_processes_of_one_suite_use_it_at_once(run_pytest):
    pytest.importorskip("xdist")
    tests = "".join(
        f"def test_{number}(mta):\n"
        f"    mta.submit('x@y.example', 'alice@a.example', 'Subject: {number}\\n\\n')\n"
        f"    assert mta.wait_for('alice', seconds=30)[0]['Subject'] == '{number}'\n"
        for number in range(6)
    )
    code, said = run_pytest("-n", "3", test_many=tests)
    assert code == 0, said
    assert "6 passed" in said


def test_a_suite_that_asks_for_none_imports_nothing():
    code = """
import sys
import openqmail.core.testing.plugin
print([name for name in sys.modules if name.startswith("openqmail.core.")
       and not name.startswith("openqmail.core.testing")])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "[]\n", ran.stderr


def test_every_public_name_is_there_and_pytest_is_imported_by_the_plugin_alone():
    code = """
import sys
sys.modules["pytest"] = None
import openqmail.core.testing as testing
assert all(getattr(testing, name) for name in testing.__all__)
try:
    testing.Nothing
except AttributeError:
    print("done")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "done\n", ran.stderr
