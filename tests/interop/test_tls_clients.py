"""Real clients speak TLS with us: openssl, swaks, curl, and Postfix on its way to us."""

import os
import signal
import smtplib
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

import postfix
from certificates import Authority
from homes import Home, Place, Waiting, free_port
from postfix import Postfix
from system_homes import system_home

Program = Callable[[str], str]

AUTHORITY = Authority()


class Served(NamedTuple):
    """`smtps`: the port of implicit TLS; `folder` has `ca.pem`, and `client.pem` of alice's."""

    home: Home
    smtps: int
    folder: Path


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """a.example, which b.example is served under its own certificate; 127.0.0.2 may not relay."""
    with Place() as place:
        home, smtps = place.home("a.example", "alice", "bob"), free_port()
        home.control("listen", f"smtp 127.0.0.1:{home.port}\nsmtps 127.0.0.1:{smtps}")
        home.control("rules", '127.0.0.2:allow\n127.:allow,RELAYCLIENT=""')
        home.control("tlsclients", "alice@a.example")
        for name, content in {
            "servercert.pem": AUTHORITY.issue(hosts=("a.example",)).pem,
            "certs/b.example.pem": AUTHORITY.issue(hosts=("b.example",)).pem,
            "clientca.pem": AUTHORITY.certificate,
        }.items():
            put(home, name, content)
        folder = place.path / "files"
        folder.mkdir()
        (folder / "ca.pem").write_bytes(AUTHORITY.certificate)
        (folder / "client.pem").write_bytes(AUTHORITY.issue(mailboxes=("alice@a.example",)).pem)
        (folder / "mail").write_bytes(b"Subject: x\r\n\r\nhello\r\n")
        home.start()
        yield Served(home, smtps, folder)
        assert home.stop() == 0


def put(home: Home, name: str, content: bytes) -> None:
    """A file of control/, its owner's, replaced as a careful program does it."""
    path = home.path / "control" / name
    path.parent.mkdir(exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    new.chmod(0o644)  # whoever owns the home reads it; no key of these is a secret
    new.rename(path)


def run(*command: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(word) for word in command], input=stdin, capture_output=True, timeout=60)


def s_client(program: Program, served: Served, *options: object, stdin: bytes = b"QUIT\r\n") -> str:
    ran = run(
        program("openssl"), "s_client", "-CAfile", served.folder / "ca.pem", "-verify_return_error", "-crlf",
        *options, stdin=stdin,
    )  # fmt: skip
    return (ran.stdout + ran.stderr).decode("utf-8", "replace")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_verifies_us_by_both_versions(served: Served, program: Program, version: str) -> None:
    way = ["-starttls", "smtp", "-connect", f"127.0.0.1:{served.home.port}"]
    said = s_client(
        program, served, *way, version, "-verify_hostname", "a.example", "-servername", "a.example"
    )
    assert "Verify return code: 0 (ok)" in said


def test_openssl_gets_the_certificate_of_the_name_that_it_asks_for(served: Served, program: Program) -> None:
    for name in ("a.example", "b.example"):
        way = ["-connect", f"127.0.0.1:{served.smtps}", "-servername", name, "-verify_hostname", name]
        assert "Verify return code: 0 (ok)" in s_client(program, served, *way)


def test_openssl_agrees_on_smtp_by_alpn(served: Served, program: Program) -> None:
    way = ["-connect", f"127.0.0.1:{served.smtps}", "-alpn", "h2,smtp"]
    assert "ALPN protocol: smtp" in s_client(program, served, *way)


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_openssl_finds_no_old_version(served: Served, program: Program, version: str) -> None:
    way = ["-connect", f"127.0.0.1:{served.smtps}", version, "-cipher", "ALL:@SECLEVEL=0"]
    said = s_client(program, served, *way)
    assert "no peer certificate available" in said and "220 " not in said


