"""Every act of the table of docs/security.md, tried from inside each process of a home of root's.

The processes are forked here, by the code that makes them in a service, up to the point where they
would serve; they try it beside a service that runs.  Root only.
"""

import importlib.util
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import forbidden
from forbidden import ROLES, TABLE, Act, Scene
from forks import Tell, told_by_child
from openqmail.core.control import Account, Home, find_accounts, read_settings
from openqmail.core.service.confine import landlock, walls_of
from openqmail.core.service.processes import worker
from openqmail.core.service.processes.process import Inherited
from openqmail.core.service.supervisor import children
from openqmail.core.tls import self_signed
from system_homes import SystemHome, system_home

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users and becomes them")

METRICS = importlib.util.find_spec("prometheus_client") is not None
USERS = {"metrics": "gate"}
"""Whose user a role has that has none of its own."""
SECRETS = {
    "control/clientcert.pem": ("remote", self_signed("a.example", time.time())),
    "control/credentials": ("remote", b"relay.example joe secret\n"),
    "users/smtpauth": ("gate", b"secret\n"),
}


@pytest.fixture(scope="module")
def served() -> Iterator[SystemHome]:
    """Serves, with secrets, a worker for alice, and a message in the queue's own files."""
    with system_home("alice", "bob") as home:
        for name, (role, secret) in SECRETS.items():
            (home.path / name).write_bytes(secret)
            (home.path / name).chmod(0o400)
            os.chown(home.path / name, home.account(role).pw_uid, 0)
        home.write("bob", ".qmail-open", "# anybody may read this\n")
        public = home.room / "public"
        public.mkdir()
        public.chmod(0o1777)
        for role in ROLES:
            entry = home.people["alice"] if role == "worker" else home.account(USERS.get(role, role))
            (public / f"mine-{role}").touch()
            os.chown(public / f"mine-{role}", entry.pw_uid, entry.pw_gid)
        (home.path / "queue/mess/0/1").write_text("private\n")
        send = home.account("send")
        os.chown(home.path / "queue/mess/0/1", send.pw_uid, send.pw_gid)
        (home.path / "queue/mess/0/1").chmod(0o600)
        if METRICS:
            home.control("metrics", "127.0.0.1:0")
        home.start()
        import smtplib

        with smtplib.SMTP("127.0.0.1", home.port, "client.example") as client:
            client.sendmail("", [home.address("alice")], b"Subject: warm\r\n\r\n")
        home.wait_mails("alice", 1)
        yield home


@pytest.fixture
def scene(served: SystemHome) -> Iterator[Callable[[str], Scene]]:
    """`scene(role)`: where a process of that role is."""
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract = f"\0oq-test-{os.getpid()}"
        unix.bind(abstract)
        unix.listen()
        pids = served.pids()

        def made(role: str) -> Scene:
            if role not in pids:
                pytest.skip("openqmail-core[metrics] is not installed")
            return Scene(
                role=role,
                home=served.path,
                alice=Path(served.people["alice"].pw_dir),
                bob=Path(served.people["bob"].pw_dir),
                message=served.path / "queue/mess/0/1",
                public=served.room / "public",
                tcp=tcp.getsockname(),
                udp=udp.getsockname(),
                abstract=abstract,
                supervisor=pids["supervisor"],
                twin=pids[role],
                other=pids["send" if role == "smtpd" else "smtpd"],
            )

        yield made


def inside(scene: Scene, alice: Account) -> dict[str, str]:
    """What a process of this role says of each act, by its group and name."""
    home = Home(str(scene.home))
    accounts = find_accounts(home)
    inherited = Inherited(home, read_settings(home), accounts, 1, {}, None, None, False)

    def live(tell: Tell, descriptor: int) -> None:
        def try_all() -> None:
            tell({f"{group}: {act.what}": forbidden.tried(act, scene) for group, act in acts()})

        async def instead(*given: object) -> int:
            try_all()
            return 0

        if scene.role == "worker":
            worker._serve = instead  # type: ignore[assignment]
            ours, _ = socket.socketpair()
            worker.run_worker(ours, descriptor, {descriptor}, inherited, alice)
        else:
            children.enter(scene.role, inherited, {0, 1, 2, descriptor}, walls_of(scene.role, home))  # type: ignore[arg-type]
            try_all()

    return told_by_child(live)


def acts() -> list[tuple[str, Act]]:
    return [(group, act) for group, some in TABLE.items() for act in some]


def account(served: SystemHome) -> Account:
    entry = served.people["alice"]
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def wrong(found: dict[str, str], role: str, fences: bool) -> dict[str, str]:
    """What is not as the table says; with `fences` false it is what uids alone hold back."""
    faults = {}
    for group, act in acts():
        name = f"{group}: {act.what}"
        stands = act.of(role)
        if stands == "walls" and fences and act.abi > landlock.abi():
            continue  # this kernel cannot
        done = stands == "may" or (stands == "walls" and not fences)
        if found[name] not in ({"done"} if done else forbidden.REFUSALS):
            faults[name] = f"{found[name]}, where the table says {stands}"
    return faults


@pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock")
@pytest.mark.parametrize("role", ROLES)
def test_each_process_may_what_the_table_says_and_is_refused_the_rest(
    role: str, scene: Callable[[str], Scene], served: SystemHome
) -> None:
    assert wrong(inside(scene(role), account(served)), role, True) == {}


@pytest.mark.parametrize("role", [role for role in ROLES if role != "worker"])
def test_without_landlock_uids_hold_back_what_the_table_says(
    role: str,
    scene: Callable[[str], Scene],
    served: SystemHome,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(children, "wall_in", lambda walls: None)
    monkeypatch.setattr(children, "forbid_calls", lambda role: None)
    assert wrong(inside(scene(role), account(served)), role, False) == {}


def test_the_service_goes_on_after_all_that(served: SystemHome) -> None:
    assert served.status()["state"] == "serving"
    before = {one["name"]: one["pid"] for one in served.status()["processes"]}
    assert b"ended" not in served.log.read_bytes(), "a process has died"
    assert set(before) >= {"supervisor", "local", *ROLES} - ({"metrics"} if not METRICS else set())
