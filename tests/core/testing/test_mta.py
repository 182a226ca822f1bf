"""A real MTA in a test: what it is sent arrives, it survives what it must, and it leaves nothing."""

import asyncio
import gc
import os
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from email.message import EmailMessage
from functools import partial

import pytest

from openqmail.core.testing import Answer, AsyncMta, Mta, NotArrived, Receiver, Silence, TestingError
from openqmail.core.tls import self_signed
from openqmail.core.values import ControlError, OpenqmailError

TEXT = "Subject: hello\n\nhow are you?\n"


@pytest.fixture
def mta():
    with Mta(users=["alice", "bob"], domain="a.example") as made:
        yield made


def test_mail_of_a_program_arrives_with_its_envelope(mta):
    message = EmailMessage()
    message["Subject"] = "Grüße"
    message.set_content("schöne Grüße\n")
    with smtplib.SMTP("127.0.0.1", mta.port) as client:
        client.send_message(message, "x@y.example", ["alice@a.example"])
    [mail] = mta.wait_for("alice")
    assert (mail.sender, mail.recipients) == ("x@y.example", ("alice@a.example",))
    assert mail["Subject"] == "Grüße"
    assert mail.text == "schöne Grüße\n"
    assert mail.raw.startswith(b"Return-Path: <x@y.example>\nDelivered-To: alice@a.example\nReceived: ")
    assert mta.mails("alice@A.example")[0].raw == mail.raw
    assert mta.mails("bob") == []
    assert mail["X-None"] is None


def test_an_unknown_user_bounces_to_the_sender_who_is_here(mta):
    mta.control("checkrcpt", "0")
    mta.submit("bob@a.example", "nobody@a.example", TEXT)
    [bounce] = mta.wait_for("bob")
    assert bounce.sender == ""
    assert "nobody@a.example" in bounce.text


def test_mail_to_the_world_stays_here_whatever_its_address(mta):
    for to in ("carol@far.example", "carol@[203.0.113.9]"):
        mta.submit("alice@a.example", to, TEXT)
        [mail] = mta.wait_for(to)
        assert mail.recipients == (to,)
    assert [mail.recipient for mail in mta.sent("far.example")] == ["carol@far.example"]
    assert len(mta.sent()) == 2


def test_one_transaction_a_domain_is_one_mail(mta):
    mta.submit("alice@a.example", ["b@far.example", "c@far.example"], ".dots\n..and more\n.")
    [mail] = mta.wait_for("c@far.example")
    assert sorted(mail.recipients) == ["b@far.example", "c@far.example"]
    assert mail.raw.endswith(b"\n.dots\n..and more\n.\n")


def test_a_domain_that_does_not_exist_is_a_bounce(mta):
    mta.submit("alice@a.example", "x@nowhere.invalid", TEXT)
    [bounce] = mta.wait_for("alice")
    assert "x@nowhere.invalid" in bounce.text


def test_large_mail_goes_both_ways(mta):
    large = b"Subject: large\n\n" + b"0123456789\n" * 50_000
    mta.submit("alice@a.example", ["bob@a.example", "x@far.example"], large)
    for whom in ("bob", "x@far.example"):
        [mail] = mta.wait_for(whom, seconds=20)
        assert mail.raw.endswith(large)


def test_several_mails_come_oldest_first(mta):
    for number in range(3):
        mta.submit("x@y.example", "alice@a.example", f"Subject: {number}\n\n")
        mta.wait_for("alice", number + 1)
    assert {mail["Subject"] for mail in mta.wait_for("alice", 3)} == {"0", "1", "2"}


def test_what_does_not_come_is_told_with_the_log(mta):
    mta.submit("x@y.example", "alice@a.example", TEXT)
    mta.wait_for("alice")
    with pytest.raises(
        NotArrived, match=r"1 of 2 mails for alice within 0.05 s; the log's last lines:\n(.*\n)*.*local"
    ):
        mta.wait_for("alice", 2, seconds=0.05)


def test_a_user_that_is_not_there_is_a_mistake_of_the_test(mta):
    with pytest.raises(TestingError, match=r"no user 'carol' at a\.example; there are: alice, bob"):
        mta.wait_for("carol")


def test_mistakes_are_told_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for options, said in (
        ({"users": "alice"}, r"users=\['alice'\]"),
        ({"users": []}, "somebody to get mail"),
        ({"users": ["Alice"]}, "small ones: alice"),
        ({"domain": "localhost"}, "localhost.example"),
        ({"control": {"hoks": "greylist"}}, "no control file 'hoks'; did you mean hooks"),
        ({"control": {"zzzzzz": "1"}}, "no control file 'zzzzzz'; see 'openqmail control list'"),
        ({"logins": {"a b": "secret"}}, "'a b' has a login with a colon, a blank"),
        ({"logins": {"alice": ""}}, "'alice' needs a password"),
    ):
        with pytest.raises(Exception, match=said):
            Mta(**options)
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_control_file_is_told_while_it_runs_too(mta):
    with pytest.raises(OpenqmailError, match="no control file 'databites'; did you mean databytes"):
        mta.control("databites", "1000")
    assert not os.path.exists(os.path.join(mta.home, "control", "databites"))


