"""Mail leaves by TLS for Postfix, Exim and our own server, with a proof where one is asked for; and with a
login, by every mechanism that Dovecot serves for Postfix.
"""

import os
import smtplib
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import dovecot_auth
import exim
import postfix
from certificates import Authority
from dovecot_auth import DovecotAuth
from exim import Exim
from homes import Home, Place, Waiting, free_port
from postfix import Postfix
from submitting import PASSWORD as SUBMITTED
from submitting import prepare

Program = Callable[[str], str]

AUTHORITY = Authority()
CERTIFICATE = AUTHORITY.issue("mx.b.example", ("mx.b.example",))
RELAY = "[127.0.0.1]"
BODIES = [b"a line\r\n", b".\r\n..\r\n", bytes(range(160, 256)) + b"\r\n", b"From 0123456789\r\n" * 60_000]


class Pair(NamedTuple):
    """`here` sends what is for b.example to `there`, whose Received has `sign` where TLS was used."""

    here: Home
    there: Any
    sign: bytes


def put(home: Home, name: str, content: bytes | None) -> None:
    """A file of control/ that its owner alone reads; None removes it."""
    path = home.path / "control" / name
    if content is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    for made in (path, path.parent):
        os.chown(made, os.stat(home.path).st_uid, os.stat(home.path).st_gid)
    path.chmod(0o600)


def with_tls(folder: Path, **settings: object) -> dict[str, object]:
    """Postfix's settings for that."""
    file = folder / "b.pem"
    file.write_bytes(CERTIFICATE.pem)
    return {
        "smtpd_tls_security_level": "may",
        "smtpd_tls_chain_files": file,
        "smtpd_tls_received_header": "yes",
        "smtpd_tls_loglevel": 1,
        **settings,
    }


