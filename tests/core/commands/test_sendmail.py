"""`sendmail` against a small service: what it hands over, what it refuses, when it tries again."""

import json
import os
import pwd
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from openqmail.core.commands import sendmail
from openqmail.core.control import Home, read_settings
from openqmail.core.message.origination import fields, header_size
from openqmail.core.submit import client, wire
from openqmail.core.submit.addresses import AddressError, Defaults, mailboxes

LETTER = b"From: a@x.test\nTo: b@x.test\nDate: d\nMessage-ID: <i@x.test>\n\nbody\n"
ACCEPT = wire.answer(b"K", b"ok message 1 qp 2")


class Request(NamedTuple):
    sender: bytes
    recipients: list[bytes]
    message: bytes


class Small:
    """A service of one socket: reads whole requests, says for each the next answer of its script.

    An answer may also be a function, which is given the connection before anything is read."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.requests: list[Request] = []
        self.script: list[bytes | Callable[[socket.socket], None]] = []
        self._stopping = False
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(self.path)
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            with connection:
                if self._stopping:
                    return
                step = self.script.pop(0) if self.script else ACCEPT
                if isinstance(step, bytes):
                    self._answer(connection, step)
                else:
                    step(connection)

    def _answer(self, connection: socket.socket, answer: bytes) -> None:
        decoder = wire.RequestDecoder(1000, 0)
        sender, recipients, message = b"", [], bytearray()
        while data := connection.recv(65536):
            decoder.receive(data)
            while (event := decoder.next_event()) is not None:
                match event:
                    case wire.Sender():
                        sender = event.address
                    case wire.Recipient():
                        recipients.append(event.address)
                    case wire.Chunk():
                        message += event.data
                    case wire.End():
                        self.requests.append(Request(sender, recipients, bytes(message)))
                        connection.sendall(answer)
                        return

    def stop(self) -> None:
        self._stopping = True
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self.path)
        self._thread.join()
        self._listening.close()
        os.unlink(self.path)


@pytest.fixture
def home(room: Path) -> Path:
    """As much of a home as sendmail looks at."""
    made = room / "home"
    (made / "control").mkdir(parents=True)
    (made / "run").mkdir()
    (made / "control" / "me").write_text("mail.example.test \n")
    (made / "control" / "defaulthost").write_text("dh.example.test\n")
    (made / "control" / "defaultdomain").write_text("example.test\n")
    (made / "control" / "plusdomain").write_text("test\n")
    return made


@pytest.fixture
def service(home: Path) -> Iterator[Small]:
    made = Small(home / "run" / "submit")
    yield made
    made.stop()


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.at: dict[int, Callable[[], None]] = {}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)
        self.at.pop(len(self.pauses), lambda: None)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(client, "time", made)
    return made


@pytest.fixture
def send(
    home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[int, str]]]:
    """`send(LETTER, "-t", USER="alice")`: exit code and what was said."""
    for name in [*os.environ]:
        if name.startswith(("QMAIL", "MAIL")) or name in ("USER", "LOGNAME", "NAME"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPENQMAIL_HOME", str(home))
    before = os.dup(0)

    def send(message: bytes, *words: str, **environment: str) -> tuple[int, str]:
        with tempfile.TemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
            for name, value in {"USER": "alice", **environment}.items():
                patch.setenv(name, value)
            file.write(message)
            file.seek(0)
            os.dup2(file.fileno(), 0)
            capfd.readouterr()
            code = sendmail.main(list(words))
            return code, capfd.readouterr().err

    yield send
    os.dup2(before, 0)
    os.close(before)


Send = Callable[..., tuple[int, str]]


# --- what is handed over ------------------------------------------------------------------


def test_a_whole_letter_is_handed_over_as_it_is(service: Small, send: Send) -> None:
    assert send(LETTER, "-t") == (0, "")
    assert service.requests == [Request(b"alice@dh.example.test", [b"b@x.test"], LETTER)]


def test_recipients_of_the_command_line(service: Small, send: Send) -> None:
    assert send(LETTER, "-i", "bob", "ann@host", "--", "-odd@x.test") == (0, "")
    assert send(LETTER, "-t", "bob", "b@x.test") == (0, "")
    assert [request.recipients for request in service.requests] == [
        [b"bob@dh.example.test", b"ann@host.example.test", b"-odd@x.test"],
        [b"bob@dh.example.test", b"b@x.test"],
    ]


@pytest.mark.parametrize(
    ("words", "environment", "sender", "author"),
    [
        ([], {}, b"alice@dh.example.test", b"alice@dh.example.test"),
        ([], {"NAME": "Al"}, b"alice@dh.example.test", b'"Al" <alice@dh.example.test>'),
        (["-fs@f.test"], {"NAME": "Al"}, b"s@f.test", b"s@f.test"),
        (["-r", "bob", "-F", "B. B."], {}, b"bob@dh.example.test", b'"B. B." <bob@dh.example.test>'),
        (["-f", ""], {}, b"", b"alice@dh.example.test"),
        (["-f<>"], {}, b"", b"alice@dh.example.test"),
        (["-f", "<s@f.test>"], {}, b"s@f.test", b"s@f.test"),
        ([], {"QMAILUSER": "q", "QMAILHOST": "h"}, b"q@h.example.test", b"q@h.example.test"),
        ([], {"QMAILSUSER": "b", "QMAILSHOST": "x.test"}, b"b@x.test", b"alice@dh.example.test"),
        ([], {"QMAILDEFAULTHOST": "d.test"}, b"alice@d.test", b"alice@d.test"),
    ],
)
def test_who_sends(
    service: Small, send: Send, words: list[str], environment: dict[str, str], sender: bytes, author: bytes
) -> None:
    assert send(b"To: b@x.test\n\nbody\n", "-t", *words, **environment) == (0, "")
    assert service.requests[0].sender == sender
    assert b"\nFrom: " + author + b"\n" in service.requests[0].message


def test_somebody_without_a_variable_is_named_by_the_system(service: Small, send: Send) -> None:
    import pwd

    assert send(b"", "bob", USER="", LOGNAME="") == (0, "")
    login = pwd.getpwuid(os.getuid()).pw_name.encode()
    assert service.requests[0].sender == login + b"@dh.example.test"


def test_a_return_path_is_the_sender_unless_one_is_named(service: Small, send: Send) -> None:
    letter = b"Return-Path: <r@x.test>\n" + LETTER
    assert send(letter, "-t") == send(letter, "-t", "-fs@f.test") == (0, "")
    assert [request.sender for request in service.requests] == [b"r@x.test", b"s@f.test"]
    assert service.requests[0].message == LETTER


@pytest.mark.parametrize(
    ("given", "words", "body"),
    [
        (b"a\n.\nb\n", [], b"a\n"),
        (b"a\n.\nb\n", ["-i"], b"a\n.\nb\n"),
        (b"a\n.\nb\n", ["-oi"], b"a\n.\nb\n"),
        (b"a\n.\nb\n", ["-vi"], b"a\n.\nb\n"),
        (b"a\r\nb\n", ["-i"], b"a\r\nb\n"),
        (b"a\0\xff", ["-i"], b"a\0\xff\n"),
    ],
)
def test_the_body(service: Small, send: Send, given: bytes, words: list[str], body: bytes) -> None:
    assert send(b"Subject: s\n\n" + given, *words, "bob") == (0, "")
    assert service.requests[0].message.partition(b"\n\n")[2] == body


def test_crlf_throughout_is_text(service: Small, send: Send) -> None:
    assert send(LETTER.replace(b"\n", b"\r\n"), "-t") == (0, "")
    assert service.requests[0].message == LETTER


def test_a_message_without_a_header_gets_one(service: Small, send: Send) -> None:
    assert send(b"no header here\n", "bob") == (0, "")
    header, _, body = service.requests[0].message.partition(b"\n\n")
    assert body == b"no header here\n"
    assert {line.partition(b":")[0] for line in header.split(b"\n")} == {
        b"Date",
        b"Message-ID",
        b"From",
        b"Cc",
    }


def test_no_two_messages_have_one_id(service: Small, send: Send) -> None:
    for _ in range(20):
        assert send(b"", "bob") == (0, "")
    lines = [request.message.split(b"\n")[1] for request in service.requests]
    assert len(set(lines)) == 20
    assert all(line.endswith(b"@mail.example.test>") for line in lines)


def test_a_large_message_goes_through(service: Small, send: Send) -> None:
    large = LETTER + b"x" * 70 + b"\n" * 5_000_000
    assert send(large, "-t", "-i") == (0, "")
    assert service.requests[0].message == large


# --- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "no recipient is named"),
        (["-bp"], "'openqmail queue list'"),
        (["-bs"], "control/listen"),
        (["-bd"], "'openqmail run'"),
        (["-bi"], "aliases"),
        (["-bz"], "-bz: is not known"),
        (["-q"], "'openqmail queue flush'"),
        (["-q30m"], "'openqmail queue flush'"),
        (["-N", "never", "bob"], "cannot be asked for yet"),
        (["-V", "x", "bob"], "cannot be passed on yet"),
        (["-X", "log", "bob"], "no log"),
        (["-C", "x", "bob"], "control files"),
        (["-oQ/tmp", "bob"], "-oQ/tmp: is not known"),
        (["-B", "BINARYMIME", "bob"], "7BIT or 8BITMIME"),
        (["-Z", "bob"], "usage: sendmail"),
        (["-f"], "-f needs a value"),
        (["--home"], "--home needs a folder"),
        (["bob", ""], "an empty recipient"),
        (["bob@"], "has no host"),
        (["-f", "bob@", "ann"], "has no host"),
    ],
)
def test_misuse_is_100_and_one_sentence(service: Small, send: Send, words: list[str], why: str) -> None:
    code, said = send(LETTER, *words)
    assert code == 100
    assert said.startswith("sendmail: ")
    assert said.count("\n") == 1
    assert why in said
    assert service.requests == []


def test_recipients_that_cannot_be_read_are_named(service: Small, send: Send) -> None:
    assert send(b"To: bob <b@x.test\n\n", "-t") == (
        100, "sendmail: the field To: a '<' has no '>' behind it\n",
    )  # fmt: skip
    code, said = send(b"Subject: s\n\n", "-t")
    assert (code, "no recipient is named in To, Cc or Bcc" in said) == (100, True)


def test_a_header_without_end_is_refused(service: Small, send: Send) -> None:
    code, said = send(b"X: " + b"x" * 2_000_000 + b"\n", "-i", "bob")
    assert code == 100
    assert "the header is longer than" in said


@pytest.mark.parametrize("words", [["-oem"], ["-oee", "-odb", "-om"], ["-em"], ["-e", "m"], ["-B8BITMIME"],
                                   ["-B", "7bit"], ["-p", "x"], ["-Am"], ["-m", "-n", "-v", "-x", "-G", "-U"],
                                   ["-L", "tag"], ["-bm"], ["-mnv"], ["-o7", "-o8"]])  # fmt: skip
def test_what_means_nothing_here_is_passed_over(service: Small, send: Send, words: list[str]) -> None:
    assert send(LETTER, *words, "bob") == (0, "")
    assert service.requests[0].recipients == [b"bob@dh.example.test"]


@pytest.mark.parametrize(("letter", "code"), [(b"Z", 111), (b"D", 100)])
def test_the_services_word_is_passed_on(service: Small, send: Send, letter: bytes, code: int) -> None:
    service.script = [wire.answer(letter, b"not\x1b now (#4.3.1)")]
    assert send(LETTER, "-t") == (code, "sendmail: not? now (#4.3.1)\n")


def test_help_and_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert sendmail.main(["--help"]) == sendmail.main(["--version"]) == 0
    said = capfd.readouterr().out
    assert "example:\n  printf" in said
    assert "sendmail (openqmail " in said


# --- the home -----------------------------------------------------------------------------


def test_the_home_is_found(
    service: Small, send: Send, home: Path, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENQMAIL_HOME", str(room / "other"))
    assert send(LETTER, "--home", str(home), "-t") == (0, "")
    monkeypatch.delenv("OPENQMAIL_HOME")
    (room / "stopped" / "run").mkdir(parents=True)
    monkeypatch.setattr(sendmail, "HOMES", (str(room / "stopped"), str(home)))
    assert send(LETTER, "-t") == (0, "")
    monkeypatch.setattr(sendmail, "HOMES", (str(room / "none"), str(room / "stopped")))
    code, said = send(LETTER, "-t")
    assert (code, f"{room}/stopped/control/me: is not there" in said) == (111, True)
    monkeypatch.setattr(sendmail, "HOMES", (str(room / "none"),))
    code, said = send(LETTER, "-t")
    assert (code, "name one with --home DIR" in said) == (111, True)


def test_only_me_is_needed(service: Small, send: Send, home: Path) -> None:
    for name in ("defaulthost", "defaultdomain", "plusdomain"):
        (home / "control" / name).unlink()
    assert send(b"", "bob", "ann@host", "x@h+") == (0, "")
    assert service.requests[0].recipients == [
        b"bob@mail.example.test", b"ann@host.mail.example.test", b"x@h.mail.example.test",
    ]  # fmt: skip


def test_the_service_understands_the_control_files_as_sendmail_does(home: Path) -> None:
    (home / "control" / "defaulthost").write_text("dh+\n")
    for remove in (None, "defaulthost", "defaultdomain", "plusdomain", "idhost"):
        if remove:
            (home / "control" / remove).unlink(missing_ok=True)
        found = read_settings(Home(str(home)))
        defaults, id_host = sendmail._defaults(str(home))
        assert (defaults.host, defaults.domain, defaults.plus, id_host) == (
            *(found.defaulthost, found.defaultdomain),
            *(found.plusdomain, found.idhost),
        )


@contextmanager
def somebody_else() -> Iterator[None]:
    """Root works as a user to whom the home does not belong; anybody else stays who he is."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("closed", ["run", "control", ""])
