"""Dovecot serves our Maildirs by IMAP, configured as docs/guide.md says, to the letter.

An instance of its own: a copy of Debian's configuration with the guide's part added, its run
folder and log in the test's folder, one port on loopback.  Only paths and ports differ, the owner
and the group of the home have their names here, and TLS, which needs a certificate, is off.
"""

import grp
import imaplib
import os
import pwd
import re
import shutil
import smtplib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homes import Home, Place, Waiting, free_port

CONFIGURATION = Path("/etc/dovecot")
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide.md"

PRIVATE = """\
!include dovecot.conf
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = imap
listen = 127.0.0.1
service imap-login {{
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
"""


def guides_part(home: Home, configuration: Path) -> str:
    """The configuration in the section "Read mail with Dovecot", for this home."""
    section = GUIDE.read_text().partition("\n## Read mail with Dovecot\n")[2].partition("\n## ")[0]
    lines = [line[4:] for line in section.splitlines() if line.startswith("    ")]
    assert lines, "the guide has no configuration for Dovecot"
    found = home.path.stat()
    text = "\n".join(lines) + "\n"
    assert "uid=mailer gid=mailer" in text and "/srv/mail/" in text
    text = text.replace("uid=mailer", f"uid={pwd.getpwuid(found.st_uid).pw_name}")
    text = text.replace("gid=mailer", f"gid={grp.getgrgid(found.st_gid).gr_name}")
    return text.replace("/srv/mail/", f"{home.path}/").replace("/etc/dovecot/", f"{configuration}/")


@pytest.fixture
def dovecot(place: Place, home: Home, program: Callable[[str], str]) -> Iterator[int]:
    """The IMAP port of a running Dovecot."""
    if os.getuid() != 0:
        pytest.skip("Dovecot does not start without root")
    command = program("dovecot")
    version = subprocess.run([command, "--version"], capture_output=True, text=True).stdout
    if not version.startswith("2.3."):
        pytest.skip(f"the guide's configuration is for Dovecot 2.3; this is {version.strip()}")
    if not (CONFIGURATION / "dovecot.conf").exists():
        pytest.skip(f"there is no {CONFIGURATION}/dovecot.conf")
    folder, port = place.path / "dovecot", free_port()
    configuration = folder / "etc"
    shutil.copytree(CONFIGURATION, configuration, symlinks=True)
    for name in ("run", "state"):
        (folder / name).mkdir()
    (configuration / "conf.d" / "10-ssl.conf").write_text("ssl = no\n")
    (configuration / "local.conf").write_text(guides_part(home, configuration))
    (configuration / "openqmail.users").write_text("alice:{PLAIN}secret\nbob:{PLAIN}other\n")
    (configuration / "private.conf").write_text(PRIVATE.format(folder=folder, port=port))
    process = subprocess.Popen(
        [command, "-F", "-c", configuration / "private.conf"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        wait_listening(process, folder / "log", port)
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=30)


def wait_listening(process: subprocess.Popen[bytes], log: Path, port: int) -> None:
    for _ in Waiting("Dovecot serves"):
        if process.poll() is not None:
            complaint = process.communicate()[1].decode() + (log.read_text() if log.exists() else "")
            raise AssertionError(f"Dovecot ended: {complaint}")
        try:
            imaplib.IMAP4("127.0.0.1", port).shutdown()
        except OSError:
            continue
        return


def send(home: Home, subject: str) -> None:
    mail = f"From: bob@a.example\r\nSubject: {subject}\r\n\r\nGrüße von {subject}\r\n"
    with smtplib.SMTP("127.0.0.1", home.port) as client:
        client.sendmail("bob@a.example", ["alice@a.example"], mail.encode())


def fetched(imap: imaplib.IMAP4, number: str, part: str) -> bytes:
    found = imap.fetch(number, f"({part})")[1][0]
    assert isinstance(found, tuple)
    return found[1]


def files(home: Home, folder: str) -> list[Path]:
    return list((home.maildir("alice") / folder).iterdir())


def test_mail_is_read_marked_and_deleted(home: Home, dovecot: int) -> None:
    home.start()
    send(home, "one")
    (stored,) = home.wait_mails("alice", 1)
    assert [file.parent.name for file in files(home, "new") + files(home, "cur")] == ["new"]

    with imaplib.IMAP4("127.0.0.1", dovecot) as imap:
        imap.login("alice", "secret")
        assert imap.select("INBOX") == ("OK", [b"1"])
        assert fetched(imap, "1", "BODY.PEEK[]") == stored.replace(b"\n", b"\r\n")

        imap.store("1", "+FLAGS", r"(\Seen)")
        imap.check()
        for _ in Waiting("the mail is seen in cur/"):
            if any(re.search(r":2,[A-Z]*S", file.name) for file in files(home, "cur")):
                break
        assert files(home, "new") == []
        assert home.mails("alice") == [stored]

        # Delivery and reading at the same time.
        send(home, "two")
        home.wait_mails("alice", 2)
        for _ in Waiting("Dovecot shows the second mail"):
            imap.noop()
            if imap.search(None, "UNSEEN") == ("OK", [b"2"]):
                break
        assert fetched(imap, "2", "BODY[TEXT]") == "Grüße von two\r\n".encode()

        imap.store("1", "+FLAGS", r"(\Deleted)")
        imap.expunge()
        for _ in Waiting("the first mail is gone"):
            if len(left := home.mails("alice")) == 1:
                break
        assert b"\nSubject: two\n" in left[0]

    home.wait_empty()