@pytest.fixture(scope="module", params=["postfix", "postfix, TLS 1.2", "exim", "ours"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    kind = request.param
    module = {"postfix": postfix, "exim": exim}.get(kind.partition(",")[0])
    if module is not None and (why := module.why_not()):
        pytest.skip(why)
    with Place() as place:
        folder = place.path / "there"
        here = place.home("a.example", "alice")
        sign = b"using TLSv1.2" if "1.2" in kind else b"using TLSv1.3"
        if kind.startswith("postfix"):
            how = {"smtpd_tls_protocols": "<=TLSv1.2"} if "1.2" in kind else {}
            there: Any = Postfix(folder, "b.example", ["carol"], settings=with_tls(place.path, **how))
        elif kind == "exim":
            file = place.path / "exim.pem"
            file.write_bytes(CERTIFICATE.pem)
            file.chmod(0o644)
            there, sign = Exim(folder, "b.example", ["carol"], file), b"with esmtps"
        else:
            there, sign = place.home("b.example", "carol"), b"with ESMTPS"
            put(there, "servercert.pem", CERTIFICATE.pem)
            there.start()
        here.control("smtproutes", f"b.example:{RELAY}:{there.port}")
        if kind == "ours":
            here.start()
            yield Pair(here, there, sign)
        else:
            with there:
                here.start()
                yield Pair(here, there, sign)


def send(home: Home, mail: bytes, *options: str, to: str = "carol@b.example") -> None:
    with smtplib.SMTP("127.0.0.1", home.port) as client:
        client.ehlo()
        client.sendmail("alice@a.example", [to], mail, options)


def logged(home: Home, *words: str) -> str:
    """The first line of its log that has all of these."""
    for _ in Waiting(f"the log says {words}\n{home.tail()}"):
        for line in home.log.read_text(errors="replace").splitlines():
            if all(word in line for word in words):
                return line
    raise AssertionError


def body(mail: bytes) -> bytes:
    return mail.replace(b"\r\n", b"\n").partition(b"\n\n")[2]


def test_mail_leaves_by_tls_and_comes_out_as_it_went_in(pair: Pair) -> None:
    for data in BODIES:
        send(pair.here, b"Subject: x\r\n\r\n" + data, "BODY=8BITMIME")
    pair.here.wait_empty()
    mails = pair.there.wait_mails("carol", len(BODIES))
    assert sorted(map(body, mails)) == sorted(data.replace(b"\r\n", b"\n") for data in BODIES)
    for mail in mails:
        assert pair.sign in mail, mail[:1000]
    line = logged(pair.here, "remote: tls: ", "policy may")
    assert "cipher TLS_" in line and "peer -" in line


def test_a_host_that_proves_itself_gets_mail_and_one_that_does_not_gets_none(pair: Pair) -> None:
    put(pair.here, f"tlshosts/{RELAY}.pem", Authority("Foreign").issue("x", ("x",)).certificate)
    pair.here.restart()
    before = len(pair.there.wait_mails("carol", 0))
    send(pair.here, b"Subject: waits\r\n\r\nx\r\n")
    line = logged(pair.here, "deferral: ", "TLS_failed:")
    assert f"there_is_a_file_control/tlshosts/{RELAY}.pem" in line and "(#4.7.5)" in line
    assert len(pair.there.wait_mails("carol", 0)) == before
    put(pair.here, f"tlshosts/{RELAY}.pem", CERTIFICATE.certificate)
    pair.here.restart()
    pair.here.run("queue", "flush")
    pair.here.wait_empty()
    logged(pair.here, "remote: tls: ", "policy verify", f"peer {RELAY}")
    assert len(pair.there.wait_mails("carol", before + 1)) == before + 1
    put(pair.here, f"tlshosts/{RELAY}.pem", None)


def test_a_host_without_tls_gets_no_mail_where_that_is_asked_for(pair: Pair) -> None:
    """It says why, and `why` says so beforehand."""
    if not isinstance(pair.there, Postfix):
        pytest.skip("the same for all")
    plain = Postfix(pair.here.path.parent / "plain", "c.example", ["dave"])
    with plain:
        routes = f"b.example:{RELAY}:{pair.there.port}\nc.example:{RELAY}:{plain.port}"
        pair.here.control("smtproutes", routes)
        pair.here.control("tlspolicy", "c.example encrypt")
        pair.here.restart()
        said = pair.here.run("why", "dave@c.example").stdout
        assert "control/tlspolicy line 1" in said and "encrypt, never without TLS" in said
        send(pair.here, b"Subject: x\r\n\r\nx\r\n", to="dave@c.example")
        line = logged(pair.here, "deferral: ", "does_not_offer_STARTTLS")
        assert "control/tlspolicy_says_encrypt_for_c.example" in line
        pair.here.control("tlspolicy", None)
        pair.here.restart()
        pair.here.run("queue", "flush")
        plain.wait_mails("dave", 1)


class Names:
    """Says by UDP that every host is on loopback."""

    def __enter__(self) -> "Names":
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self) -> None:
        while True:
            data, peer = self._socket.recvfrom(4096)
            if not data:
                return
            end = data.index(b"\0", 12) + 5
            found = (
                b"\xc0\x0c\0\x01\0\x01\0\0\1\0\0\4\x7f\0\0\1" if data[end - 4 : end - 2] == b"\0\1" else b""
            )
            head = data[:2] + b"\x81\x80\0\1" + (b"\0\1" if found else b"\0\0") + b"\0\0\0\0"
            self._socket.sendto(head + data[12:end] + found, peer)

    def __exit__(self, *_: object) -> None:
        self._socket.sendto(b"", self._socket.getsockname())


def test_the_systems_authorities_are_believed_behind_walls(
    monkeypatch: pytest.MonkeyPatch, program: Program
) -> None:
    """They are links in a folder, which lead out of it, as on Debian without the bundle."""
    if why := postfix.why_not():
        pytest.skip(why)
    with Place() as place, Names() as names:
        elsewhere, folder = place.path / "share" / "ca.crt", place.path / "certs"
        for made in (elsewhere.parent, folder):
            made.mkdir(mode=0o755)
        elsewhere.write_bytes(AUTHORITY.certificate)
        hashing = [program("openssl"), "x509", "-hash", "-noout", "-in", str(elsewhere)]
        said = subprocess.run(hashing, capture_output=True, text=True, check=True)
        (folder / f"{said.stdout.strip()}.0").symlink_to(elsewhere)
        monkeypatch.setenv("SSL_CERT_DIR", str(folder))
        monkeypatch.setenv("SSL_CERT_FILE", str(place.path / "none"))
        here = place.home("a.example", "alice")
        here.control("resolvers", f"127.0.0.1:{names.port}")
        here.control("tlspolicy", "b.example verify")
        there = Postfix(place.path / "there", "b.example", ["carol"], settings=with_tls(place.path))
        here.control("smtproutes", f"b.example:mx.b.example:{there.port}")
        with there:
            here.start()
            send(here, b"Subject: x\r\n\r\nx\r\n")
            logged(here, "remote: tls: ", "policy verify", "sni mx.b.example", "peer mx.b.example")
            there.wait_mails("carol", 1)
            here.control("tlspolicy", "b.example secure")  # which is the same for a relay
            here.control("smtproutes", f"b.example:other.example:{there.port}")
            here.restart()
            send(here, b"Subject: x\r\n\r\nx\r\n")
            line = logged(here, "deferral: ", "is_not_for_other.example_but_for_mx.b.example")
            assert "control/tlspolicy_says_secure_for_b.example" in line


# --- AUTH ---------------------------------------------------------------------------------------

PASSWORD = "p]w rd with % blanks"


@pytest.fixture(scope="module", params=["plain", "login", "cram-md5", "scram-sha-256", "all"])
def relayed(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """`there` takes mail from joe alone, and a password under TLS alone."""
    if why := postfix.why_not() or dovecot_auth.why_not():
        pytest.skip(why)
    everything = "plain login cram-md5 scram-sha-256"
    mechanisms = everything if request.param == "all" else request.param
    with Place() as place, DovecotAuth(place.path / "sasl", {"joe": PASSWORD}, mechanisms) as sasl:
        settings = with_tls(place.path, **sasl.settings, smtpd_tls_auth_only="yes")
        there = Postfix(place.path / "there", "b.example", ["carol"], settings=settings)
        here = place.home("a.example", "alice")
        here.control("smtproutes", f"b.example:{RELAY}:{there.port}")
        put(here, f"tlshosts/{RELAY}.pem", CERTIFICATE.certificate)
        put(here, "credentials", f"{RELAY} joe {PASSWORD}\n".encode())
        with there:
            here.start()
            yield Pair(here, there, b"(Authenticated sender: joe)")


def test_postfix_takes_our_login_by_every_mechanism(relayed: Pair) -> None:
    for _ in range(3):
        send(relayed.here, b"Subject: x\r\n\r\nx\r\n")
    relayed.here.wait_empty()
    for mail in relayed.there.wait_mails("carol", 3):
        assert relayed.sign in mail and b"using TLSv1.3" in mail
    assert PASSWORD not in relayed.here.tail(1 << 20)


def test_a_wrong_password_is_told_and_mail_waits(relayed: Pair) -> None:
    put(relayed.here, "credentials", f"{RELAY} joe {PASSWORD}x\n".encode())
    relayed.here.restart()
    send(relayed.here, b"Subject: waits\r\n\r\nx\r\n")
    line = logged(relayed.here, "deferral: ", "login_was_rejected")
    assert "535" in line or "cannot_prove" in line
    assert relayed.here.queue()
    put(relayed.here, "credentials", f"{RELAY} joe {PASSWORD}\n".encode())
    relayed.here.restart()
    relayed.here.run("queue", "flush")
    relayed.here.wait_empty()


def test_our_own_server_takes_our_login_bound_to_the_connection() -> None:
    """By SCRAM-SHA-256-PLUS."""
    with Place() as place:
        there = place.home("a.example", "alice", "bob")
        prepare(there, free_port(), place.path / "files")
        there.start()
        here = place.home("c.example", "carol")
        here.control("smtproutes", f"a.example:{RELAY}:{there.port}")
        pem = (there.path / "control" / "servercert.pem").read_bytes()
        put(here, f"tlshosts/{RELAY}.pem", pem[pem.index(b"-----BEGIN CERTIFICATE") :])
        put(here, "credentials", f"{RELAY} alice {SUBMITTED}\n".encode())
        here.start()
        send(here, b"From: alice@a.example\r\nSubject: x\r\n\r\nx\r\n", to="bob@a.example")
        there.wait_mails("bob", 1)
        assert b"with ESMTPSA" in there.mails("bob")[0].replace(b"\n", b"")
        logged(there, "auth: accepted <alice>", "SCRAM-SHA-256-PLUS", "tls yes")


# --- openssl ------------------------------------------------------------------------------------


def test_a_host_that_wants_to_renegotiate_is_refused(program: Program) -> None:
    """openssl's server asks for it at a line `r`; at port 465, where TLS begins with the connection."""
    if os.getuid() != 0:
        pytest.skip("only root may listen at port 465")
    with Place() as place:
        file = place.path / "b.pem"
        file.write_bytes(CERTIFICATE.pem)
        way = ["-accept", "127.0.0.5:465", "-cert", file, "-tls1_2", "-crlf", "-naccept", "1"]
        here = place.home("a.example", "alice")
        here.control("smtproutes", "b.example:[127.0.0.5]:465")
        here.start()
        command, pipe = [program("openssl"), "s_server", *map(str, way)], subprocess.PIPE
        server = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)
        assert server.stdin is not None and server.stdout is not None
        heard = b""
        while b"ACCEPT" not in heard:
            heard += server.stdout.readline()
        send(here, b"Subject: x\r\n\r\nx\r\n")
        logged(here, "remote: tls: ", "tls TLSv1.2", "127.0.0.5:465")
        server.stdin.write(b"r\n")
        server.stdin.flush()
        while b"SSL_do_handshake" not in (line := server.stdout.readline()):
            assert line, "the server ended"
        said = server.communicate(timeout=60)[0]
        assert b"1 server renegotiates" in said and b"1 server accepts that finished" in said, said
        assert here.queue()  # it said nothing of SMTP