def test_a_home_that_is_closed_to_a_user_names_who_may_send(
    service: Small, send: Send, clock: Clock, home: Path, closed: str
) -> None:
    (home / closed).chmod(0o600)
    try:
        with somebody_else():
            code, said = send(LETTER, "-t")
    finally:
        (home / closed).chmod(0o755)
    assert clock.pauses == []
    if os.geteuid():  # its own home, so its modes are not as they should be
        assert (code, "Permission denied; 'openqmail --home" in said) == (111, True)
    else:
        assert (code, f"sendmail: only root may send in {home}" in said) == (100, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a home to somebody")
def test_a_home_of_another_user_names_him_and_a_closed_folder_above_it_is_told(
    service: Small, send: Send, home: Path
) -> None:
    os.chown(home, 1, 1)
    (home / "run").chmod(0o700)
    with somebody_else():
        code, said = send(LETTER, "-t")
    assert (code, said) == (100, f"sendmail: only {pwd.getpwuid(1).pw_name} may send in {home}\n")
    home.parent.chmod(0o700)
    try:
        with somebody_else():
            code, said = send(LETTER, "-t")
    finally:
        home.parent.chmod(0o755)
    assert (code, said.startswith(f"sendmail: {home}: Permission denied; only")) == (100, True)


# --- the service restarts -----------------------------------------------------------------


def hang_up(connection: socket.socket) -> None:
    """Reads nothing, says nothing."""


def read_a_little(connection: socket.socket) -> None:
    connection.recv(10)


def read_all(connection: socket.socket) -> None:
    """What a service does that is killed before it answers."""
    while not connection.recv(1 << 20).endswith(b","):
        pass


def test_it_waits_for_a_socket_that_is_not_there_yet(home: Path, send: Send, clock: Clock) -> None:
    started: list[Small] = []
    clock.at[30] = lambda: started.append(Small(home / "run" / "submit"))
    try:
        assert send(LETTER, "-t") == (0, "")
    finally:
        started[0].stop()
    assert [request.message for request in started[0].requests] == [LETTER]
    assert len(clock.pauses) == 30


def test_it_waits_where_nobody_listens_any_more(home: Path, send: Send, clock: Clock) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(home / "run" / "submit"))
    left.close()
    started: list[Small] = []

    def start() -> None:
        (home / "run" / "submit").unlink()
        started.append(Small(home / "run" / "submit"))

    clock.at[3] = start
    try:
        assert send(LETTER, "-t") == (0, "")
    finally:
        started[0].stop()