@pytest.fixture(scope="module")
def certificate():
    return self_signed("localhost", time.time()).decode()


def provider(service, certificate):
    control = {"listen": f"{service} 127.0.0.1:0", "servercert.pem": certificate, "rules": ""}
    return Mta(control=control, logins={"shop": "s3cret word"})


@pytest.mark.parametrize("service", ["submission", "submissions"])
def test_mail_is_handed_in_by_tls_and_a_login_where_that_is_asked(service, certificate):
    with provider(service, certificate) as mta:
        mta.submit("shop@a.example", "carol@customer.example", TEXT)
        [mail] = mta.wait_for("carol@customer.example")
        assert "(TLS" in mail["Received"] and "with ESMTPSA" in mail["Received"]
        assert any(line.startswith("auth: accepted <shop>") for line in mta.log)


def test_only_the_right_password_lets_in_by_every_mechanism(certificate):
    with provider("submissions", certificate) as mta:
        for mechanism in ("cram_md5", "plain", "login"):
            for password in ("another", "s3cret word"):
                with mta.smtp() as client:
                    client.ehlo()
                    client.user, client.password = "shop", password
                    attempt = partial(client.auth, mechanism.upper().replace("_", "-"))
                    auth = getattr(client, f"auth_{mechanism}")
                    if password == "another":
                        with pytest.raises(smtplib.SMTPAuthenticationError):
                            attempt(auth, initial_response_ok=mechanism != "cram_md5")
                    else:
                        attempt(auth, initial_response_ok=mechanism != "cram_md5")
        assert "SCRAM-SHA-256" in _offered(mta)


def test_without_a_login_a_service_for_people_refuses_at_once(certificate):
    control = {"listen": "submissions 127.0.0.1:0", "servercert.pem": certificate}
    with Mta(control=control) as mta, pytest.raises(smtplib.SMTPSenderRefused) as refused:
        mta.submit("shop@a.example", "carol@customer.example", TEXT)
    assert refused.value.smtp_code == 530


def _offered(mta):
    with mta.smtp() as client:
        client.ehlo()
        return client.esmtp_features["auth"].split()


def test_a_bad_control_file_stops_the_start_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = threading.enumerate()
    with pytest.raises(ControlError, match="control/databytes"), Mta(control={"databytes": "many"}):
        pass
    assert threading.enumerate() == before
    assert list(tmp_path.iterdir()) == []


def test_a_control_file_is_read_at_once_and_a_bad_one_is_taken_back(mta):
    mta.control("databytes", "100")
    with pytest.raises(smtplib.SMTPException):
        mta.submit("x@y.example", "alice@a.example", TEXT * 100)
    port = mta.port
    with pytest.raises(ControlError, match="control/databytes"):
        mta.control("databytes", "many")
    with pytest.raises(ControlError, match="nothing_of_that_name"):
        mta.control("hooks", "nothing_of_that_name")
    mta.control("databytes", None)
    mta.submit("x@y.example", "alice@a.example", TEXT * 100)
    mta.wait_for("alice")
    assert mta.port == port


def first_line(mta, said=b""):
    with socket.create_connection(("127.0.0.1", mta.port), 10) as peer:
        peer.sendall(said)
        return peer.makefile("rb").readline()


def test_an_open_listener_is_told_its_new_settings_and_the_options_of_its_line(mta):
    port = mta.port
    assert first_line(mta).startswith(b"220 a.example")
    mta.control("smtpgreeting", "mx.a.example")
    assert first_line(mta).startswith(b"220 mx.a.example")
    mta.control("rules", "192.0.2.9:deny\n127.:allow")
    mta.control("listen", "smtp 127.0.0.1:0 proxy=127.0.0.1")
    assert first_line(mta, b"PROXY TCP4 192.0.2.9 198.51.100.1 4711 25\r\n").startswith(b"554 ")
    mta.control("listen", "smtp 127.0.0.1:0")
    assert first_line(mta).startswith(b"220 mx.a.example")
    assert mta.port == port


def test_mail_that_was_deferred_is_queued_and_flushed():
    with Mta(receivers={"far.example": Receiver([Answer(450, "4.7.1 greylisted")])}) as mta:
        mta.submit("alice@a.example", "bob@far.example", TEXT)
        with pytest.raises(NotArrived, match="greylisted"):
            mta.wait_for("bob@far.example", seconds=0.3)
        [message] = mta.queue()
        assert message.sender == "alice@a.example"
        assert [one.address for one in message.recipients] == ["bob@far.example"]
        mta.flush()
        mta.wait_for("bob@far.example")
        assert len(mta.receiver("far.example").attempts) == 2


