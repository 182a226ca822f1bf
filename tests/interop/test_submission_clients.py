"""What people write mail with submits it: curl, s-nail, mutt and Postfix log in over TLS."""

import os
import smtplib
import ssl
import subprocess
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path
from urllib.parse import quote

import pytest

import postfix
from homes import Place, Waiting, free_port
from postfix import Postfix
from submitting import PASSWORD, Served, home_user, prepare

Program = Callable[[str], str]
LETTER = b"From: alice@a.example\r\nBcc: secret@a.example\r\nSubject: %s\r\n\r\nhello\r\n"

CYRUS = glob("/usr/lib/*/sasl2")
"""Where Debian has the mechanisms of Cyrus SASL."""

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
    ran = mutt(served, program("mutt"), f"{scheme}://alice@localhost:{port}", subject, mechanism)
    if b"No authenticators available" in ran.stdout + ran.stderr:  # it says so too where we offer none
        assert mechanism in offered(served), "it is not offered"
        pytest.skip(f"this mutt has no {mechanism}")
    assert ran.returncode == 0, (ran.stdout + ran.stderr).decode()
    arrived(served, subject)


def mutt(
    served: Served, path: str, url: str, subject: str, mechanism: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    """`mechanism` None: the one that it takes by itself."""
    settings = {
        "smtp_url": url,
        "smtp_pass": PASSWORD,
        "ssl_starttls": "yes",
        "ssl_force_tls": "yes",
        "certificate_file": str(served.folder / "ca.pem"),
        "ssl_verify_host": "no",
        "from": "alice@a.example",
        "copy": "no",
        "record": "",
    }
    if mechanism is not None:
        settings["smtp_authenticators"] = mechanism
    rc = served.folder / "muttrc"
    rc.write_text("".join(f'set {name}="{value}"\n' for name, value in settings.items()))
    command = [path, "-n", "-F", rc, "-s", subject, "-b", "alice@a.example", "bob@a.example"]
    return run(served, *command, stdin=b"hello\n")


# --- programs that choose by themselves -----------------------------------------------------------


WITHOUT_PLUS = "SCRAM-SHA-256 PLAIN LOGIN"
both = pytest.mark.parametrize("chosen", ["", WITHOUT_PLUS], ids=["all", "without plus"], indirect=True)


@pytest.fixture(scope="module")
def chosen(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Logins as `user add` makes them; the parameter is what control/authmechanisms says."""
    with Place() as place:
        home, submissions = place.home("a.example", "alice", "bob"), free_port()
        prepare(home, submissions, place.path / "files", request.param)
        home_user(home, "add", "carol", "carols", "--plain")  # CRAM-MD5 would serve her alone
        home.start()
        yield Served(home, submissions, place.path / "files")
        assert home.stop() == 0


@both
def test_curl_as_it_comes_logs_in(chosen: Served, program: Program) -> None:
    served = chosen
    (served.folder / "letter").write_bytes(LETTER % b"curl")
    ran = run(
        served, program("curl"), "--silent", "--show-error", "--ssl-reqd", "--cacert",
        served.folder / "ca.pem", "--resolve", f"a.example:{served.submissions}:127.0.0.1",
        f"smtps://a.example:{served.submissions}/c.example", "--user", f"alice:{PASSWORD}",
        "--mail-from", "alice@a.example", "--mail-rcpt", "bob@a.example", "--upload-file",
        served.folder / "letter",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr.decode()
    arrived(served, "curl")


@pytest.mark.parametrize("chosen", [WITHOUT_PLUS], ids=["without plus"], indirect=True)
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_mutt_as_it_comes_logs_in_where_plus_is_left_out(
    chosen: Served, program: Program, scheme: str
) -> None:
    """GNU SASL takes -PLUS where it is offered, and then has no tls-exporter for it."""
    served = chosen
    port = served.submissions if scheme == "smtps" else served.home.port
    ran = mutt(served, program("mutt"), f"{scheme}://alice@localhost:{port}", f"mutt {scheme}")
    assert ran.returncode == 0, (ran.stdout + ran.stderr).decode()
    arrived(served, f"mutt {scheme}")


@both
def test_postfix_as_it_comes_logs_in(chosen: Served) -> None:
    """Cyrus SASL's SCRAM takes no verifier of more than 65,536 iterations, and it tries nothing else then."""
    if why := postfix.why_not():
        pytest.skip(why)
    served = chosen
    folder = served.folder.parent / "postfix"
    settings = {
        "smtp_sasl_auth_enable": "yes",
        "smtp_sasl_security_options": "noanonymous",
        "smtp_sasl_password_maps": f"inline:{{ {{ [127.0.0.1]:{served.home.port} = alice:{PASSWORD} }} }}",
        "smtp_tls_security_level": "encrypt",
    }
    routes = {"a.example": served.home.port}
    with Postfix(folder, "b.example", [], routes, settings) as there:
        with smtplib.SMTP("127.0.0.1", there.port, timeout=60) as client:
            client.sendmail("alice@a.example", ["bob@a.example"], b"Subject: Postfix\r\n\r\nx\r\n")
        there.wait_empty()
        assert "status=sent" in there.said(), there.said()[-2000:]
    arrived(served, "Postfix")
    taken = "SCRAM-SHA-256" if any(Path(one, "libscram.so").exists() for one in CYRUS) else "PLAIN"
    assert f" service submission mechanism {taken} tls yes\n" in served.home.log.read_text()