def test_after_a_minute_it_gives_up(send: Send, clock: Clock, home: Path) -> None:
    code, said = send(LETTER, "-t")
    assert code == 111
    where = f"{home}/run/submit"
    assert said == (
        f"sendmail: nobody listens at {where}; the message was not sent, try again later; "
        f"'openqmail --home {home} run' starts the service\n"
    )
    assert 59 < clock.now <= 60
    assert max(clock.pauses) <= 0.5


def test_on_a_terminal_it_says_once_that_it_waits(
    send: Send, clock: Clock, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor == 2)
    code, said = send(LETTER, "-t")
    assert code == 111
    first, last = said.splitlines()
    assert first == f"sendmail: nobody listens at {home}/run/submit; waiting up to 60 seconds for it"
    assert "was not sent" in last


@pytest.mark.parametrize("size", [10, 3_000_000])
@pytest.mark.parametrize("end", [hang_up, read_a_little])
def test_what_was_never_read_is_sent_again(
    service: Small, send: Send, clock: Clock, end: Callable[[socket.socket], None], size: int
) -> None:
    """The kernel says that something of it was left unread: nobody can have accepted it."""
    letter = LETTER + b"x" * size + b"\n"
    service.script = [end, end]
    assert send(letter, "-t", "-i") == (0, "")
    assert [request.message for request in service.requests] == [letter]
    assert len(clock.pauses) == 2


