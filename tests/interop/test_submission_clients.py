"""What people write mail with submits it: curl, s-nail and mutt log in over TLS."""

import os
import smtplib
import ssl
import subprocess
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from homes import Place, Waiting, free_port
from submitting import PASSWORD, Served, home_user, prepare

Program = Callable[[str], str]
LETTER = b"From: alice@a.example\r\nBcc: secret@a.example\r\nSubject: %s\r\n\r\nhello\r\n"


TOKENS = """\
#!/bin/sh
# Says whether a token is good, as a checkpassword program says it of a password.
{ tr '\\0' '\\n' <&3; } | {
    read -r login && read -r token
    [ "$login:$token" = "alice:a.token.of-alice" ] && exit 0
    exit 1
}
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Place() as place:
        home, submissions = place.home("a.example", "alice", "bob"), free_port()
        prepare(home, submissions, place.path / "files")
        tokens = place.path / "files" / "tokens"
        tokens.write_text(TOKENS)
        tokens.chmod(0o755)
        home.control("checktoken", str(tokens))
        home_user(home, "add", "carol", "carols", "--plain")
        home.start()
        yield Served(home, submissions, place.path / "files")
        assert home.stop() == 0


def run(served: Served, *command: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    known = {"LC_ALL": "C.UTF-8", "HOME": str(served.folder), "SSL_CERT_FILE": str(served.folder / "ca.pem")}
    return subprocess.run(
        [str(word) for word in command],
        input=stdin,
        capture_output=True,
        timeout=60,
        env={**os.environ, **known},
    )


def arrived(served: Served, subject: str) -> bytes:
    """Bob's mail of that subject, which was completed on its way."""
    line = f"Subject: {subject}\n".encode()
    for _ in Waiting("the mail is there"):
        found = [mail for mail in served.home.mails("bob") if line in mail]
        if found:
            break
    [mail] = found
    header = mail.partition(b"\n\n")[0]
    assert b" with ESMTPSA tls " in header.replace(b"\n ", b"")
    assert b"\nDate: " in header and b"\nMessage-I" in header and b"Bcc:" not in header
    return mail


def offered(served: Served) -> list[str]:
    context = ssl.create_default_context(cafile=str(served.folder / "ca.pem"))
    context.check_hostname = False
    with smtplib.SMTP_SSL("127.0.0.1", served.submissions, timeout=60, context=context) as client:
        client.ehlo()
        return client.esmtp_features["auth"].lower().split()


CURL = {
    "PLAIN": ["--user", f"alice:{PASSWORD}"],
    "LOGIN": ["--user", f"alice:{PASSWORD}"],
    "CRAM-MD5": ["--user", "carol:carols"],
    "XOAUTH2": ["--user", "alice", "--oauth2-bearer", "a.token.of-alice"],
    "OAUTHBEARER": ["--user", "alice", "--oauth2-bearer", "a.token.of-alice"],
}


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize("mechanism", CURL)
def test_curl_logs_in_and_submits(served: Served, program: Program, scheme: str, mechanism: str) -> None:
    port = served.submissions if scheme == "smtps" else served.home.port
    subject = f"curl {scheme} {mechanism}"
    (served.folder / "letter").write_bytes(LETTER % subject.encode())
    *words, right = CURL[mechanism]
    for who, code in ((right, 0), (f"{right}x", 67)):  # login denied
        ran = run(
            served, program("curl"), "--silent", "--show-error", "--ssl-reqd", "--cacert",
            served.folder / "ca.pem", "--resolve", f"a.example:{port}:127.0.0.1",
            f"{scheme}://a.example:{port}/c.example", *words, who,
            "--login-options", f"AUTH={mechanism}", "--mail-from", "alice@a.example",
            "--mail-rcpt", "bob@a.example", "--upload-file", served.folder / "letter",
        )  # fmt: skip
        assert ran.returncode == code, ran.stderr.decode()
    arrived(served, subject)


@pytest.mark.parametrize("mechanism", ["plain", "login", "cram-md5"])
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_s_nail_logs_in_and_submits(served: Served, program: Program, scheme: str, mechanism: str) -> None:
    port = served.submissions if scheme == "smtps" else served.home.port
    login, password = ("carol", "carols") if mechanism == "cram-md5" else ("alice", quote(PASSWORD))
    subject = f"s-nail {scheme} {mechanism}"
    settings = {
        "v15-compat": "yes",
        "mta": f"{scheme}://{login}:{password}@localhost:{port}",
        "smtp-auth": mechanism,
        "smtp-use-starttls": "yes",
        "tls-ca-file": str(served.folder / "ca.pem"),
        "tls-verify": "ignore",  # it is asked for by another name
        "DEAD": "/dev/null",
    }
    command = [program("s-nail"), "-:/"]
    command += [part for name, value in settings.items() for part in ("-S", f"{name}={value}")]
    command += ["-r", "alice@a.example", "-s", subject, "-b", "alice@a.example", "bob@a.example"]
    ran = run(served, *command, stdin=b"hello\n")
    assert ran.returncode == 0, ran.stderr.decode()
    arrived(served, subject)


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize("mechanism", ["plain", "login", "scram-sha-256"])
def test_mutt_logs_in_and_submits(served: Served, program: Program, scheme: str, mechanism: str) -> None:
    port = served.submissions if scheme == "smtps" else served.home.port
    subject = f"mutt {scheme} {mechanism}"
    settings = {
        "smtp_url": f"{scheme}://alice@localhost:{port}",
        "smtp_pass": PASSWORD,
        "smtp_authenticators": mechanism,
        "ssl_starttls": "yes",
        "ssl_force_tls": "yes",
        "certificate_file": str(served.folder / "ca.pem"),
        "ssl_verify_host": "no",
        "from": "alice@a.example",
        "copy": "no",
        "record": "",
    }
    rc = served.folder / "muttrc"
    rc.write_text("".join(f'set {name}="{value}"\n' for name, value in settings.items()))
    command = [program("mutt"), "-n", "-F", rc, "-s", subject, "-b", "alice@a.example", "bob@a.example"]
    ran = run(served, *command, stdin=b"hello\n")
    if b"No authenticators available" in ran.stdout + ran.stderr:  # it says so too where we offer none
        assert mechanism in offered(served), "it is not offered"
        pytest.skip(f"this mutt has no {mechanism}")
    assert ran.returncode == 0, (ran.stdout + ran.stderr).decode()
    arrived(served, subject)
