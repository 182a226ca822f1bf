"""What a process may still do once it is confined: each act is tried from inside, and its answer told."""

import asyncio
import ctypes
import errno
import fcntl
import json
import os
import pty
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forks import Tell, told_by_child
from openqmail.core.control import Account, Home
from openqmail.core.queue import SendMutex
from openqmail.core.queue.layout.paths import prepare
from openqmail.core.remote import Source, Stop, dialing
from openqmail.core.service.confine import (
    Walls,
    become,
    forbid_calls,
    forgo_capabilities,
    harden,
    landlock,
    leave_terminal,
    limit_memory,
    wall_in,
    walls_of,
)
from openqmail.core.service.confine import seccomp as filters
from openqmail.core.values import HomeError
from openqmail.core.world import PosixDisk

ABI = landlock.abi()
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
LANDLOCK = pytest.mark.skipif(not ABI, reason="this kernel has no Landlock")
NETWORK = pytest.mark.skipif(ABI < 4, reason=f"Landlock of this kernel (ABI {ABI}) knows no TCP")
SCOPED = pytest.mark.skipif(ABI < 6, reason=f"Landlock of this kernel (ABI {ABI}) knows no scopes")
FILTER = pytest.mark.skipif(filters.lacking() is not None, reason="pyseccomp is not installed")

Act = Callable[[], object]


def told(act: Act) -> str:
    """`done`, or the name of the error."""
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def inside(confine: Act, **acts: Act) -> dict[str, str]:
    """What a child that confines itself can do."""

    def live(tell: Tell, _: int) -> None:
        confine()
        tell({name: told(act) for name, act in acts.items()})

    return told_by_child(live)


@pytest.fixture
def room() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="oq")).resolve()
    for name in ("mine", "other"):
        (folder / name).mkdir()
        (folder / name / "letter").write_text("dear")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def home(room: Path) -> Home:
    for name in ("control", "users", "queue", "alias", "run", "mail"):
        (room / "home" / name).mkdir(parents=True)
        (room / "home" / name / "file").write_text("secret")
    return Home(str(room / "home"))


# --- uids ---------------------------------------------------------------------------------


@ROOT
def test_root_becomes_somebody_for_good() -> None:
    nobody = pwd.getpwnam("nobody")
    account = Account("nobody", nobody.pw_uid, nobody.pw_gid)

    def confine() -> None:
        os.setgroups([0, 1, 2])
        become(account)
        assert os.getresuid() == (account.uid,) * 3
        assert os.getresgid() == (account.gid,) * 3
        assert os.getgroups() == [account.gid]
        become(Account("daemon", 1, 1))  # who is not root stays who it is
        assert os.getuid() == account.uid

    refused = inside(
        confine,
        back=lambda: os.setuid(0),
        effective=lambda: os.seteuid(0),
        group=lambda: os.setgid(0),
        groups=lambda: os.setgroups([0]),
        shadow=lambda: os.open("/etc/shadow", os.O_RDONLY),
    )
    assert refused == {**dict.fromkeys(("back", "effective", "group", "groups"), "EPERM"), "shadow": "EACCES"}


@ROOT
def test_nobody_becomes_root() -> None:
    with pytest.raises(HomeError, match="is root"):
        become(Account("toor", 0, 0))


@ROOT
def test_root_that_can_be_taken_back_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = pwd.getpwnam("nobody")

    def confine() -> None:
        monkeypatch.setattr(os, "setuid", lambda uid: os.setresuid(uid, uid, 0) if uid else os.seteuid(0))
        with pytest.raises(HomeError, match="keeps it root"):
            become(Account("nobody", nobody.pw_uid, nobody.pw_gid))

    inside(confine)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_hardened_process_leaves_no_core_and_gains_nothing() -> None:
    def confine() -> None:
        harden(no_new_privileges=True)
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
        assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0, "it can be dumped and traced"
        assert "NoNewPrivs:\t1\n" in Path("/proc/self/status").read_text()

    inside(confine)