def test_a_connection_that_was_never_accepted_is_made_again(home: Path, send: Send, clock: Clock) -> None:
    """It waits in the backlog of a service that ends."""
    path = home / "run" / "submit"
    old = socket.socket(socket.AF_UNIX)
    old.bind(str(path))
    old.listen()
    sent = threading.Event()
    started: list[Small] = []

    def end() -> None:
        sent.wait(30)
        path.unlink()
        started.append(Small(path))
        old.close()

    thread = threading.Thread(target=end)
    thread.start()
    answer = client._answer

    def told(connection: socket.socket, whole: bool) -> bytes:
        sent.set()
        return answer(connection, whole)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "_answer", told)
        assert send(LETTER, "-t") == (0, "")
    thread.join()
    started[0].stop()
    assert len(started[0].requests) == 1


def test_what_may_have_been_accepted_is_not_sent_again(service: Small, send: Send, clock: Clock) -> None:
    service.script = [read_all]
    code, said = send(LETTER, "-t")
    assert code == 111
    assert said == "sendmail: the service ended before it answered; the message may have been sent\n"
    assert (service.requests, clock.pauses) == ([], [])


@pytest.mark.parametrize("odd", [b"5:K", b"250 ok\r\n", b"1:X,"])
def test_an_answer_that_is_none_is_not_believed(service: Small, send: Send, odd: bytes, clock: Clock) -> None:
    service.script = [odd]
    code, said = send(LETTER, "-t")
    assert (code, clock.pauses) == (111, [])
    assert "the message may have been sent" in said


