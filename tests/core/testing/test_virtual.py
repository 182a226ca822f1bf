"""Virtual time: days of retries by the schedule, hosts that misbehave, crashes, and nothing real."""

import asyncio
import os
import smtplib
import socket

import pytest

from openqmail.core.testing import (
    Accept,
    Answer,
    Drop,
    NotArrived,
    Receiver,
    Silence,
    TestingError,
    Unreachable,
    VirtualMta,
)
from openqmail.core.values import ControlError

TEXT = "Subject: hello\n\nhow are you?\n"
FIVE_DAYS = {"queuelifetime": str(5 * 86_400)}


def send(mta, *recipients):
    mta.submit("alice@a.example", recipients, TEXT)


def test_five_days_of_retries_follow_qmails_schedule_and_end_in_a_bounce():
    down = Receiver(then=Answer(450, "4.3.2 not now"))
    with VirtualMta(receivers={"far.example": down}, control=FIVE_DAYS) as mta:
        began = mta.now
        send(mta, "bob@far.example")
        mta.advance(days=5)
        assert mta.mails("alice") == []
        [message] = mta.queue()
        assert message.recipients[0].attempts == len(down.attempts)
        mta.advance(days=1)
        [bounce] = mta.mails("alice")
        assert "4.3.2 not now" in bounce.text
        assert mta.queue() == []
        assert mta.now - began == pytest.approx(6 * 86_400, abs=10)
    delays = [round(one.at - began) for one in down.attempts]
    # 400 s times the squares (qmail-send's chanskip for remote mail: 20 s a square root)
    assert delays == [pytest.approx(400 * step**2, abs=5) for step in range(34)]


def test_time_passes_only_when_it_is_let():
    with VirtualMta(receivers={"far.example": Receiver([Answer(450)])}) as mta:
        send(mta, "bob@far.example")
        mta.advance(seconds=1)
        at = mta.now
        mta.queue(), mta.mails("alice"), mta.sent(), mta.log
        assert mta.now == at
        mta.advance(minutes=6)
        assert mta.sent("far.example") == []
        mta.advance(minutes=1)
        [mail] = mta.sent("far.example")
        assert mail.sender == "alice@a.example"


def test_waiting_lets_virtual_time_pass_and_gives_up_in_it():
    with VirtualMta(receivers={"far.example": Receiver([Answer(450)])}) as mta:
        send(mta, "bob@far.example")
        with pytest.raises(NotArrived, match=r"no mail for bob@far\.example within 300 s"):
            mta.wait_for("bob@far.example", seconds=300)
        assert len(mta.wait_for("bob@far.example", seconds=300)) == 1


@pytest.mark.parametrize(
    "step",
    [
        Answer(450, "no"),
        Answer(451, "no", at="mail"),
        Answer(451, "no", at="data"),
        Answer(452, "no", at="message"),
        Answer(421, "no", at="greeting"),
        Answer(450, "no", at="ehlo"),
        Unreachable(),
        *(Drop(at) for at in ("greeting", "ehlo", "mail", "rcpt", "data", "message")),
        *(Silence(at) for at in ("connect", "greeting", "ehlo", "mail", "rcpt", "data", "message")),
    ],
    ids=str,
)
def test_what_fails_for_a_while_is_tried_again_until_it_is_taken_once(step):
    host = Receiver([step, step, step])
    with VirtualMta(receivers={"far.example": host}) as mta:
        send(mta, "bob@far.example")
        mta.wait_for("bob@far.example", seconds=2 * 86_400)
        mta.advance(days=1)
        assert mta.queue() == []
        assert len(mta.sent()) == 1
        assert mta.mails("alice") == []
    assert [one.step for one in host.attempts] == [step, step, step, Accept()]


@pytest.mark.parametrize("at", ["mail", "rcpt", "data", "message"])
def test_what_is_refused_for_good_bounces_at_once(at):
    host = Receiver(then=Answer(550, "5.7.1 not from you", at=at))
    with VirtualMta(receivers={"far.example": host}) as mta:
        send(mta, "bob@far.example")
        [bounce] = mta.wait_for("alice")
        assert "5.7.1 not from you" in bounce.text
        assert len(host.attempts) == 1


