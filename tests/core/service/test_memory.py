"""What the processes of a service take of memory that they do not need."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile

import idna
import pytest

from openqmail.core.service.loops import new_loop

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
PAGE = os.sysconf("SC_PAGESIZE")

AFTER_IMPORTS = """
import gc
from openqmail.core.service.processes.forking import share_memory

gaps = [bytes(31) for _ in range(100_000)]
del gaps[::500]
share_memory()
made = [bytes(31) for _ in range(100)]
print(len({id(one) // 4096 for one in made}), gc.get_freeze_count() > 1000)
"""

A_LIBRARY = """
import _ssl
from openqmail.core.service.processes.forking import share_memory

def present():
    with open("/proc/self/smaps") as smaps:
        areas = smaps.read().split("VmFlags")
    crypto = [area.split() for area in areas if "libcrypto" in area and " r-xp " in area]
    return sum(int(words[words.index("Rss:") + 1]) for words in crypto)

before = present()
share_memory()
after = present()
import ssl
print(before, after, ssl.create_default_context().protocol.name)
"""

A_PROCESS = """
import mmap
import re
import ssl
import sys
from openqmail.core.service.processes import forking

def present(name):
    with open("/proc/self/smaps") as smaps:
        areas = smaps.read().split("VmFlags")
    areas = [area for area in areas if name in area and " r-xp " in area]
    return sum(int(re.search("Rss: +([0-9]+)", area)[1]) for area in areas)

with open(sys.argv[1], "rb") as file:
    other = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
    forking.share_memory()
    place = other.find(b"x")
    other.close()
ssl.create_default_context()
before = present("libcrypto")
live = [bytes([at % 251 + 1]) * 1_000_000 for at in range(30)]
forking.give_back_files()
after = present("libcrypto")
whole = all(one == bytes([at % 251 + 1]) * 1_000_000 for at, one in enumerate(live))
print(before, after, whole, ssl.create_default_context().protocol.name)
"""

ONE_COMMAND = """
import sys
from openqmail.core.commands.main import main

try:
    main(["run", "--help"])
except SystemExit:
    print(*sys.modules)
"""


A_SERVICE = """
import sys
from openqmail.core.commands.main import main
from openqmail.core.service import run

run.run = lambda home, salvage: print(home.path, salvage, *sys.modules)
main(sys.argv[1:])
"""

THE_SERVICE = """
import sys
from openqmail.core.service.run import _import_all

_import_all()
print(*sys.modules)
"""


A_PYTHON_FOR_EVERYBODY = """
import os
import sys
from openqmail.core.control import owner

sys.path.insert(0, {!r})
os.__file__ = owner.__file__ = "/etc/passwd"  # of which its place and mode are looked at
"""


def output(program: str, *words: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    ).stdout


def present(begin: int, size: int) -> int:
    """Pages of this process that are in memory, of those between."""
    first, last = begin // PAGE, (begin + size) // PAGE
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        pagemap.seek(first * 8)
        entries = pagemap.read((last - first) * 8)
    return sum(entry >> 7 for entry in entries[7::8])


def test_a_process_writes_into_gaps_of_the_memory_that_all_share() -> None:
    pages, frozen = output(AFTER_IMPORTS).split()
    assert int(pages) <= 5, "6,400 bytes that were made together lie in the gaps of that many pages"
    assert frozen == "True", "a collection looks at what is imported"


@LINUX
def test_code_that_only_the_start_needed_stays_in_memory() -> None:
    before, after, protocol = output(A_LIBRARY).split()
    if before == "0":
        pytest.skip("this Python has libcrypto in itself")
    assert int(after) < int(before)
    assert protocol == "PROTOCOL_TLS_CLIENT", "what was given back is not there again when it is wanted"


@LINUX
def test_what_a_process_needed_to_start_is_given_back_and_nothing_that_lies_elsewhere_now(tmp_path) -> None:
    """A file that was mapped at the fork, and is not any more, may have left its place to what is needed."""
    (tmp_path / "mapped").write_bytes(bytes(20_000_000))
    before, after, whole, protocol = output(A_PROCESS, str(tmp_path / "mapped")).split()
    if before == "0":
        pytest.skip("this Python has libcrypto in itself")
    assert int(after) < int(before)
    assert whole == "True"
    assert protocol == "PROTOCOL_TLS_CLIENT"


def test_a_command_imports_the_others() -> None:
    modules = output(ONE_COMMAND).split()
    assert "openqmail.core.commands.run" in modules
    assert "openqmail.core.commands.mailbox" not in modules


@pytest.mark.parametrize(
    "words",
    [("--home", "{}", "run"), ("--home={}", "run"), ("--home", "{}", "run", "--salvage")],
)
def test_a_service_has_the_parser_of_the_command_line_in_memory(tmp_path, words: tuple[str, ...]) -> None:
    (tmp_path / "control").mkdir()
    path, salvage, *modules = output(A_SERVICE, *(word.format(tmp_path) for word in words)).split()
    assert path == str(tmp_path)
    assert salvage == str("--salvage" in words)
    assert "argparse" not in modules


def test_what_tells_figures_is_imported_where_nobody_wants_them() -> None:
    modules = output(THE_SERVICE).split()
    assert "openqmail.core.service.supervisor.shell" in modules
    assert "prometheus_client" not in modules
    for only in ("exposition", "scraping", "processes.metrics"):
        assert f"openqmail.core.service.{only}" not in modules


def test_what_finds_add_ons_stays_in_memory() -> None:
    modules = output(THE_SERVICE).split()
    assert "openqmail.core.smtpd.service" in modules, "what was found is loaded"
    assert not {"importlib.metadata", "zipfile", "csv", "email"} & set(modules)


@pytest.mark.parametrize(("mode", "early"), [(0o755, False), (0o711, True), (0o700, True)])
def test_names_beyond_ascii_are_loaded_before_nobody_can_read_them(mode: int, early: bool) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, mode)
        shutil.copytree(os.path.dirname(idna.__file__), os.path.join(folder, "idna"))
        modules = output(A_PYTHON_FOR_EVERYBODY.format(folder) + THE_SERVICE).split()
    assert ("idna.uts46data" in modules) is early


@LINUX
def test_a_loop_takes_memory_for_a_buffer_that_it_does_not_use() -> None:
    loop = new_loop()
    try:
        assert present(id(loop), loop.__sizeof__()) < 8
    finally:
        loop.close()


def test_a_loop_whose_buffer_was_given_back_reads_what_comes() -> None:
    async def story() -> bytes:
        heard = asyncio.get_running_loop().create_future()

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.set_result(await reader.read())
            writer.close()

        server = await asyncio.start_server(hear, "127.0.0.1", 0, limit=1 << 22)
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(letter)
            writer.write_eof()
            found = await heard
            writer.close()
        return found

    letter = os.urandom(1 << 21)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(asyncio.wait_for(story(), 30)) == letter
