"""A home of root's with no more than the capabilities that docs/systemd/openqmail.service leaves it.

systemd is not run: setpriv(1) takes the others away, as it does, and the service does all that root has to
do: it becomes users, delivers, checks logins, strengthens a hash, reloads and ends its children.
"""

import base64
import os
import re
import shlex
import signal
import smtplib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homes import Waiting, command, free_port
from submitting import AUTHORITY, PASSWORD, prepare
from system_homes import SystemHome, system_home

UNIT = Path(__file__).resolve().parents[2] / "docs/systemd/openqmail.service"
KNOWN = "/proc/sys/kernel/cap_last_cap"

CHECK = """\
#!/bin/sh
# A checkpassword program: the password is in a file that only its user may read.
{ tr '\\0' '\\n' <&3; } | {
    read -r login && read -r password
    [ "$login" = bob ] && [ "$password" = "$(cat "$1")" ] && exit 0
    exit 1
}
"""
OF_OLD = "$1$abcdefgh$k7D63vE3axegCBn62xqCv1"
"""Of "p\u00e4ss word"."""


def left() -> list[str]:
    """The names of the unit, as setpriv has them."""
    (line,) = re.findall(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE)
    return [name.removeprefix("CAP_").lower() for name in line.split()]


@pytest.fixture
def home(program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemHome]:
    if not Path(KNOWN).exists() or os.geteuid():
        pytest.skip("only root of Linux has capabilities to take away")
    setpriv = program("setpriv")
    with system_home("alice", "bob") as made:
        prepare(made, free_port(), made.room / "files")
        check, word = made.room / "check", made.write("bob", ".password", "bobs own", 0o600)
        check.write_text(CHECK)
        check.chmod(0o755)
        made.control("checkpassword", f"{check} {word}")
        with (made.path / "users" / "smtpauth").open("a") as opened:
            opened.write(f"frank:{OF_OLD}\n")
        bounded = made.room / "openqmail"
        words = [setpriv, "--bounding-set", ",".join(["-all", *(f"+{one}" for one in left())]), *command()]
        bounded.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        bounded.chmod(0o755)
        monkeypatch.setenv("OPENQMAIL", str(bounded))
        made.start()
        monkeypatch.delenv("OPENQMAIL")
        yield made


def client(home: SystemHome) -> smtplib.SMTP:
    context = ssl.create_default_context(cadata=AUTHORITY.certificate.decode())
    context.check_hostname = False
    made = smtplib.SMTP("127.0.0.1", home.port, timeout=60)
    made.starttls(context=context)
    made.ehlo()
    return made


def attempt(home: SystemHome, login: str, password: str) -> int:
    with client(home) as made:
        made.user, made.password = login, password
        try:
            return int(made.auth("PLAIN", made.auth_plain)[0])
        except smtplib.SMTPAuthenticationError as refused:
            return int(refused.smtp_code)


def test_the_units_capabilities_are_enough_for_all_that_root_does(home: SystemHome) -> None:
    assert home.process is not None
    (bounds,) = re.findall(r"^CapBnd:\t(\w+)$", Path(f"/proc/{home.process.pid}/status").read_text(), re.M)
    assert int(bounds, 16).bit_count() == len(left()), "the service runs within the bounds"
    with client(home) as made:
        made.login("alice", PASSWORD)
        made.sendmail("alice@a.example", [home.address("bob")], b"Subject: within\r\n\r\nx\r\n")
    assert b"Subject: within" in home.wait_mails("bob", 1)[0]
    assert attempt(home, "alice", "another") == 535
    assert attempt(home, "bob", "bobs own") == 235, "a program reads what is a user's"
    assert attempt(home, "bob", "another") == 535
    smtpauth = home.path / "users" / "smtpauth"
    with client(home) as made:
        told = base64.b64encode("\0frank\0p\u00e4ss word".encode()).decode()  # smtplib's own is ASCII
        assert made.docmd("AUTH", f"PLAIN {told}")[0] == 235
    for _ in Waiting("the hash is a strong one"):
        if "frank:$argon2id$" in smtpauth.read_text():
            break
    found, gate = smtpauth.stat(), home.account("gate")
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (gate.pw_uid, gate.pw_gid, 0o400)
    home.signal(signal.SIGHUP)
    for _ in Waiting("the settings are taken"):
        if "took the new settings" in home.tail():
            break
    assert attempt(home, "alice", PASSWORD) == 235
    assert home.stop() == 0