def capabilities() -> set[int]:
    """All that this process has or could take, in one set of each kind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {
        int(line.split()[1], 16)
        for line in lines
        if line.startswith(("CapInh", "CapPrm", "CapEff", "CapAmb"))
    }


@ROOT
def test_a_capability_that_was_given_for_a_port_is_given_up() -> None:
    keep_capabilities = 8

    def confine() -> None:
        assert ctypes.CDLL(None).prctl(keep_capabilities, 1, 0, 0, 0) == 0
        os.setuid(65534)
        assert capabilities() != {0}, "as a Python has by setcap"
        forgo_capabilities()
        assert capabilities() == {0}

    inside(confine)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the limit does not cover what is mapped")
@pytest.mark.parametrize(("role", "answer"), [("smtpd", "ENOMEM"), ("gate", "ENOMEM"), ("send", "done")])
def test_who_speaks_to_strangers_cannot_take_all_memory(role: str, answer: str) -> None:
    def take() -> None:
        try:
            assert bytearray(3 << 30)
        except MemoryError:
            raise OSError(errno.ENOMEM, "no more") from None

    assert inside(lambda: limit_memory(role), take=take) == {"take": answer}


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_privileges_of_programs_stay_where_they_are_wanted() -> None:
    def confine() -> None:
        before = Path("/proc/self/status").read_text().count("NoNewPrivs:\t1\n")
        harden(no_new_privileges=False)
        assert Path("/proc/self/status").read_text().count("NoNewPrivs:\t1\n") == before

    inside(confine)


# --- the terminal -------------------------------------------------------------------------


def in_terminal(confine: Act, **acts: Act) -> dict[str, str]:
    """As `inside`, in a child of whoever leads the session of a terminal of its own."""
    reader, writer = os.pipe()
    leader, terminal = pty.fork()
    if not leader:
        try:
            found = inside(confine, **acts)
            os.write(writer, json.dumps(found).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        said = answer.read()
    os.waitpid(leader, 0)
    os.close(terminal)
    return json.loads(said)


@ROOT
def test_the_terminal_that_it_was_started_from_is_out_of_reach() -> None:
    def type_something() -> None:
        fcntl.ioctl(2, termios.TIOCSTI, b"x")

    def take_again() -> None:
        os.setsid()
        fcntl.ioctl(2, termios.TIOCSCTTY, 0)

    def leave() -> None:
        leave_terminal()
        assert os.read(0, 1) == b"", "what is typed cannot be read"
        nobody = pwd.getpwnam("nobody")
        become(Account("nobody", nobody.pw_uid, nobody.pw_gid))

    found = in_terminal(
        leave,
        type=type_something,
        write=lambda: os.write(2, b"a line of the log\n"),
        open=lambda: os.close(os.open("/dev/tty", os.O_RDWR)),
        read=lambda: os.set_blocking(2, False) or os.read(2, 1),
        again=take_again,  # at last: who leads a session has no terminal
    )
    assert found.pop("type") in ("EPERM", "EIO")
    assert found == {"write": "done", "open": "ENXIO", "read": "EBADF", "again": "EPERM"}


def test_who_has_no_terminal_and_no_input_leaves_none() -> None:
    def closed() -> None:
        os.close(0)
        leave_terminal()

    assert inside(closed, null=lambda: os.read(0, 1)) == {"null": "done"}


# --- walls --------------------------------------------------------------------------------


@LANDLOCK
def test_files_are_read_and_written_only_inside_the_walls(room: Path) -> None:
    mine, other = room / "mine", room / "other"
    walls = Walls(read=(str(mine), "/nowhere/at/all"))
    found = inside(
        lambda: wall_in(walls),
        read=(mine / "letter").read_bytes,
        listed=lambda: os.listdir(mine),
        write=lambda: (mine / "letter").write_text("x"),
        make=lambda: (mine / "new").write_text("x"),
        remove=(mine / "letter").unlink,
        read_other=(other / "letter").read_bytes,
        list_other=lambda: os.listdir(other),
        list_above=lambda: os.listdir(room),
        run=lambda: os.execv("/bin/true", ["true"]),
    )
    refused = ("write", "make", "remove", "read_other", "list_other", "list_above", "run")
    assert found == {"read": "done", "listed": "done", **dict.fromkeys(refused, "EACCES")}
    assert (mine / "letter").read_text() == "dear"


@pytest.mark.skipif(ABI < 2, reason=f"Landlock of this kernel (ABI {ABI}) knows no rename between folders")
def test_a_writer_makes_renames_links_and_removes_inside_alone(room: Path) -> None:
    mine, other = room / "mine", room / "other"
    (mine / "deep").mkdir()
    found = inside(
        lambda: wall_in(Walls(write=(str(mine),), names=(str(room),))),
        make=lambda: (mine / "new").write_text("x"),
        folder=(mine / "folder").mkdir,
        fifo=lambda: os.mkfifo(mine / "fifo"),
        across=lambda: (mine / "new").rename(mine / "deep" / "new"),
        link=lambda: os.link(mine / "deep" / "new", mine / "again"),
        remove=(mine / "again").unlink,
        remove_folder=(mine / "folder").rmdir,
        symlink=lambda: os.symlink("/etc/passwd", mine / "passwd"),
        out=lambda: (mine / "letter").rename(other / "stolen"),
        names=lambda: os.listdir(other),
        read_other=(other / "letter").read_bytes,
    )
    refused = {"symlink": "EACCES", "out": "EXDEV", "read_other": "EACCES"}
    if found["out"] == "EACCES":
        refused["out"] = "EACCES"
    done = ("make", "folder", "fifo", "across", "link", "remove", "remove_folder", "names")
    assert found == {**dict.fromkeys(done, "done"), **refused}


@NETWORK
@pytest.mark.parametrize("connect", [False, True])
def test_tcp_goes_out_only_where_it_may_and_from_any_address_of_this_host(connect: bool) -> None:
    def go_out() -> None:
        source = Source(v4="127.0.0.7")
        asyncio.run(dialing.connect(Stop(b"", "127.0.0.1", there[1]), source, 5)).close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        there = server.getsockname()
        found = inside(
            lambda: wall_in(Walls(connect=connect)),
            connect=lambda: socket.socket().connect(there),
            bound=go_out if connect else lambda: socket.socket().bind(("127.0.0.7", 0)),
            bind=lambda: socket.create_server(("127.0.0.1", 2500)).close(),
            accept=server.listen,  # what was inherited goes on
        )
    may = "done" if connect else "EACCES"
    assert found == {"connect": may, "bound": may, "bind": "EACCES", "accept": "done"}


@SCOPED
def test_neither_signals_nor_abstract_sockets_reach_beyond(room: Path) -> None:
    target = os.fork()
    if not target:
        signal.pause()
        os._exit(0)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            name = f"\0oq-{os.getpid()}"
            server.bind(name)
            server.listen()
            found = inside(
                lambda: wall_in(Walls()),
                signal=lambda: os.kill(target, signal.SIGCONT),
                itself=lambda: os.kill(os.getpid(), signal.SIGCONT),
                abstract=lambda: socket.socket(socket.AF_UNIX).connect(name),
            )
        assert found == {"signal": "EPERM", "itself": "done", "abstract": "EPERM"}
    finally:
        os.kill(target, signal.SIGKILL)
        os.waitpid(target, 0)


@LANDLOCK
def test_a_walled_in_process_is_ended_from_outside() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        wall_in(Walls())
        os.write(writer, b"in")
        signal.pause()
        os._exit(1)
    assert os.read(reader, 2) == b"in"
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    os.close(reader)
    os.close(writer)


@LANDLOCK
def test_what_is_open_and_the_childs_children_stay_as_they_are(room: Path) -> None:
    inherited = os.open(room / "other" / "letter", os.O_RDWR)

    def grandchild() -> None:
        answer = inside(lambda: None, read=(room / "other" / "letter").read_bytes)
        assert answer == {"read": "EACCES"}

    found = inside(
        lambda: wall_in(Walls()), inherited=lambda: os.pwrite(inherited, b"D", 0), forked=grandchild
    )
    os.close(inherited)
    assert found == {"inherited": "done", "forked": "done"}
    assert (room / "other" / "letter").read_text() == "Dear"


# --- the table ----------------------------------------------------------------------------

REACHED = {
    "smtpd": {"control", "users"},
    "gate": {"control", "users"},
    "send": {"control", "users", "queue"},
    "remote": {"control"},
}


@LANDLOCK
@pytest.mark.parametrize("role", REACHED)
def test_each_role_reads_its_parts_of_the_home_and_no_other(role: str, home: Home) -> None:
    parts = ("control", "users", "queue", "alias", "run", "mail")
    files = {part: Path(home.path, part, "file") for part in parts}
    read = {part: file.read_bytes for part, file in files.items()}
    written = {f"{part}+": (lambda file=file: file.write_text("x")) for part, file in files.items()}
    found = inside(lambda: wall_in(walls_of(role, home)), **read, **written)
    assert {part for part in parts if found[part] == "done"} == REACHED[role]
    assert {part for part in parts if found[f"{part}+"] == "done"} == ({"queue"} if role == "send" else set())


@LANDLOCK
@pytest.mark.parametrize("role", REACHED)
def test_python_goes_on_inside_the_walls(role: str, home: Home) -> None:
    def late() -> None:
        import wave  # a module that nobody has imported before

        assert wave

    found = inside(
        lambda: wall_in(walls_of(role, home)),
        late=late,
        random=lambda: Path("/dev/urandom").open("rb").close(),
        null=lambda: os.open("/dev/null", os.O_RDONLY),
        passwords=Path("/etc/passwd").read_bytes,
        run=lambda: os.execv("/bin/true", ["true"]),
    )
    assert found.pop("passwords") == ("done" if role == "remote" else "EACCES")
    assert found == {"late": "done", "random": "done", "null": "done", "run": "EACCES"}


@LANDLOCK
def test_remote_finds_this_hosts_addresses_and_name_servers(home: Home) -> None:
    from openqmail.core.remote.own import own_addresses

    def addresses() -> None:
        assert "127.0.0.1" in own_addresses()

    found = inside(
        lambda: wall_in(walls_of("remote", home)), hosts=Path("/etc/hosts").read_bytes, addresses=addresses
    )
    assert found == {"hosts": "done", "addresses": "done"}


@LANDLOCK
def test_send_opens_its_queue_inside_its_walls(home: Home) -> None:
    if ABI < 2:
        pytest.skip("walls of ABI 1 would let nobody rename")
    queue = os.fsencode(home.queue)
    found = inside(
        lambda: wall_in(walls_of("send", home)),
        prepare=lambda: prepare(PosixDisk(), queue),
        mutex=lambda: SendMutex(queue).close(),
        filesystem=lambda: PosixDisk().filesystem(queue),
    )
    assert found == {"prepare": "done", "mutex": "done", "filesystem": "done"}


@LANDLOCK
@pytest.mark.parametrize("role", REACHED)
def test_a_loop_runs_inside_walls_and_filters(role: str, home: Home) -> None:
    def confine() -> None:
        harden(no_new_privileges=True)
        wall_in(walls_of(role, home))
        forbid_calls(role)

    async def talk() -> None:
        one, other = socket.socketpair()
        one.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, other.send, b"x")  # a thread, made now
        assert await loop.sock_recv(one, 1) == b"x"

    assert inside(confine, loop=lambda: asyncio.run(talk())) == {"loop": "done"}


@LANDLOCK
def test_a_process_of_the_same_user_stays_closed(room: Path) -> None:
    """Though remote may read below /proc."""
    room.chmod(0o755)
    nobody = pwd.getpwnam("nobody")
    as_nobody = (
        {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []} if not os.geteuid() else {}
    )
    other = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL, **as_nobody)
    folder = f"/proc/{other.pid}"
    acts: dict[str, Act] = {
        "environment": Path(folder, "environ").read_bytes,
        "memory": lambda: os.close(os.open(f"{folder}/mem", os.O_RDONLY)),
        "files": lambda: os.close(os.open(f"{folder}/fd/1", os.O_WRONLY)),
        "root": lambda: os.readlink(f"{folder}/root"),
    }

    def confine(walls: Walls | None) -> None:
        become(Account("nobody", nobody.pw_uid, nobody.pw_gid))
        wall_in(walls)

    try:
        assert set(inside(lambda: confine(None), **acts).values()) == {"done"}, "there is nothing to refuse"
        found = inside(lambda: confine(Walls(read=("/proc",))), **acts)
        assert set(found.values()) <= {"EACCES", "EPERM"}, found
    finally:
        other.kill()
        other.wait()


@LANDLOCK
@pytest.mark.parametrize("role", ["supervisor", "local", "worker"])
def test_those_who_start_programs_have_no_walls(role: str, home: Home, room: Path) -> None:
    assert walls_of(role, home) is None
    found = inside(lambda: wall_in(walls_of(role, home)), read=(room / "other" / "letter").read_bytes)
    assert found == {"read": "done"}


@LANDLOCK
def test_a_path_of_modules_above_the_home_opens_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", "/", os.path.dirname(home.path), home.path, *sys.path])
    found = inside(lambda: wall_in(walls_of("smtpd", home)), queue=Path(home.queue, "file").read_bytes)
    assert found == {"queue": "EACCES"}


# --- kernels that know less ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "lacks"),
    [
        (0, "no Landlock"),
        (1, "truncating a file, TCP connections, device controls, abstract sockets and signals"),
        (3, "cover TCP connections, device controls"),
        (4, "cover device controls, abstract sockets"),
        (5, "cover abstract sockets and signals;"),
    ],
)
def test_an_older_kernel_restricts_what_it_can_and_says_the_rest(
    known: int, lacks: str, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newer kernel stands in for the older: it is asked for no more than that one has."""
    if known > ABI:
        pytest.skip(f"this kernel has ABI {ABI}")
    monkeypatch.setattr(landlock, "abi", lambda: known)

    def confine() -> None:
        assert lacks in (wall_in(Walls(read=(str(room / "mine"),))) or "")

    with socket.create_server(("127.0.0.1", 0)) as server:
        found = inside(
            confine,
            read=(room / "mine" / "letter").read_bytes,
            other=(room / "other" / "letter").read_bytes,
            connect=lambda: socket.socket().connect(server.getsockname()),
        )
    assert found == {
        "read": "done",
        "other": "EACCES" if known else "done",
        "connect": "EACCES" if known >= 4 else "done",
    }