def test_hosts_are_told_apart_and_the_rest_of_the_world_is_one():
    receivers = {"yes.example": Receiver(), "*": Receiver(then=Answer(550))}
    with VirtualMta(receivers=receivers) as mta:
        send(mta, "a@yes.example", "b@no.example", "c@other.example", "d@nowhere.invalid")
        mta.advance(hours=1)
        assert [mail.recipient for mail in mta.sent()] == ["a@yes.example"]
        assert "d@nowhere.invalid" in "".join(mail.text for mail in mta.mails("alice"))
        assert len(receivers["*"].attempts) == 2


def test_large_mail_and_dots_arrive_as_they_were():
    large = b"Subject: large\n\n" + b".0123456789\n" * 50_000 + b".\n"
    with VirtualMta(users=["alice", "bob"]) as mta:
        mta.submit("alice@a.example", ["bob@a.example", "x@far.example"], large)
        for whom in ("bob", "x@far.example"):
            assert mta.wait_for(whom)[0].raw.endswith(large)


def test_the_standard_librarys_client_talks_to_it():
    with VirtualMta() as mta:
        with mta.smtp() as client:
            assert client.ehlo()[0] == 250
            assert client.mail("x@y.example")[0] == 250
            assert client.rcpt("alice@a.example")[0] == 250
            mta.advance(minutes=1)
            assert client.data(b"Subject: by hand\r\n\r\n")[0] == 250
        assert mta.wait_for("alice")[0]["Subject"] == "by hand"
        with mta.smtp() as client:
            mta.advance(hours=2)  # longer than a server waits
            with pytest.raises(smtplib.SMTPServerDisconnected):
                client.noop()
                client.noop()


@pytest.mark.parametrize("power_cut", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_accepted_mail_outlives_a_crash(seed, power_cut):
    host = Receiver([Silence("message"), Answer(450)])
    with VirtualMta(users=["alice", "bob"], receivers={"far.example": host}, seed=seed) as mta:
        for number in range(5):
            mta.submit("x@y.example", ["bob@a.example", f"{number}@far.example"], f"Subject: {number}\n\n")
        mta.crash(power_cut=power_cut)
        mta.start()
        mta.advance(days=1)
        assert {mail["Subject"] for mail in mta.mails("bob")} == set("01234")
        assert {mail["Subject"] for mail in mta.sent("far.example")} == set("01234")
        assert mta.queue() == []


def test_an_end_in_order_keeps_what_waits_and_a_start_goes_on():
    with VirtualMta(receivers={"far.example": Receiver([Answer(450)])}) as mta:
        send(mta, "bob@far.example")
        mta.stop()
        with pytest.raises(TestingError, match="does not run"):
            mta.advance(days=1)
        mta.start()
        assert len(mta.queue()) == 1
        mta.flush()
        mta.wait_for("bob@far.example", seconds=60)


def test_control_files_are_obeyed_and_bad_ones_taken_back():
    with VirtualMta(control={"databytes": "100"}) as mta:
        with pytest.raises(smtplib.SMTPException):
            mta.submit("x@y.example", "alice@a.example", TEXT * 100)
        with pytest.raises(ControlError):
            mta.control("databytes", "many")
        with pytest.raises(ControlError):
            mta.control("hooks", "nothing_of_that_name")
        mta.control("databytes", None)
        mta.submit("x@y.example", "alice@a.example", TEXT * 100)
        mta.wait_for("alice")


def test_no_socket_is_opened_to_anywhere(monkeypatch):
    def refuse(*_):
        raise AssertionError("a real connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)
    routes = {"smtproutes": "routed.example:[127.0.0.1]:2525"}
    with VirtualMta(control=routes) as mta:
        send(mta, "a@far.example", "b@[203.0.113.9]", "c@routed.example")
        mta.advance(hours=1)
        assert {mail.recipient for mail in mta.sent()} == {"a@far.example", "b@[203.0.113.9]"}
        assert len(mta.queue()) == 1


def test_it_says_that_it_cannot_be_used_inside_a_loop():
    async def story():
        with pytest.raises(TestingError, match="to_thread"):
            VirtualMta().start()
        return await asyncio.to_thread(days)

    def days():
        with VirtualMta() as mta:
            send(mta, "bob@far.example")
            return mta.wait_for("bob@far.example")

    assert len(asyncio.run(story())) == 1


def test_its_folder_goes_with_it():
    with VirtualMta() as mta:
        home = mta.home
        assert os.path.isdir(home)
    assert not os.path.exists(home)