@pytest.mark.parametrize("end", ["stop", "crash"])
def test_accepted_mail_outlives(end):
    receivers = {
        "later.example": Receiver([Answer(450)], then=Answer(450)),
        "slow.example": Receiver([Silence()]),
    }
    with Mta(users=["alice", "bob"], receivers=receivers) as mta:
        everywhere = ["bob@a.example", "x@later.example", "x@far.example"]
        for number in range(20):
            mta.submit(
                "alice@a.example", everywhere, f"Subject: {number}\n\n{('x' * 70 + chr(10)) * 150 * number}"
            )
        if end == "crash":  # a delivery that never ends by itself
            mta.submit("alice@a.example", "x@slow.example", TEXT)
        getattr(mta, end)()
        with pytest.raises(TestingError, match="does not run"):
            mta.queue()
        mta.start()
        wanted = {str(number) for number in range(20)}
        mta.wait_for("bob", 20, seconds=20)
        mta.wait_for("x@far.example", 20, seconds=20)
        assert {mail["Subject"] for mail in mta.mails("bob")} == wanted
        assert {mail["Subject"] for mail in mta.sent("far.example")} == wanted
        later = [(to.address, to.state) for message in mta.queue() for to in message.recipients]
        assert later.count(("x@later.example", "todo")) == 20


def test_nothing_is_left_behind_when_a_test_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before, descriptors = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    with pytest.raises(ZeroDivisionError), Mta(receivers={"far.example": Receiver(then=Silence())}) as mta:
        mta.submit("alice@a.example", ["alice@a.example", "x@far.example"], TEXT)
        half = smtplib.SMTP("127.0.0.1", mta.port)  # a session that is under way
        half.ehlo()
        1 / 0  # noqa: B018
    half.close()
    gc.collect()
    assert set(threading.enumerate()) <= before  # some of them may have ended
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert list(tmp_path.iterdir()) == []
    mta.close()  # once more is no mistake


def test_several_at_once_know_nothing_of_each_other():
    with Mta(domain="a.example") as one, Mta(domain="b.example", control={"databytes": "100"}) as other:
        assert one.port != other.port
        one.submit("x@y.example", "alice@a.example", TEXT)
        other.submit("x@y.example", "alice@b.example", "Subject: short\n\n")
        one.wait_for("alice")
        other.wait_for("alice")
        assert (len(one.mails("alice")), len(other.mails("alice"))) == (1, 1)


def test_one_relays_to_another():
    with Mta(domain="b.example") as there:
        routes = {"smtproutes": f"b.example:[127.0.0.1]:{there.port}"}
        with Mta(domain="a.example", control=routes) as here:
            here.submit("alice@a.example", "alice@b.example", TEXT)
            [mail] = there.wait_for("alice")
            assert mail.raw.count(b"\nReceived: ") == 2
            assert here.sent() == []


def test_a_coroutine_goes_on_while_it_waits():
    async def story():
        turns = 0

        async def count():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with AsyncMta(users=["alice"], receivers={"far.example": Receiver([Answer(450)])}) as mta:
            counting = asyncio.create_task(count())
            await mta.submit("x@y.example", ["alice@a.example", "b@far.example"], TEXT)
            [mail] = await mta.wait_for("alice")
            assert mail.sender == "x@y.example"
            with pytest.raises(NotArrived):
                await mta.wait_for("b@far.example", seconds=0.3)
            assert len(await mta.queue()) == 1
            await mta.crash()
            await mta.start()
            await mta.control("databytes", "1000")
            counting.cancel()
            assert turns > 2
        return mta.mta.home

    assert not os.path.exists(asyncio.run(story()))


def test_a_coroutine_that_is_cancelled_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def use(begun):
        begun.set()
        async with AsyncMta():
            await asyncio.sleep(3600)

    async def story():
        for turns in range(0, 30, 3):
            begun = asyncio.Event()
            task = asyncio.create_task(use(begun))
            await begun.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(story())
    assert [one for one in threading.enumerate() if one.name.startswith("openqmail")] == []
    assert list(tmp_path.iterdir()) == []


AS_NOBODY = """
import os, smtplib, sys
import openqmail.core.testing.mta, openqmail.core.testing.virtual
from openqmail.core.control import extensions
from openqmail.core.control.owner import load_late
from openqmail.core.testing import Mta, VirtualMta
for group, name in (("services", "smtp"), ("transports", "smtp")):
    extensions.load("openqmail." + group, name)
load_late()
import concurrent.futures.thread, encodings.idna, encodings.ascii
import asyncio.unix_events, email.generator, email.contentmanager
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for kind in (Mta, VirtualMta):
    with kind() as mta:
        mta.submit("x@y.example", ["alice@a.example", "bob@far.example"], "Subject: hi\\n\\n")
        mta.wait_for("alice", seconds=20)
        mta.wait_for("bob@far.example", seconds=20)
print("done")
"""


def test_root_is_not_needed(tmp_path):
    tmp_path.chmod(0o777)
    environ = {**os.environ, "TMPDIR": "/tmp", "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", AS_NOBODY], capture_output=True, text=True, env=environ, cwd="/"
    )
    assert ran.stdout == "done\n", ran.stderr
