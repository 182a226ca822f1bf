"""A client that has failed too often is locked out by the processes of a service, which tell it, count it and
let it try again when the administrator says so."""

import json
import os
import smtplib
import urllib.request
from collections.abc import Iterator

import pytest

from homes import Home, Place, Waiting
from openqmail.core.control.extensions import installed


@pytest.fixture
def home() -> Iterator[Home]:
    with Place() as place:
        home = place.home("a.example", "alice")
        home.control("authplain", "1")
        home.control("authfailures", "1")
        if installed("prometheus_client"):
            home.control("metrics", "127.0.0.1:0")
        smtpauth = home.path / "users" / "smtpauth"
        smtpauth.write_text("alice:{PLAIN}secret\n")
        owner = home.path.stat()
        os.chown(smtpauth, owner.st_uid, owner.st_gid)
        smtpauth.chmod(0o600)
        home.start()
        yield home


def log_in(home: Home, password: str) -> int:
    """The code of the answer."""
    with smtplib.SMTP("127.0.0.1", home.port, timeout=30) as client:
        client.ehlo()
        client.user, client.password = "alice", password
        try:
            return client.auth("PLAIN", client.auth_plain)[0]
        except smtplib.SMTPAuthenticationError as error:
            return error.smtp_code


def test_who_is_locked_out_is_told_and_let_in_again(home: Home) -> None:
    assert home.run("user", "locked").stdout == "nobody is locked out\n"
    assert log_in(home, "guess") == 535
    assert log_in(home, "secret") == 421
    [told] = [json.loads(line) for line in home.run("user", "locked", "--json").stdout.splitlines()]
    assert (told["network"], told["login"], told["failures"]) == ("127.0.0.0/24", "", 1)
    assert 800 < told["seconds"] <= 900
    if installed("prometheus_client"):
        wait_figures(
            home,
            'openqmail_logins_total{result="wrong"} 1.0',
            'openqmail_logins_total{result="locked"} 1.0',
            'openqmail_lockouts{kind="network"} 1.0',
        )
    assert home.run("user", "unlock", "127.0.0.1").stdout == "127.0.0.1 may try again\n"
    assert log_in(home, "secret") == 235
    assert home.run("user", "unlock", "127.0.0.1", check=False).returncode == 1
    if installed("prometheus_client"):
        wait_figures(
            home, 'openqmail_logins_total{result="accepted"} 1.0', 'openqmail_lockouts{kind="network"} 0.0'
        )


def test_a_client_that_says_one_wrong_password_by_all_mechanisms_has_failed_once(home: Home) -> None:
    home.control("authfailures", "2")
    home.restart()
    with smtplib.SMTP("127.0.0.1", home.port, timeout=30) as client:
        client.ehlo()
        assert {"CRAM-MD5", "PLAIN", "LOGIN"} <= set(client.esmtp_features["auth"].split())
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("alice", "guess")
    assert home.log.read_text().count("auth: refused <alice>, wrong") == 3
    assert log_in(home, "secret") == 235


def wait_figures(home: Home, *wanted: str) -> None:
    """Until the page has these lines, which is a second after they are true."""
    [where] = [one["address"] for one in home.status()["listen"] if one["service"] == "metrics"]
    for _ in Waiting(f"{wanted} are told"):
        with urllib.request.urlopen(f"http://{where}/metrics", timeout=30) as answer:
            if set(wanted) <= set(answer.read().decode().splitlines()):
                return