def test_openssl_may_not_renegotiate(served: Served, program: Program) -> None:
    """An `R` at the beginning of a line asks for it, in TLS 1.2."""
    way = ["-connect", f"127.0.0.1:{served.smtps}", "-tls1_2"]
    command, pipe = [program("openssl"), "s_client", *way], subprocess.PIPE
    ran = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)
    assert ran.stdin is not None and ran.stdout is not None
    heard = b""
    while b"220 " not in heard:
        heard += ran.stdout.readline()
    ran.stdin.write(b"R\n")
    ran.stdin.flush()
    rest = ran.communicate(timeout=60)[0]
    assert b"RENEGOTIATING" in rest and b"no renegotiation" in rest


def test_openssl_resumes_a_session(served: Served, program: Program) -> None:
    kept = served.folder / "session"
    way = ["-connect", f"127.0.0.1:{served.smtps}", "-tls1_2"]
    assert "New, TLS" in s_client(program, served, *way, "-sess_out", kept)
    assert "Reused, TLS" in s_client(program, served, *way, "-sess_in", kept)


@pytest.mark.parametrize("mode", ["--tls", "--tlsc"])
def test_swaks_sends_by_starttls_and_by_implicit_tls(served: Served, program: Program, mode: str) -> None:
    port = served.smtps if mode == "--tlsc" else served.home.port
    ran = run(
        program("swaks"), mode, "--server", f"127.0.0.1:{port}", "--helo", "c.example",
        "--from", "s@c.example", "--to", "bob@a.example", "--header", f"Subject: {mode}",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout.decode()
    for _ in Waiting("the mail is there"):
        found = [mail for mail in served.home.mails("bob") if f"Subject: {mode}\n".encode() in mail]
        if found:
            break
    assert b" with ESMTPS tls TLS_" in found[0] and b"(TLSv1.3);" in found[0].replace(b"\n ", b"")


def test_swaks_relays_with_a_certificate_and_not_without(served: Served, program: Program) -> None:
    told = [
        program("swaks"), "--tls", "--server", f"127.0.0.1:{served.home.port}", "--helo", "c.example",
        "--local-interface", "127.0.0.2", "--from", "s@c.example", "--to", "far@away.example",
        "--quit-after", "RCPT",
    ]  # fmt: skip
    assert run(*told).returncode == 24  # no recipient was taken
    mine = served.folder / "client.pem"
    ran = run(*told, "--tls-cert", mine, "--tls-key", mine)
    assert ran.returncode == 0, ran.stdout.decode()


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_curl_verifies_us_and_sends(served: Served, program: Program, scheme: str) -> None:
    port = served.smtps if scheme == "smtps" else served.home.port
    before = len(served.home.mails("alice"))
    ran = run(
        program("curl"), "--silent", "--show-error", "--ssl-reqd", "--cacert", served.folder / "ca.pem",
        "--resolve", f"a.example:{port}:127.0.0.1", f"{scheme}://a.example:{port}/c.example",
        "--mail-from", "s@c.example", "--mail-rcpt", "alice@a.example",
        "--upload-file", served.folder / "mail",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr.decode()
    assert b"ESMTPS" in served.home.wait_mails("alice", before + 1)[-1]


def test_postfix_that_verifies_sends_by_tls(served: Served) -> None:
    """Level `secure`: no mail without TLS, nor to another than a.example."""
    if why := postfix.why_not():
        pytest.skip(why)
    settings = {
        "smtp_tls_security_level": "secure",
        "smtp_tls_secure_cert_match": "a.example",
        "smtp_tls_CAfile": served.folder / "ca.pem",
        "smtp_tls_loglevel": 1,
    }
    before = len(served.home.mails("alice"))
    routes = {"a.example": served.home.port}
    with Place() as place, Postfix(place.path / "postfix", "b.example", ["carol"], routes, settings) as there:
        with smtplib.SMTP("127.0.0.1", there.port) as client:
            client.sendmail("carol@b.example", ["alice@a.example"], b"Subject: verified\r\n\r\nx\r\n")
        mails = served.home.wait_mails("alice", before + 1)
        assert "Verified TLS connection established to 127.0.0.1" in there.said()
    assert any(b"Subject: verified" in mail and b" with ESMTPS tls " in mail for mail in mails)


def test_the_log_says_which_tls_it_was(served: Served) -> None:
    with smtplib.SMTP("127.0.0.1", served.home.port, "logged.example") as client:
        client.starttls(context=believer())
        client.ehlo()
    for _ in Waiting("the session is in the log"):
        lines = [one for one in served.home.log.read_text().splitlines() if "helo logged.example" in one]
        if lines:
            break
    assert lines[0].endswith(" tls TLSv1.3 cipher TLS_AES_256_GCM_SHA384 sni - peer -")


def believer() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


# --- new certificates ---------------------------------------------------------------------


def shown(port: int) -> bytes:
    """The certificate that a client gets."""
    with suppress(smtplib.SMTPException), smtplib.SMTP("127.0.0.1", port) as client:  # 421 of one that leaves
        client.starttls(context=believer())
        assert isinstance(client.sock, ssl.SSLSocket)
        return client.sock.getpeercert(binary_form=True) or b""
    return b""


def test_a_new_certificate_is_served_and_a_message_under_way_is_not_disturbed() -> None:
    with Place() as place:
        home = place.home("a.example", "alice")
        home.start()
        first = shown(home.port)
        with smtplib.SMTP("127.0.0.1", home.port) as old:
            old.starttls(context=believer())
            old.ehlo("c.example")
            old.mail("s@c.example")
            old.rcpt("alice@a.example")
            renewed = AUTHORITY.issue(hosts=("a.example",))
            put(home, "servercert.pem", renewed.pem)
            home.signal(signal.SIGHUP)
            for _ in Waiting("the new certificate is shown"):
                if shown(home.port) == renewed.der:
                    break
            assert renewed.der != first
            assert old.data(b"Subject: x\r\n\r\nx\r\n")[0] == 250
            old.close()
        assert home.stop() == 0


def test_a_certificate_that_is_replaced_is_noticed_without_a_word() -> None:
    with Place() as place:
        home = place.home("a.example", "alice")
        home.start()
        renewed = AUTHORITY.issue(hosts=("a.example",))
        put(home, "servercert.pem", renewed.pem)
        for _ in Waiting("it is noticed", 90, 1.0):
            if "the certificates have changed" in home.log.read_text():
                break
        for _ in Waiting("the new certificate is shown"):
            if shown(home.port) == renewed.der:
                break
        assert home.stop() == 0


def test_one_that_cannot_be_served_leaves_the_old_one_in_place() -> None:
    with Place() as place:
        home = place.home("a.example", "alice")
        home.start()
        first = shown(home.port)
        put(home, "servercert.pem", AUTHORITY.issue(hosts=("a.example",)).key)
        home.signal(signal.SIGHUP)
        for _ in Waiting("it is told"):
            if (
                "the settings stay as they were: control/servercert.pem: has no certificate"
                in home.log.read_text()
            ):
                break
        assert shown(home.port) == first
        assert home.run("control", "check", check=False).returncode == 100
        assert home.stop() == 0


def test_a_start_with_one_that_cannot_be_served_stops_with_its_name() -> None:
    with Place() as place:
        home = place.home("a.example", "alice")
        put(home, "servercert.pem", AUTHORITY.issue(hosts=("a.example",)).encrypted())
        ran = home.run("run", check=False)
        assert ran.returncode == 100 and "control/servercert.pem: its key is encrypted" in ran.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a home of root's")
def test_a_home_of_roots_serves_a_key_that_no_process_can_read_again() -> None:
    with system_home("alice") as home:
        home.start()
        path = home.path / "control" / "servercert.pem"
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, 0o400)
        assert shown(home.port)
        status = Path(f"/proc/{home.pids()['smtpd']}/status").read_text()
        assert f"Uid:\t{home.account('smtpd').pw_uid}\t" in status
        renewed = AUTHORITY.issue(hosts=("a.example",))
        new = path.with_name("new")
        new.write_bytes(renewed.pem)
        new.chmod(0o400)
        new.rename(path)
        home.signal(signal.SIGHUP)
        for _ in Waiting("the new certificate is shown"):
            if shown(home.port) == renewed.der:
                break
        os.chown(path, home.account("smtpd").pw_uid, -1)
        home.signal(signal.SIGHUP)  # somebody else could say which key is served
        for _ in Waiting("it is told"):
            if f"{path} belongs to" in home.log.read_text():
                break
        assert shown(home.port) == renewed.der
