"""A toy add-on, built and installed beside core, comes in by each of the five doors."""

import smtplib
import socket

from homes import Home, Waiting, free_port


def smtp(home: Home) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", home.port, "client.example", 20)
    client.ehlo()
    return client


MESSAGE = b"Subject: toy\r\n\r\nhello\r\n"


def test_its_command_runs(home: Home) -> None:
    assert home.run("toy", "--to", "you").stdout == "the toy greets you\n"
    assert "say hello" in home.run("--help").stdout


def test_its_control_file_is_known(home: Home) -> None:
    listed = home.run("control", "list").stdout
    assert "toyname" in listed and "teddy" in listed
    home.control("toyname", "bear")
    assert "bear" in home.run("control", "show", "toyname").stdout
    assert home.run("control", "check").returncode == 0
    home.control("toyname", "two words")
    wrong = home.run("control", "check", check=False)
    assert wrong.returncode == 100
    assert "toyname" in wrong.stdout + wrong.stderr


def test_its_service_listens_where_the_administrator_says(home: Home) -> None:
    port = free_port()
    home.control("listen", f"smtp 127.0.0.1:{home.port}\ntoy 127.0.0.1:{port}")
    home.start()
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        assert connection.makefile("rb").read() == b"the toy of a.example\r\n"


def test_its_transport_carries_mail_that_is_routed_to_it(home: Home) -> None:
    home.control("smtproutes", "far.example:toy![127.0.0.9]:99")
    home.start()
    with smtp(home) as client:
        client.sendmail("alice@a.example", ["bob@far.example"], MESSAGE)
    for _ in Waiting("the log shows the toy's report"):
        if "the_toy_took_it_to_127.0.0.9" in home.tail():
            break
    home.wait_empty()


def test_its_hook_refuses_once_it_is_named(home: Home) -> None:
    home.control("checkrcpt", "0")  # nobody is called so
    home.start()
    with smtp(home) as client:
        client.mail("x@client.example")
        assert client.rcpt("broken@a.example")[0] == 250
    home.stop()
    home.control("hooks", "toy")
    home.start()
    with smtp(home) as client:
        client.mail("x@client.example")
        assert client.rcpt("broken@a.example") == (550, b"5.7.1 the toy teddy is broken")
        assert client.rcpt("alice@a.example")[0] == 250


def test_installing_it_changes_nothing_in_the_flow_of_mail(home: Home) -> None:
    home.start()
    with smtp(home) as client:
        client.sendmail("x@client.example", ["alice@a.example"], MESSAGE)
    (mail,) = home.wait_mails("alice", 1)
    assert mail.endswith(b"Subject: toy\n\nhello\n")