def test_a_busy_service_is_asked_again(service: Small, send: Send, clock: Clock) -> None:
    def busy(connection: socket.socket) -> None:
        connection.sendall(wire.answer(b"Z", b"too many connections " + wire.BUSY))

    service.script = [busy, busy]
    assert send(LETTER + b"x" * 3_000_000, "-t") == (0, "")
    assert len(clock.pauses) == 2
    assert len(service.requests) == 1


def test_a_service_that_stays_busy_is_put_off(service: Small, send: Send, clock: Clock) -> None:
    service.script = [wire.answer(b"Z", b"too many connections " + wire.BUSY)] * 1000
    code, said = send(LETTER, "-t")
    assert (code, "too many connections" in said) == (111, True)
    assert 59 < clock.now <= 60


def test_a_refusal_in_the_middle_of_a_large_message_is_heard(
    service: Small, send: Send, clock: Clock
) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(wire.answer(b"D", b"too large"))

    service.script = [refuse]
    assert send(LETTER + b"x" * 5_000_000, "-t") == (100, "sendmail: too large\n")
    assert clock.pauses == []


# --- as an installed command --------------------------------------------------------------


def test_it_imports_next_to_nothing() -> None:
    """It is started for each mail: nothing but `socket` and small parts of ours is loaded."""
    code = "import socket, sys; before = set(sys.modules)\n" + (
        "from openqmail.core.commands import sendmail\n"
        "print(*sorted(set(sys.modules) - before))"
    )  # fmt: skip
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = {
        "openqmail", "openqmail.core", "openqmail.core.commands", "openqmail.core.commands.sendmail",
            "openqmail.core.message", "openqmail.core.message.origination",
        "openqmail.core.submit", "openqmail.core.submit.addresses", "openqmail.core.submit.client",
        "openqmail.core.submit.compose", "openqmail.core.submit.spool", "openqmail.core.submit.wire",
    }  # fmt: skip
    assert set(ran.stdout.split()) - {"__future__"} == ours


