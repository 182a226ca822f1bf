"""Hooks of every kind in a real service: a signer, a plugin host, a milter client, a rewriter of forwards,
a rate limiter, and the add-on of docs/hooks.md, built from that page."""

import os
import re
import smtplib
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path

import pytest

from addons import environment
from builds import ROOT, Build
from homes import Home, Place, Waiting
from system_homes import system_home

SMALL = b"Subject: small\r\n\r\nhello\r\n"
LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef0123456789abcde\r\n" * 20_000


def send(home: Home, recipient: str, message: bytes, sender: str = "x@client.example") -> None:
    with smtplib.SMTP("127.0.0.1", home.port, "client.example", 20) as client:
        client.sendmail(sender, [recipient], message)


@pytest.fixture
def far(home: Home, make_home: Callable[..., Home]) -> Home:
    """Another host, where all mail of `home` for far.example goes."""
    made = make_home("far.example", "bob")
    home.control("smtproutes", f"far.example:[127.0.0.1]:{made.port}")
    made.start()
    return made


def test_a_signature_holds_over_what_arrives(home: Home, far: Home) -> None:
    home.control("hooks", "toy-signer")
    home.control("rules", '127.:allow,RELAYCLIENT=""')
    home.start()
    for message in (SMALL, LARGE):
        send(home, "bob@far.example", message)
    for mail in far.wait_mails("bob", 2):
        before, name, rest = mail.partition(b"Toy-Signature:")
        assert name, mail[:2000]
        found, _, signed = rest.partition(b"\n b=")
        digest, _, signed = signed.partition(b"\n")
        assert found == b" d=a.example;"
        assert b"Received:" in before and signed.startswith(b"Received:")
        assert digest.decode() == blake2b(signed.replace(b"\n", b"\r\n"), key=b"no secret").hexdigest()
    home.wait_empty()


def test_forwards_come_from_here_and_bounces_find_their_way_back(home: Home, far: Home) -> None:
    home.control("hooks", "toy-srs")
    home.control("rules", ":allow")
    (home.path / "users" / "alice").mkdir(exist_ok=True)
    dotqmail = home.maildir("alice").parent / ".qmail"
    dotqmail.write_text("&bob@far.example\n")
    home.start()
    send(home, "alice@a.example", SMALL)
    (mail,) = far.wait_mails("bob", 1)
    found = re.search(rb"Return-Path: <(SRS0=[^>]*@a\.example)>", mail)
    assert found, mail
    back = found.group(1).decode()
    with smtplib.SMTP("127.0.0.1", home.port, "client.example", 20) as client:
        client.ehlo()
        client.mail("")
        assert client.rcpt(back)[0] == 250
        assert client.rcpt(back.replace("=x@", "=y@"))[0] == 553
    home.wait_empty()


PLUGIN = """#!/bin/sh
case "$SMTPRCPTTO" in
info@*) echo Calice@a.example ;;
bad*) echo "E553 no such toy" ;;
rude*) echo "R554 go away" ;;
far*) echo O ;;
broken*) kill -9 $$ ;;
*) echo; echo "HX-Plugin: $SMTPRCPTTO $SMTPRCPTCOUNT $SMTPRCPTHOSTSOK $(id -u) $(pwd)" ;;
esac
"""


def test_programs_decide_about_commands_and_read_messages(home: Home) -> None:
    plugin, counter = home.path / "rcpt-plugin", home.path / "count"
    plugin.write_text(PLUGIN)
    counter.write_text("#!/bin/sh\nwc -c\n")
    for one in (plugin, counter):
        one.chmod(0o755)
    home.control("hooks", "toy-plugins timeout=20")
    home.control("rules", ":allow")
    home.control("toyplugins", f"rcpt {plugin}\nmessage {counter}\nmail /bin/true")
    home.start()
    with smtplib.SMTP("127.0.0.1", home.port, "client.example", 20) as client:
        client.ehlo()
        client.mail("x@client.example")
        said = {
            name: client.rcpt(name)
            for name in ("bad@a.example", "broken@a.example", "far@far.example", "x@far.example")
        }
        assert [code for code, _ in said.values()] == [553, 451, 250, 553]
        assert said["bad@a.example"][1] == b"no such toy"
        assert client.rcpt("rude@a.example") == (554, b"go away")
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.noop()
    for message in (SMALL, LARGE):
        with smtplib.SMTP("127.0.0.1", home.port, "client.example", 20) as client:
            client.sendmail("x@client.example", ["alice@a.example", "info@a.example"], message)
    owner = home.path.stat().st_uid
    sizes = set()
    for mail in home.wait_mails("alice", 2):  # one address twice is one file
        assert f"X-Plugin: alice@a.example 0 1 {owner} {home.path}\n".encode() in mail
        found = re.search(rb"Toy-Said: (\d+)\n", mail)
        assert found, mail[:2000]
        sizes.add(int(found.group(1)))
    assert sizes == {len(one.replace(b"\r\n", b"\n")) for one in (SMALL, LARGE)}
    assert home.stop() == 0


