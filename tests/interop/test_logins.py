"""Real clients log in: swaks and msmtp by every mechanism over TLS; checkpassword programs in sh, Perl and C.

Passwords are checked behind gate's walls, in an owner's home and, as root, in a home of root's with
Debian's checkpw.
"""

import base64
import os
import shutil
import signal
import smtplib
import ssl
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from homes import Home, Place, Waiting, free_port
from submitting import AUTHORITY, PASSWORD, Served, home_user, prepare
from system_homes import SystemHome, system_home

Program = Callable[[str], str]

SH = """\
#!/bin/sh
# A checkpassword program: dave, with an environment and arguments that a test looks at.
{ tr '\\0' '\\n' <&3; } | {
    read -r login && read -r password
    case "$login:$password" in
    'dave:said in sh') exit 0 ;;
    'ill:'*) exit 111 ;;
    'misused:'*) exit 2 ;;
    'dead:'*) kill -9 $$ ;;
    'seen:'*)
        tr '\\0' '\\n' </proc/self/environ >"$1/environ"
        tr '\\0' ' ' </proc/$$/cmdline >"$1/cmdline"
        id -u >"$1/uid"
        exit 0 ;;
    esac
    exit 1
}
"""
PERL = """\
#!/usr/bin/perl
use strict;
open(my $in, "<&=", 3) or exit 2;
local $/;
my ($login, $password, $time) = split /\\0/, <$in>;
close $in;
exit 111 if $login eq "ill";
exit 1 unless $login eq "dave" && $password eq "said in sh";
exec @ARGV or exit 111;
"""
C = r"""
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    char said[513];
    int size = 0, got;
    while ((got = read(3, said + size, sizeof said - size)) > 0)
        if ((size += got) == sizeof said) _exit(1);
    close(3);
    char *login = said, *password = login + strlen(login) + 1;
    if (argc < 2) _exit(2);
    if (!strcmp(login, "ill")) _exit(111);
    if (strcmp(login, "dave") || strcmp(password, "said in sh")) _exit(1);
    execvp(argv[1], argv + 1);
    _exit(111);
}
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Place() as place:
        home, submissions = place.home("a.example", "alice", "bob"), free_port()
        folder = place.path / "files"
        prepare(home, submissions, folder)
        home_user(home, "add", "carol", "carols", "--plain")
        home.start()
        yield Served(home, submissions, folder)
        assert home.stop() == 0


def context() -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=AUTHORITY.certificate.decode())
    made.check_hostname = False
    return made


def attempt(port: int, login: str, password: str, mechanism: str = "PLAIN", implicit: bool = False) -> int:
    """The code that AUTH ends with, as smtplib does it."""
    if implicit:
        client: Any = smtplib.SMTP_SSL("127.0.0.1", port, timeout=60, context=context())
    else:
        client = smtplib.SMTP("127.0.0.1", port, timeout=60)
        client.starttls(context=context())
    with client:
        client.ehlo()
        client.user, client.password = login, password
        way = getattr(client, "auth_" + mechanism.lower().replace("-", "_"))
        try:
            return int(client.auth(mechanism, way)[0])
        except smtplib.SMTPAuthenticationError as refused:
            return int(refused.smtp_code)


def swaks(program: Program, served: Served, login: str, password: str, mechanism: str, *more: str) -> int:
    mode, port = ("--tlsc", served.submissions) if "--tlsc" in more else ("--tls", served.home.port)
    ran = subprocess.run(
        [
            program("swaks"), mode, "--server", f"127.0.0.1:{port}", "--helo", "c.example",
            "--auth", mechanism, "--auth-user", login, "--auth-password", password,
            "--from", f"{login}@a.example", "--to", "bob@a.example",
            "--header", f"Subject: {mechanism} {mode}", "--body", "x",
        ],
        capture_output=True, timeout=90, check=False,
    )  # fmt: skip
    return ran.returncode


@pytest.mark.parametrize("mode", ["--tls", "--tlsc"])
@pytest.mark.parametrize(
    ("mechanism", "login", "password"),
    [("PLAIN", "alice", PASSWORD), ("LOGIN", "alice", PASSWORD), ("CRAM-MD5", "carol", "carols")],
)
def test_swaks_logs_in_by_each_of_its_mechanisms(
    served: Served, program: Program, mechanism: str, login: str, password: str, mode: str
) -> None:
    assert swaks(program, served, login, password, mechanism, mode) == 0
    subject = f"Subject: {mechanism} {mode}\n".encode()
    for _ in Waiting("the mail is there"):
        found = [mail for mail in served.home.mails("bob") if subject in mail]
        if found:
            break
    assert b" with ESMTPSA tls " in found[0].replace(b"\n ", b"")
    assert swaks(program, served, login, "another", mechanism, mode) == 28  # AUTH failed


@pytest.mark.parametrize("words", [["--tls-optional"], ["--tls-optional-strict"]], ids=" ".join)
@pytest.mark.parametrize("auth", ["--auth", "--auth-optional", "--auth-optional-strict"])
def test_swaks_that_would_do_without_has_tls_and_a_login_where_they_are_offered(
    served: Served, program: Program, words: list[str], auth: str
) -> None:
    subject = " ".join([*words, auth])
    command = [
        program("swaks"), *words, "--server", f"127.0.0.1:{served.home.port}", "--helo", "c.example",
        auth, "PLAIN", "--auth-user", "alice", "--from", "alice@a.example", "--to", "bob@a.example",
        "--header", f"Subject: {subject}", "--body", "x", "--auth-password",
    ]  # fmt: skip
    ran = subprocess.run([*command, PASSWORD], capture_output=True, timeout=90, check=False)
    assert ran.returncode == 0, ran.stdout.decode()
    for _ in Waiting("the mail is there"):
        found = [mail for mail in served.home.mails("bob") if f"Subject: {subject}\n".encode() in mail]
        if found:
            break
    assert b" with ESMTPSA tls " in found[0].replace(b"\n ", b"")
    ran = subprocess.run([*command, "another"], capture_output=True, timeout=90, check=False)
    assert ran.returncode == (23 if auth == "--auth-optional" else 28)  # it goes on, and MAIL wants a login


@pytest.mark.parametrize(
    ("auth", "code"), [("--auth", 28), ("--auth-optional", 0), ("--auth-optional-strict", 0)]
)
@pytest.mark.parametrize("words", [[], ["--tls-optional"], ["--tls-optional-strict"]], ids=" ".join)
def test_swaks_has_no_login_of_a_stranger_where_there_is_no_tls(
    stranger: Home, program: Program, words: list[str], auth: str, code: int
) -> None:
    """Nothing is offered, so no password is sent; mail for who is here is taken as of any stranger."""
    subject = " ".join(["stranger", *words, auth])
    ran = subprocess.run(
        [
            program("swaks"), *words, "--server", f"127.0.0.1:{stranger.port}", "--helo", "c.example",
            auth, "PLAIN", "--auth-user", "alice", "--auth-password", PASSWORD,
            "--from", "s@c.example", "--to", "bob@a.example", "--header", f"Subject: {subject}",
        ],
        capture_output=True, timeout=90, check=False,
    )  # fmt: skip
    said = ran.stdout + ran.stderr
    assert ran.returncode == code, said.decode()
    assert b" -> AUTH" not in said and b" -> STARTTLS" not in said
    if not code:
        for _ in Waiting("the mail is there"):
            found = [mail for mail in stranger.mails("bob") if f"Subject: {subject}\n".encode() in mail]
            if found:
                break
        assert b" with ESMTP; " in found[0]
    assert "auth: " not in stranger.log.read_text()


def test_a_stranger_who_says_auth_all_the_same_where_there_is_no_tls_is_not_heard(stranger: Home) -> None:
    with smtplib.SMTP("127.0.0.1", stranger.port, timeout=60) as client:
        client.ehlo()
        assert "auth" not in client.esmtp_features and "starttls" not in client.esmtp_features
        word = base64.b64encode(b"\0alice\0" + PASSWORD.encode()).decode()
        assert client.docmd("AUTH", f"PLAIN {word}")[0] == 502
        client.mail("alice@a.example")
        assert client.rcpt("far@away.example")[0] == 553


@pytest.fixture(scope="module")
def stranger() -> Iterator[Home]:
    """Port 25 as strangers see it: alice could log in, but there is no certificate."""
    with Place() as place:
        home = place.home("a.example", "alice", "bob")
        (home.path / "control" / "servercert.pem").unlink(missing_ok=True)
        home.control("rules", "127.:allow")
        home_user(home, "add", "alice", PASSWORD)
        home.start()
        yield home
        assert home.stop() == 0


@pytest.mark.parametrize("mechanism", ["plain", "login", "scram-sha-256", "cram-md5"])
@pytest.mark.parametrize("starttls", ["on", "off"])
def test_msmtp_logs_in_by_each_of_its_mechanisms(
    served: Served, program: Program, mechanism: str, starttls: str
) -> None:
    """What this msmtp can do it says itself, so that what we do not offer is no reason to skip."""
    told = subprocess.run([program("msmtp"), "--version"], capture_output=True, text=True, check=True).stdout
    if mechanism not in told.partition("Supported authentication methods:")[2].partition("IDN")[0].split():
        pytest.skip(f"this msmtp has no {mechanism}")
    subject = f"msmtp {mechanism}, starttls {starttls}"
    port = served.home.port if starttls == "on" else served.submissions
    login, password = ("carol", "carols") if mechanism == "cram-md5" else ("alice", PASSWORD)
    for word, code in ((password, 0), ("another", 77)):  # EX_NOPERM
        file = served.folder / "msmtprc"
        file.write_text(
            f"account default\nhost localhost\nport {port}\ntls on\ntls_starttls {starttls}\n"
            f"tls_trust_file {served.folder}/ca.pem\ntls_host_override a.example\nauth {mechanism}\n"
            f"user {login}\npassword {word}\nfrom {login}@a.example\n"
        )
        file.chmod(0o600)
        said = [program("msmtp"), "-C", str(file), "bob@a.example"]
        ran = subprocess.run(
            said, input=f"Subject: {subject}\n\nx\n".encode(), capture_output=True, timeout=60, check=False
        )
        assert ran.returncode == code, ran.stderr.decode()
    for _ in Waiting("the mail is there"):
        found = [mail for mail in served.home.mails("bob") if f"Subject: {subject}\n".encode() in mail]
        if found:
            break
    assert b" with ESMTPSA tls " in found[0].replace(b"\n ", b"")


def test_who_has_just_been_added_can_log_in_and_who_was_removed_no_more(served: Served) -> None:
    assert attempt(served.home.port, "erin", "erins") == 535
    home_user(served.home, "add", "erin", "erins")
    assert attempt(served.home.port, "erin", "erins") == 235
    served.home.run("user", "del", "erin")
    assert attempt(served.home.port, "erin", "erins") == 535


@pytest.mark.parametrize("old", ["$6$abcdefgh$", "$5$abcdefgh$", "$1$abcdefgh$"])
def test_an_old_hash_serves_and_is_strengthened(served: Served, program: Program, old: str) -> None:
    kind, salt = old.strip("$").split("$")
    said = [program("openssl"), "passwd", f"-{kind}", "-salt", salt, "of old"]
    made = subprocess.run(said, capture_output=True, text=True, check=True).stdout.strip()
    assert made.startswith(old)
    file = served.home.path / "users" / "smtpauth"
    with file.open("a") as opened:
        opened.write(f"old{kind}:{made}\n")
    assert attempt(served.home.port, f"old{kind}", "another") == 535
    assert attempt(served.home.port, f"old{kind}", "of old") == 235
    for _ in Waiting("the hash is a strong one"):
        [line] = [one for one in file.read_text().splitlines() if one.startswith(f"old{kind}:")]
        if "$argon2id$" in line and "{SCRAM-SHA-256}" in line:
            break
    assert attempt(served.home.port, f"old{kind}", "of old") == 235


def test_no_password_is_in_the_log(served: Served) -> None:
    attempt(served.home.port, "alice", PASSWORD)
    attempt(served.home.port, "alice", "a guess that nobody shall read")
    text = served.home.log.read_text()
    assert "auth: accepted <alice>: client 127.0.0.1:" in text
    assert "auth: refused <alice>, wrong: client 127.0.0.1:" in text
    assert PASSWORD not in text
    assert "a guess that nobody shall read" not in text


# --- programs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["sh", "perl", "c"])
def checked(request: pytest.FixtureRequest) -> Iterator[tuple[Served, str]]:
    """A home whose passwords only a program knows."""
    with Place() as place:
        home, submissions = place.home("a.example", "alice", "bob"), free_port()
        folder = place.path / "files"
        prepare(home, submissions, folder)
        home.run("user", "del", "alice")
        (folder / "seen").mkdir()
        (folder / "seen").chmod(0o777)
        home.control("checkpassword", f"{build(request.param, folder)} {shutil.which('true')}")
        if request.param == "sh":
            home.control("checkpassword", f"{build(request.param, folder)} {folder}/seen")
        home.start()
        yield Served(home, submissions, folder), request.param
        assert home.stop() == 0


def build(language: str, folder: Path) -> Path:
    made = folder / f"check-{language}"
    if language == "c":
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("there is no C compiler on this machine; as root, .ci/run installs it")
        (folder / "check.c").write_text(C)
        subprocess.run([compiler, "-o", str(made), str(folder / "check.c")], check=True, capture_output=True)
    else:
        if language == "perl" and not os.access("/usr/bin/perl", os.X_OK):
            pytest.skip("there is no Perl on this machine")
        made.write_text(textwrap.dedent(SH if language == "sh" else PERL))
    made.chmod(0o755)
    return made


def test_a_checkpassword_program_lets_in_refuses_and_puts_off(checked: tuple[Served, str]) -> None:
    served, language = checked
    assert attempt(served.home.port, "dave", "said in sh") == 235
    assert attempt(served.submissions, "dave", "said in sh", "LOGIN", implicit=True) == 235
    assert attempt(served.home.port, "dave", "said otherwise") == 535
    assert attempt(served.home.port, "nobody", "said in sh") == 535
    assert attempt(served.home.port, "ill", "x") == 454
    if language == "sh":
        assert attempt(served.home.port, "misused", "x") == 454
        assert attempt(served.home.port, "dead", "x") in (454, 535)  # the shell tells of its own end
    assert "CRAM-MD5" not in extensions(served)


def extensions(served: Served) -> str:
    with smtplib.SMTP_SSL("127.0.0.1", served.submissions, timeout=60, context=context()) as client:
        client.ehlo()
        return str(client.esmtp_features["auth"])


def test_a_program_sees_no_password_but_at_descriptor_3(checked: tuple[Served, str]) -> None:
    served, language = checked
    if language != "sh":
        pytest.skip("the shell's tells what it sees")
    assert attempt(served.home.port, "seen", "only at descriptor 3") == 235
    seen = {name: (served.folder / "seen" / name).read_text() for name in ("environ", "cmdline", "uid")}
    assert "descriptor 3" not in seen["environ"] + seen["cmdline"]
    names = {line.partition("=")[0] for line in seen["environ"].splitlines()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "PROTO", "TCPREMOTEIP"}
    assert int(seen["uid"]) == served.home.path.stat().st_uid


def test_a_program_that_is_not_there_puts_off_and_is_told_of(served: Served, program: Program) -> None:
    """Not refused: who is put off tries again, and it may be back then."""
    home, missing = served.home, served.folder / "check"
    home.control("checkpassword", f"{missing} {served.folder}")
    try:
        assert f"{missing} is no program" in home.run("control", "check", check=False).stdout
        home.signal(signal.SIGHUP)
        for _ in Waiting("the new settings are taken"):
            if "took the new settings" in home.log.read_text():
                break
        assert attempt(home.port, "alice", PASSWORD) == 235
        assert attempt(home.port, "dave", "said in sh") == 454
        assert f"control/checkpassword: {missing} cannot be run: No such file" in home.log.read_text()
        build("sh", served.folder).rename(missing)
        assert attempt(home.port, "dave", "said in sh") == 235
        assert attempt(home.port, "dave", "another") == 535
    finally:
        home.control("checkpassword", None)
        home.signal(signal.SIGHUP)


# --- a home of root's -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_root() -> Iterator[Served]:
    if os.geteuid() != 0:
        pytest.skip("only root makes users and becomes them")
    with system_home("alice", "bob") as home:
        submissions = free_port()
        prepare(home, submissions, home.room / "files")
        if shutil.which("checkpw"):
            home.control("checkpassword", f"{shutil.which('checkpw')} {shutil.which('true')}")
        home.start()
        yield Served(home, submissions, home.room / "files")
        assert home.stop() == 0


def test_argon2_works_behind_gates_walls_in_a_home_of_roots(of_root: Served) -> None:
    for mechanism in ("PLAIN", "LOGIN"):
        assert attempt(of_root.home.port, "alice", PASSWORD, mechanism) == 235
        assert attempt(of_root.home.port, "alice", "another", mechanism) == 535
    assert "SCRAM-SHA-256" in extensions(of_root)


def test_debians_checkpw_checks_users_of_the_system_as_root(of_root: Served, program: Program) -> None:
    program("checkpw")
    home = of_root.home
    assert isinstance(home, SystemHome)
    home.write("bob", "Maildir/.password", "bobs own", 0o600)
    name = home.people["bob"].pw_name
    assert attempt(home.port, name, "bobs own") == 235
    assert attempt(home.port, name, "another") == 535
    assert attempt(home.port, "no-such-user", "bobs own") == 535


def test_an_old_hash_is_strengthened_in_a_home_of_roots_and_stays_gates_alone(of_root: Served) -> None:
    home = of_root.home
    assert isinstance(home, SystemHome)
    file = home.path / "users" / "smtpauth"
    hashed = "$1$abcdefgh$k7D63vE3axegCBn62xqCv1"  # of "p\u00e4ss word"
    file.write_text(file.read_text() + f"frank:{hashed}\n")
    with smtplib.SMTP_SSL("127.0.0.1", of_root.submissions, timeout=60, context=context()) as client:
        client.ehlo()
        word = b"\0frank\0" + "p\u00e4ss word".encode()
        assert client.docmd("AUTH", "PLAIN " + base64.b64encode(word).decode())[0] == 235
    for _ in Waiting("the hash is a strong one"):
        if "frank:$argon2id$" in file.read_text():
            break
    found = file.stat()
    assert (found.st_mode & 0o777, found.st_uid) == (0o400, home.account("gate").pw_uid)