def test_an_interrupt_is_no_traceback(home: Path) -> None:
    import signal

    code = (  # ignored by whoever runs the tests, as with nohup, it would be by what they start
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from openqmail.core.commands.sendmail import main; sys.exit(main())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "--home", str(home), "bob"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"x" * 200_000 + b"\n")  # more than a pipe holds: it reads by now
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (111, b"sendmail: interrupted\n")


# --- as notqmail's ------------------------------------------------------------------------

DEFAULTS = Defaults(b"dh.example.test", b"example.test", b"test")
NONE = (100, "no recipient at all: notqmail takes the message and drops it, we refuse")
UNREADABLE = (100, "a recipient that cannot be read: notqmail passes the field over, we refuse")
NO_HOST = (100, "a host that is empty, or has an empty label: notqmail mends it, we refuse")
PASSED_OVER = (0, "a sender that cannot be read: notqmail refuses or garbles it, we leave it as it is")
DEPARTURES = {
    "empty": NONE, "only-newline": NONE, "body-only": NONE, "no-to": NONE, "starts-with-space": NONE,
    "resent-only-date": NONE, "comment-only-to": NONE, "empty-to": NONE, "angle-only": NONE,
    "parse-error-to": UNREADABLE, "semicolon-list": UNREADABLE,
    "unqualified": NO_HOST, "plus": NO_HOST,
    "return-path-bad": PASSED_OVER, "parse-error-paren": PASSED_OVER, "parse-error-from": PASSED_OVER,
}  # fmt: skip


def shape(message: bytes) -> tuple[list[tuple[bytes, object]], bytes]:
    """What a message says: its fields, addresses read, times and ids left out; its body."""
    size = header_size(message, True)
    assert size is not None
    found: list[tuple[bytes, object]] = []
    for field in fields(message[:size]):
        text = field.text[field.body() :]
        if field.name in (b"date", b"message-id", b"resent-date", b"resent-message-id"):
            found.append((field.name, None))
            continue
        try:
            found.append((field.name, [DEFAULTS.complete(one) for one in mailboxes(text)]))
        except AddressError:
            found.append((field.name, text))
    return found, message[size:].removeprefix(b"\n")


def recorded() -> list[Any]:
    named = os.environ.get("OPENQMAIL_VECTORS")
    folder = Path(named) if named else Path(__file__).resolve().parents[4] / "shared" / "vectors"
    index = folder / "notqmail" / "inject" / "index.json"
    if not index.exists():
        return []
    return [
        pytest.param(index.parent, case, id=case["output"].partition("/")[2])
        for case in json.loads(index.read_text())
        if case["program"] == "sendmail" and (case["args"] == ["-t"] or case["exit"] == 0)
    ]


@pytest.mark.parametrize(("folder", "case"), recorded())
def test_as_notqmail_has_it(service: Small, send: Send, folder: Path, case: dict[str, Any]) -> None:
    name = Path(case["input"]).stem
    message = (folder / case["input"]).read_bytes()
    code, _ = send(message, "-oi", *case["args"], **case["env"])
    if case["args"] == ["-t"] and name in DEPARTURES:
        assert code == DEPARTURES[name][0]
        return
    if case["args"] in ([], ["-J", "b@arg.test"], ["-e", "b@arg.test"], ["-xx", "b@arg.test"]):
        return  # no recipient; and options of other systems
    assert code == case["exit"] == 0
    sender, *recipients = case["queued"][0]["envelope"].encode("latin-1").rstrip(b"\0").split(b"\0")
    (request,) = service.requests
    assert request.sender == sender[1:]
    assert sorted(request.recipients) == sorted({one[1:] for one in recipients})
    if b"\r" in message:
        return  # CRLF throughout is text for us
    if "" in case["args"] and name == "no-from":
        return  # From would be `""@host`; ours names the user
    ours, theirs = shape(request.message), shape((folder / case["queued"][0]["message"]).read_bytes())
    assert ours == theirs