def test_an_address_gets_so_many_recipients_an_hour_in_all_its_sessions(home: Home) -> None:
    home.control("hooks", "toy-limiter")
    home.control("rules", ":allow")
    home.control("toylimit", "3")
    home.start()
    for codes in ([250, 250], [250, 452], [452, 452]):
        with smtplib.SMTP("127.0.0.1", home.port, "client.example", 20) as client:
            client.ehlo()
            client.mail("x@client.example")
            assert [client.rcpt("alice@a.example")[0] for _ in codes] == codes
            client.rset()
    with smtplib.SMTP("127.0.0.1", home.port, "client.example", 20, ("127.0.0.2", 0)) as client:
        client.sendmail("x@client.example", ["alice@a.example"], SMALL)
    home.wait_mails("alice", 1)


def test_what_a_hook_holds_waits_in_the_queue_until_it_is_released(home: Home) -> None:
    home.control("hooks", "toy")
    home.start()
    for message in (SMALL, LARGE):
        with smtplib.SMTP("127.0.0.1", home.port, "client.example", 20) as client:
            client.sendmail("x@client.example", ["alice@a.example", "suspect@a.example"], message)
    held = home.queue()
    assert [(one["state"], one["held"]) for one in held] == [("held", "a toy is suspicious")] * 2
    home.stop()
    home.start()
    assert [one["state"] for one in home.queue()] == ["held"] * 2
    home.run("queue", "release", *(one["id"] for one in home.queue()))
    home.wait_mails("alice", 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users and runs as them")
def test_in_a_home_of_roots_programs_run_as_the_front_ends_user(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENQMAIL", str(installed))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with system_home("alice") as home:
        plugin = home.path / "plugin"
        plugin.write_text(
            '#!/bin/sh\necho "HX-Plugin: $(id -u) $(id -G) $(grep NoNewPrivs /proc/self/status)"\n'
        )
        plugin.chmod(0o755)
        home.control("hooks", "toy-plugins")
        home.control("toyplugins", f"rcpt {plugin}")
        home.start()
        send(home, home.address("alice"), SMALL)
        (mail,) = home.wait_mails("alice", 1)
        one = home.account("smtpd")
        assert b"X-Plugin: %d %d NoNewPrivs:\t1\n" % (one.pw_uid, one.pw_gid) in mail


class Filter(socketserver.ThreadingUnixStreamServer):
    """Refuses what has VIRUS in its body, and signs the rest with what it saw."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        self.ended: list[bytes] = []
        super().__init__(path, _Conversation)


class _Conversation(socketserver.StreamRequestHandler):
    server: Filter

    def handle(self) -> None:
        size, fields, sick = 0, 0, False
        while head := self.rfile.read(5):
            data = self.rfile.read(int.from_bytes(head[1:], "big"))
            if head[:1] == b"H":
                fields += 1
            elif head[:1] == b"B":
                size += len(data)
                sick = sick or b"VIRUS" in data
            if head[:1] == b"E":
                self.server.ended.append(data)
                self._answer(b"a", b"Toy-Filter: %d fields, %d bytes" % (fields, size))
            else:
                self._answer(b"r" if sick else b"c")

    def _answer(self, letter: bytes, text: bytes = b"") -> None:
        self.wfile.write(letter + len(text).to_bytes(4, "big") + text)


@pytest.fixture
def filtering(home: Home) -> Iterator[Filter]:
    path = home.path / "filter"
    with Filter(str(path)) as server:
        path.chmod(0o666)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home.control("toyfilter", str(path))
        home.control("hooks", "toy-milter")
        yield server
        server.shutdown()


def test_a_filter_sees_each_message_as_it_comes(home: Home, filtering: Filter) -> None:
    home.start()
    for message in (SMALL, LARGE):
        send(home, "alice@a.example", message)
    with pytest.raises(smtplib.SMTPDataError, match="the filter does not want it"):
        send(home, "alice@a.example", LARGE + b"VIRUS\r\n" + LARGE)
    mails = home.wait_mails("alice", 2)
    bodies = {message.replace(b"\r\n", b"\n").partition(b"\n\n")[2] for message in (SMALL, LARGE)}
    for mail in mails:
        header, _, body = mail.partition(b"\n\n")
        assert body in bodies
        assert b"\nToy-Filter: 1 fields, %d bytes\n" % len(body) in header + b"\n"
    assert len(filtering.ended) == 2, "nothing is asked behind a refusal"
    assert home.stop() == 0


def test_a_filter_that_is_gone_puts_mail_off(home: Home, filtering: Filter) -> None:
    home.control("toyfilter", "/nowhere")
    home.start()
    with pytest.raises(smtplib.SMTPSenderRefused) as refused:
        send(home, "alice@a.example", SMALL)
    assert refused.value.smtp_code == 451
    for _ in Waiting("the log names the hook"):
        if "toy-milter" in home.tail():
            break


PAGE = (ROOT / "docs" / "hooks.md").read_text()


def blocks() -> dict[str, str]:
    """The files of the tutorial, by name."""
    return dict(re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.M | re.S))


def examples() -> list[str]:
    """The tests that the page shows."""
    section = PAGE.partition("## Try it in a test\n")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)


@pytest.fixture(scope="module")
def tutorial(build: Build, core: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tutorial") / "example-greylist"
    folder.mkdir()
    files = blocks()
    assert set(files) == {"pyproject.toml", "example_greylist.py"}
    assert sum(len(text.strip().splitlines()) for text in files.values()) <= 45
    for name, text in files.items():
        (folder / name).write_text(text)
    with environment(core, build(folder, "wheel"), Path("pytest")) as found:
        yield found


def test_the_add_on_of_the_tutorial_puts_off_what_comes_first_and_lets_it_in_a_minute_later(
    tutorial: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second later, here."""
    home = place.home("a.example", "alice")
    quick = home.path / "quick"  # stands before what is installed
    quick.mkdir(mode=0o755)
    code = blocks()["example_greylist.py"]
    assert "\nSECONDS = 60\n" in code
    (quick / "example_greylist.py").write_text(code.replace("\nSECONDS = 60\n", "\nSECONDS = 1\n"))
    monkeypatch.setenv("OPENQMAIL", str(tutorial))
    monkeypatch.setenv("PYTHONPATH", str(quick))
    home.control("rules", ":allow")
    home.control("hooks", "greylist timeout=5")
    home.control("rcpthosts", "a.example")
    home.start()
    with smtplib.SMTP("127.0.0.1", home.port, "client.example", 20) as client:
        client.ehlo()
        client.mail("x@client.example")
        assert client.rcpt("alice@a.example") == (450, b"4.7.1 greylisted, try again in a minute")
        assert client.rcpt("x@far.example")[0] == 553
    for _ in Waiting("what was put off is let in", pause=0.2):
        try:
            send(home, "alice@a.example", SMALL)
            break
        except smtplib.SMTPRecipientsRefused as refused:
            assert refused.recipients["alice@a.example"][0] == 450
    (mail,) = home.wait_mails("alice", 1)
    assert mail.endswith(SMALL.replace(b"\r\n", b"\n"))
    assert home.run("control", "check").returncode == 0


def test_the_tests_of_the_tutorial_pass(
    tutorial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    shown = examples()
    assert len(shown) == 2
    for number, text in enumerate(shown):
        (tmp_path / f"test_{number}.py").write_text(text)
    python = tutorial.with_name("python")
    ran = subprocess.run(
        [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, "2 passed" in ran.stdout) == (0, True), ran.stdout + ran.stderr
