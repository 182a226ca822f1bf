"""In a home of root's: our key and our logins elsewhere are root's files, used by `remote`, and known to no
other process that speaks with the network.
"""

import os
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import dovecot_auth
import postfix
from certificates import Authority
from dovecot_auth import DovecotAuth
from homes import Place, Waiting
from postfix import Postfix
from system_homes import SystemHome, system_home

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users and runs as them")

AUTHORITY = Authority()
CERTIFICATE = AUTHORITY.issue("mx.b.example", ("mx.b.example",))
OURS = AUTHORITY.issue("a.example", ("a.example",))
RELAY = "[127.0.0.1]"
SECRET = "a-secret-" + os.urandom(8).hex()


class Pair(NamedTuple):
    here: SystemHome
    there: Postfix


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    if why := postfix.why_not() or dovecot_auth.why_not():
        pytest.skip(why)
    with (
        Place() as place,
        system_home("alice") as here,
        DovecotAuth(place.path / "sasl", {"joe": SECRET}, "plain") as sasl,
    ):
        folder = place.path
        (folder / "b.pem").write_bytes(CERTIFICATE.pem)
        (folder / "ca.pem").write_bytes(AUTHORITY.certificate)
        settings = {
            **sasl.settings,
            "smtpd_tls_security_level": "encrypt",
            "smtpd_tls_chain_files": folder / "b.pem",
            "smtpd_tls_CAfile": folder / "ca.pem",
            "smtpd_tls_req_ccert": "yes",
            "smtpd_tls_received_header": "yes",
        }
        with Postfix(folder / "postfix", "b.example", ["carol"], settings=settings) as there:
            here.control("smtproutes", f"b.example:{RELAY}:{there.port}")
            for name, content, mode in (
                ("credentials", f"{RELAY} joe {SECRET}\n".encode(), 0o400),
                ("clientcert.pem", OURS.pem, 0o400),
                (f"tlshosts/{RELAY}.pem", CERTIFICATE.certificate, 0o644),
            ):
                path = here.path / "control" / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
                path.chmod(mode)
            assert here.run("check", check=False).stdout.count("credentials") == 0
            here.start()
            yield Pair(here, there)


def holds(pid: int, what: bytes) -> bool:
    """Whether a process has these bytes in its memory."""
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            start, end = (int(number, 16) for number in place.split("-"))
            if "r" not in rights or "[v" in line:
                continue
            try:
                memory.seek(start)
                if what in memory.read(end - start):
                    return True
            except OSError:
                continue
    return False


def test_remote_uses_what_only_root_can_read(pair: Pair) -> None:
    with smtplib.SMTP("127.0.0.1", pair.here.port) as client:
        client.sendmail("alice@a.example", ["carol@b.example"], b"Subject: x\r\n\r\nx\r\n")
    (mail,) = pair.there.wait_mails("carol", 1)
    assert b"(Authenticated sender: joe)" in mail and b'CN "a.example"' in mail, mail


def test_no_other_process_of_the_network_knows_them(pair: Pair) -> None:
    key = OURS.key.splitlines()[1]  # the first line of its base64
    pids = pair.here.pids()
    assert holds(pids["remote"], SECRET.encode())
    for name, pid in pids.items():
        if name != "remote":
            assert not holds(pid, SECRET.encode()), name
            assert not holds(pid, key), name
    assert pair.here.process is not None and not holds(pair.here.process.pid, SECRET.encode())


def test_they_stand_in_no_argument_log_or_history(pair: Pair) -> None:
    said = pair.here.log.read_bytes()
    for name in pair.here.pids().values():
        said += Path(f"/proc/{name}/cmdline").read_bytes() + Path(f"/proc/{name}/environ").read_bytes()
    for file in (pair.here.path / "queue" / "history").glob("*"):
        said += file.read_bytes()
    for verb in (["control", "list"], ["control", "check"], ["why", "carol@b.example"], ["check"]):
        said += pair.here.run(*verb, check=False).stdout.encode()
    assert SECRET.encode() not in said
    assert pair.here.run("control", "show", "credentials", check=False).returncode == 100


def test_a_file_that_cannot_be_used_leaves_what_was_in_force(pair: Pair) -> None:
    path, size = pair.here.path / "control" / "credentials", pair.here.log.stat().st_size
    before = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(b"nonsense " + SECRET.encode() + b"\n")
    os.kill(pair.here.process.pid, 1)  # type: ignore[union-attr]
    for _ in Waiting(f"the log says so\n{pair.here.tail()}"):
        said = pair.here.log.read_bytes()[size:]
        if b"control/credentials, line 1" in said:
            break
    assert SECRET.encode() not in said and b"alert" in said
    with smtplib.SMTP("127.0.0.1", pair.here.port) as client:
        client.sendmail("alice@a.example", ["carol@b.example"], b"Subject: y\r\n\r\ny\r\n")
    pair.there.wait_mails("carol", 2)
    path.write_bytes(before)