def test_walls_in_which_nobody_could_rename_are_not_set(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 1)
    mine = room / "mine"
    (mine / "deep").mkdir()

    def confine() -> None:
        assert "no Landlock that serves" in (wall_in(Walls(write=(str(mine),))) or "")

    assert inside(confine, across=lambda: (mine / "letter").rename(mine / "deep" / "letter")) == {
        "across": "done"
    }


@pytest.mark.skipif(ABI < 6, reason=f"Landlock of this kernel (ABI {ABI}) lacks a part")
def test_nothing_is_said_when_all_is_in_force() -> None:
    def confine() -> None:
        assert wall_in(Walls()) is None

    inside(confine)
    assert landlock.lacking() is None


# --- system calls --------------------------------------------------------------------------


@FILTER
@pytest.mark.parametrize("role", ["smtpd", "gate", "remote"])
def test_calls_of_no_use_are_forbidden(role: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: object) -> Act:
        def made() -> None:
            if getattr(libc, name)(*arguments) < 0:
                raise OSError(ctypes.get_errno(), name)

        return made

    found = inside(
        lambda: forbid_calls(role),
        run=lambda: os.execv("/bin/true", ["true"]),
        trace=call("ptrace", 0, 0, None, None),
        mount=call("mount", b"none", b"/nowhere", b"tmpfs", 0, None),
        look=call("process_vm_readv", os.getpid(), None, 0, None, 0, 0),
        fork=lambda: os.waitpid(os.fork() or os._exit(0), 0),
        read=Path("/etc/hosts").read_bytes,
    )
    allowed = {"fork": "done", "read": "done"}
    assert found == {**dict.fromkeys(("run", "trace", "mount", "look"), "EPERM"), **allowed}


@pytest.mark.parametrize("role", ["send", "local", "worker", "supervisor"])
def test_other_roles_keep_their_calls(role: str) -> None:
    def run() -> None:
        child = os.fork()
        if not child:
            os.execv("/bin/true", ["true"])
        assert os.waitpid(child, 0)[1] == 0

    assert inside(lambda: forbid_calls(role), run=run) == {"run": "done"}


def test_without_the_library_nothing_is_forbidden_and_check_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_seccomp", None)
    assert "openqmail-core[seccomp]" in (filters.lacking() or "")
    assert inside(lambda: forbid_calls("smtpd"), read=Path("/etc/hosts").read_bytes) == {"read": "done"}
