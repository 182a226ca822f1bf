"""The server machine: every row of its table, what it answers by itself, and where it ends."""

import base64
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.smtp import Offer, ServerSession, events
from openqmail.core.smtp.machine import FULL, OVERFULL
from openqmail.core.smtp.parameters import common
from openqmail.core.smtp.server import COMMAND_LINE
from openqmail.core.smtp.tables import TABLE, State
from openqmail.core.values import Recipient, Reply

OFFER = Offer(name=b"mx.test", size=5000, max_recipients=3, timeout=300.0)
WIDE = msgspec.structs.replace(OFFER, starttls=True, auth=(b"PLAIN", b"LOGIN"))
NO = Reply(550, b"5.7.1", (b"no",))
WAITING = (events.Hello, events.Mail, events.Rcpt, events.Data, events.MessageEnd)


class Shell:
    """A shell that accepts everything and keeps what it saw."""

    def __init__(self, offer: Offer = OFFER) -> None:
        self.machine = ServerSession(offer)
        self.machine.accept()
        assert self.machine.data_to_send() == b"220 mx.test ESMTP\r\n"
        self.events: list[events.Event] = []
        self.body = b""
        self.taken = b""  # of it, what belongs to messages that came to their end

    def pull(self, data: bytes) -> list[events.Event]:
        """The events of some bytes up to the first that waits, whose answer is owed."""
        self.machine.receive_data(data)
        found: list[events.Event] = []
        while not isinstance(event := self.machine.next_event(), events.NeedData | events.Paused):
            found.append(event)
        return found

    def say(self, data: bytes) -> bytes:
        """The answers to some bytes."""
        self.machine.receive_data(data)
        while not isinstance(event := self.machine.next_event(), events.NeedData):
            assert not isinstance(event, events.Paused)
            if isinstance(event, events.Chunk):
                self.body += event.data
            else:
                self.events.append(event)
            if isinstance(event, events.Data):
                self.begun = len(self.body)
            elif isinstance(event, events.MessageEnd):
                self.taken += self.body[self.begun :]
            if isinstance(event, WAITING):
                self.machine.accept()
        return self.machine.data_to_send()

    def at(self, state: State) -> "Shell":
        """Go there."""
        way = {
            State.START: b"NOOP\r\n",
            State.READY: b"EHLO c\r\n",
            State.MAIL: b"EHLO c\r\nMAIL FROM:<s@x>\r\n",
            State.RCPT: b"EHLO c\r\nMAIL FROM:<s@x>\r\nRCPT TO:<r@x>\r\n",
        }
        self.say(way[state])
        self.events.clear()
        assert self.machine.state is state
        return self


COMMANDS = {
    b"EHLO": b"EHLO client\r\n",
    b"HELO": b"HELO client\r\n",
    b"MAIL": b"MAIL FROM:<a@b>\r\n",
    b"RCPT": b"RCPT TO:<a@b>\r\n",
    b"DATA": b"DATA\r\n",
    b"RSET": b"RSET\r\n",
    b"NOOP": b"NOOP\r\n",
    b"VRFY": b"VRFY joe\r\n",
    b"HELP": b"HELP\r\n",
    b"QUIT": b"QUIT\r\n",
    b"STARTTLS": b"STARTTLS\r\n",
    b"AUTH": b"AUTH PLAIN AGEAYg==\r\n",
}
STATES = (State.START, State.READY, State.MAIL, State.RCPT)
CELLS = [(verb, state) for verb in COMMANDS for state in STATES]


def test_the_table_is_whole() -> None:
    assert set(TABLE) == {*COMMANDS, b"BDAT", b"XCLIENT"}  # these have files of their own
    assert all(state in row for row in TABLE.values() for state in STATES)


@pytest.mark.parametrize(("verb", "state"), CELLS)
def test_each_transition_leads_where_the_table_says(verb: bytes, state: State) -> None:
    shell = Shell(WIDE).at(state)
    machine = shell.machine
    after = TABLE[verb][state]
    found = shell.pull(COMMANDS[verb].lower() if state is State.MAIL else COMMANDS[verb])
    if isinstance(after, Reply):
        assert machine.state is state and not found
        assert machine.data_to_send() == after.encode()
        return
    machine.accept()
    assert machine.state is after
    assert machine.data_to_send()[:1] in b"23"


@pytest.mark.parametrize(("verb", "state"), CELLS)
def test_what_is_refused_leaves_the_state(verb: bytes, state: State) -> None:
    if isinstance(TABLE[verb][state], Reply) or verb in {b"RSET", b"NOOP", b"VRFY", b"HELP", b"QUIT"}:
        return
    shell = Shell(WIDE).at(state)
    assert len(shell.pull(COMMANDS[verb])) == 1
    shell.machine.send(NO)
    assert shell.machine.state is state
    assert shell.machine.data_to_send() == b"550 5.7.1 no\r\n"


@pytest.mark.parametrize("reply", [None, Reply(451, b"4.3.0", (b"later",)), NO])
def test_after_a_message_a_new_transaction_may_begin(reply: Reply | None) -> None:
    shell = Shell().at(State.RCPT)
    shell.pull(b"DATA\r\n")
    shell.machine.accept()
    found = shell.pull(b"hello\r\n.\r\nMAIL FROM:<again@x>\r\n")
    assert found == [events.Chunk(b"hello\n"), events.MessageEnd(7)]
    shell.machine.data_to_send()
    if reply is None:
        shell.machine.accept()
        assert shell.machine.data_to_send() == b"250 2.0.0 ok\r\n"
    else:
        shell.machine.send(reply)
        assert shell.machine.data_to_send() == reply.encode()
    assert shell.machine.next_event() == events.Mail(b"again@x")


def test_a_whole_session_pipelined_and_half_closed() -> None:
    shell = Shell()
    said = shell.say(
        b"EHLO client.test\r\nMAIL FROM:<s@x> SIZE=10 BODY=8BITMIME\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\n"
        b"DATA\r\nHi\r\n..\r\n.\r\nQUIT\r\n"
    )
    assert said == (
        b"250-mx.test\r\n250-PIPELINING\r\n250-SIZE 5000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n"
        b"250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n250-LIMITS RCPTMAX=3\r\n250 HELP\r\n"
        b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n250 2.1.5 ok\r\n354 go ahead\r\n250 2.0.0 ok\r\n"
        b"221 2.0.0 mx.test closes the connection\r\n"
    )
    assert shell.body == b"Hi\n.\n"
    assert shell.events == [
        events.Hello(b"client.test", True),
        events.Mail(b"s@x", 10, True),
        events.Rcpt(Recipient(b"a@x")),
        events.Rcpt(Recipient(b"b@x")),
        events.Data(),
        events.MessageEnd(7),
        events.Quit(),
    ]
    assert shell.machine.closing


def test_the_end_of_input_is_told_after_all_else_was_answered() -> None:
    shell = Shell().at(State.RCPT)
    shell.machine.receive_data(b"DATA\r\nx\r\n.\r\n")
    shell.machine.receive_data(b"")
    said = shell.say(b"")
    assert said == b"354 go ahead\r\n250 2.0.0 ok\r\n"
    assert shell.events[-1] == events.Ended() and shell.machine.closing


@pytest.mark.parametrize("so_far", [b"", b"NOO", b"DATA\r\nhalf a mess", b"DATA\r\nhalf\r\n.\r"])
def test_the_end_of_input_in_the_midst_ends_the_session_silently(so_far: bytes) -> None:
    shell = Shell().at(State.RCPT)
    shell.say(so_far)
    assert shell.say(b"") == b""
    assert shell.events[-1] == events.Ended() and shell.machine.closing
    assert not any(isinstance(event, events.MessageEnd) for event in shell.events)


def test_pipelining_waits_for_each_answer() -> None:
    shell = Shell().at(State.READY)
    assert shell.pull(b"MAIL FROM:<s@x>\r\nRCPT TO:<r@x>\r\n") == [events.Mail(b"s@x")]
    assert shell.machine.next_event() is events.PAUSED
    assert shell.machine.deadline() is None
    shell.machine.send(NO)
    assert shell.machine.next_event() is events.NEED_DATA
    assert shell.machine.data_to_send() == b"550 5.7.1 no\r\n503 5.5.1 MAIL first\r\n"
    assert shell.machine.deadline() == 300.0


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (b"", b"500 5.5.2"),
        (b" ", b"500 5.5.2"),
        (b"XYZZY", b"500 5.5.2"),
        (b"\xe9\xff", b"500 5.5.2"),
        (b"EHLOx y", b"500 5.5.2"),
        (b"EXPN list", b"502 5.5.1"),
        (b"TURN", b"502 5.5.1"),
        (b"XCLIENT ADDR=192.0.2.1", b"502 5.5.1"),
        (b"STARTTLS", b"502 5.5.1"),
        (b"AUTH PLAIN", b"502 5.5.1"),
        (b"EHLO", b"501 5.5.4"),
        (b"EHLO two words", b"501 5.5.4"),
        (b"HELO \xe9", b"501 5.5.4"),
        (b"RSET now", b"501 5.5.4"),
        (b"QUIT now", b"501 5.5.4"),
        (b"MAIL", b"501 5.5.4"),
        (b"MAIL FROM", b"501 5.5.4"),
        (b"MAIL FROM:", b"501 5.1.7"),
        (b"MAIL FROM: <s@x>", b"501 5.1.7"),
        (b"MAIL FROM:s@x", b"501 5.1.7"),
        (b"MAIL FROM:<s>", b"501 5.1.7"),
        (b"MAIL FROM:<s@x>junk", b"501 5.5.4"),
        (b"MAIL FROM:<s@x>  SIZE=1", b"501 5.5.4"),
        (b"MAIL FROM:<s@x> SIZE=", b"501 5.5.4"),
        (b"MAIL FROM:<s@x> SIZE=1x", b"501 5.5.4"),
        (b"MAIL FROM:<s@x> SIZE=" + b"1" * 21, b"501 5.5.4"),
        (b"MAIL FROM:<s@x> SIZE", b"501 5.5.4"),
        (b"MAIL FROM:<s@x> BODY=BINARYMIME", b"501 5.5.4"),
        (b"MAIL FROM:<s@x> BODY", b"501 5.5.4"),
        (b"MAIL FROM:<s@x> SMTPUTF8=1", b"501 5.5.4"),
        (b"MAIL FROM:<s@x> SIZE=1 size=2", b"501 5.5.4"),
        (b"MAIL FROM:<s@x> -X", b"501 5.5.4"),
        (b"MAIL FROM:<s@x> RET=FULL", b"555 5.5.4"),
        (b"MAIL FROM:<s@x> NONSENSE", b"555 5.5.4"),
        (b"MAIL FROM:<s@x> SIZE=5001", b"552 5.3.4"),
        ("MAIL FROM:<ü@x>".encode(), b"553 5.6.7"),
        (b"MAIL FROM:<\xfc@x> SMTPUTF8", b"501 5.1.7"),
        (b"MAIL FROM:<s@x>\t ", b"250 2.1.0"),
        (b"mail from:<>", b"250 2.1.0"),
        (b"MAIL FROM:<s@x> SIZE=5000 BODY=7bit smtputf8", b"250 2.1.0"),
        ("MAIL FROM:<ü@x> SMTPUTF8".encode(), b"250 2.1.0"),
        (b"VRFY", b"252 2.5.0"),
        (b"NOOP anything", b"250 2.0.0"),
        (b"HELP me", b"214 2.0.0"),
    ],
)
def test_commands_of_the_wrong_form(command: bytes, code: bytes) -> None:
    shell = Shell().at(State.READY)
    assert shell.say(command + b"\r\n").startswith(code + b" ")
    assert shell.say(b"RSET\r\n") == b"250 2.0.0 ok\r\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (b"RCPT TO:<>", b"501 5.1.3"),
        (b"RCPT TO:<joe>", b"501 5.1.3"),
        (b"RCPT FROM:<r@x>", b"501 5.5.4"),
        (b"RCPT TO:<r@x> NOTIFY=NEVER", b"555 5.5.4"),
        (b"RCPT TO:<r@x> ", b"250 2.1.5"),
        ("RCPT TO:<ü@x>".encode(), b"553 5.6.7"),
        (b"RCPT TO:<postmaster>", b"250 2.1.5"),
    ],
)
def test_recipients_of_the_wrong_form(command: bytes, code: bytes) -> None:
    assert Shell().at(State.MAIL).say(command + b"\r\n").startswith(code + b" ")


def test_smtputf8_of_mail_holds_for_the_recipients_of_its_transaction() -> None:
    shell = Shell().at(State.READY)
    rcpt = "RCPT TO:<ü@bücher.example>\r\n".encode()
    assert shell.say(b"MAIL FROM:<s@x> SMTPUTF8\r\n" + rcpt).endswith(b"250 2.1.5 ok\r\n")
    assert shell.say(b"RSET\r\nMAIL FROM:<s@x>\r\n" + rcpt).endswith(b"SMTPUTF8\r\n")


def test_after_helo_there_are_no_parameters() -> None:
    shell = Shell()
    assert shell.say(b"HELO c\r\n") == b"250 mx.test\r\n"
    assert shell.say(b"MAIL FROM:<s@x> SIZE=1\r\n").startswith(b"555 5.5.4")
    assert shell.say(b"MAIL FROM:<s@x>\r\n").startswith(b"250")
    assert shell.say(b"EHLO c\r\nMAIL FROM:<s@x> SIZE=1\r\n").endswith(b"250 2.1.0 ok\r\n")


def test_recipients_are_counted_and_only_those_accepted() -> None:
    shell = Shell().at(State.MAIL)
    machine = shell.machine
    for _ in range(5):
        shell.pull(b"RCPT TO:<no@x>\r\n")
        machine.send(NO)
    machine.data_to_send()
    said = shell.say(b"RCPT TO:<r@x>\r\n" * 5)
    assert said == b"250 2.1.5 ok\r\n" * 3 + b"452 4.5.3 too many recipients\r\n" * 2
    assert shell.say(b"DATA\r\nx\r\n.\r\n") == b"354 go ahead\r\n250 2.0.0 ok\r\n"
    assert shell.say(b"MAIL FROM:<s@x>\r\nRCPT TO:<r@x>\r\n").endswith(b"250 2.1.5 ok\r\n")


def test_data_that_is_refused_leaves_the_transaction_open() -> None:
    shell = Shell().at(State.RCPT)
    shell.pull(b"DATA\r\n")
    shell.machine.send(Reply(451, b"4.3.0", (b"later",)))
    assert shell.machine.state is State.RCPT
    assert shell.say(b"DATA\r\n.\r\n") == b"451 4.3.0 later\r\n354 go ahead\r\n250 2.0.0 ok\r\n"
    assert shell.events[-1] == events.MessageEnd(0)


def test_rset_and_hello_end_a_transaction() -> None:
    shell = Shell().at(State.RCPT)
    shell.say(b"RSET\r\n")
    assert shell.events == [events.Reset(b"RSET")]
    shell.at(State.RCPT)
    shell.say(b"HELO c\r\n")
    assert shell.events == [events.Hello(b"c", False)]
    assert shell.say(b"RCPT TO:<r@x>\r\n").startswith(b"503 5.5.1 MAIL first")


def test_a_message_over_the_limit_is_swallowed_and_refused_at_its_end() -> None:
    shell = Shell().at(State.RCPT)
    assert shell.say(b"DATA\r\n" + b"x" * 500 + b"\r\n") == b"354 go ahead\r\n"
    for _ in range(30):
        assert shell.say((b"y" * 500 + b"\r\n") * 2) == b""
    assert len(shell.body) <= 5000
    assert shell.say(b".\r\n") == b"552 5.3.4 the message is over the size limit\r\n"
    assert isinstance(shell.events[-1], events.Reset)
    assert shell.say(b"MAIL FROM:<s@x>\r\n") == b"250 2.1.0 ok\r\n"


def test_a_message_just_within_the_limit_is_taken() -> None:
    line = b"z" * 98 + b"\r\n"
    shell = Shell().at(State.RCPT)
    assert shell.say(b"DATA\r\n" + line * 50 + b".\r\n").endswith(b"250 2.0.0 ok\r\n")
    assert shell.events[-1] == events.MessageEnd(5000)
    no_limit = Shell(msgspec.structs.replace(OFFER, size=0)).at(State.RCPT)
    assert no_limit.say(b"DATA\r\n" + line * 500 + b".\r\n").endswith(b"250 2.0.0 ok\r\n")


def test_a_message_with_a_long_line_is_refused_and_the_session_goes_on() -> None:
    shell = Shell().at(State.RCPT)
    said = shell.say(b"DATA\r\n" + b"x" * 999 + b"\r\n.\r\nNOOP\r\n")
    assert said == b"354 go ahead\r\n554 5.6.0 the message has a line over 998 octets\r\n250 2.0.0 ok\r\n"


POISON = [b"a\rb", b"a\nb", b"a\r\rb", b"\n", b"\r", b"a\0b", b"\r\n\n", b"\n\r\n", b"\r\r\n", b"a\r\n\rb"]


@pytest.mark.parametrize("poison", POISON)
def test_bare_cr_lf_and_nul_in_a_message_end_the_session(poison: bytes) -> None:
    shell = Shell().at(State.RCPT)
    said = shell.say(b"DATA\r\n" + poison + b"\r\n.\r\nNOOP\r\n")
    assert said.startswith(b"354 go ahead\r\n554 5.6.0 ") and said.count(b"\r\n") == 2
    assert isinstance(shell.events[-1], events.Aborted) and shell.machine.closing
    assert shell.say(b"NOOP\r\n") == b""


@pytest.mark.parametrize(
    "poison", [b"NOOP\n", b"NO\rOP\r\n", b"NOOP\r\r\n", b"NO\0OP\r\n", b"\n", b"\n\r\n", b"\r\r\n"]
)
@pytest.mark.parametrize("state", [State.START, State.READY, State.MAIL, State.RCPT])
def test_bare_cr_lf_and_nul_in_a_command_end_the_session(poison: bytes, state: State) -> None:
    shell = Shell().at(state)
    assert shell.say(poison + b"NOOP\r\n") == b"500 5.5.2 bare CR, bare LF or NUL in a command\r\n"
    assert isinstance(shell.events[-1], events.Aborted) and shell.machine.closing


def test_a_command_line_has_a_limit() -> None:
    shell = Shell().at(State.READY)
    assert shell.say(b"NOOP " + b"x" * (COMMAND_LINE - 7) + b"\r\n") == b"250 2.0.0 ok\r\n"
    assert shell.say(b"NOOP " + b"x" * (COMMAND_LINE - 6) + b"\r\n") == b"500 5.5.2 command line too long\r\n"
    assert shell.machine.closing
    endless = Shell()
    for _ in range(100):
        endless.say(b"x" * 100)
    assert endless.machine.closing


def test_too_many_errors_end_the_session() -> None:
    shell = Shell()
    said = shell.say(b"WHAT\r\n" * 30)
    assert said == b"500 5.5.2 command not recognized\r\n" * 20 + b"421 4.7.0 too many errors\r\n"
    assert isinstance(shell.events[-1], events.Aborted) and shell.machine.closing


def test_a_client_that_reads_no_answers_is_held() -> None:
    shell = Shell().at(State.READY)
    shell.pull(b"MAIL FROM:<s@x>\r\n")
    assert not shell.machine.full
    shell.machine.receive_data(b"NOOP\r\n" * FULL)
    assert shell.machine.full
    shell.machine.receive_data(b"x" * OVERFULL)
    shell.machine.receive_data(b"x")
    assert isinstance(shell.machine.next_event(), events.Aborted) and shell.machine.closing
    shell.machine.accept()  # too late, and harmless
    assert shell.machine.data_to_send().count(b"\r\n") == 1


def test_silence_ends_the_session() -> None:
    shell = Shell().at(State.RCPT)
    shell.say(b"DATA\r\nhalf")
    assert shell.machine.deadline() == 300.0
    shell.machine.timed_out()
    assert shell.say(b".\r\n") == b"421 4.4.2 timeout\r\n"
    assert shell.machine.closing and shell.machine.deadline() is None


GONE = Reply(421, b"4.3.2", (b"shutting down",))


def test_a_shutdown_comes_between_commands() -> None:
    shell = Shell().at(State.READY)
    shell.machine.shutdown(GONE)
    assert shell.machine.data_to_send() == b"421 4.3.2 shutting down\r\n" and shell.machine.closing
    assert shell.machine.next_event() == events.Aborted(GONE)


def test_a_shutdown_lets_a_message_end() -> None:
    shell = Shell().at(State.RCPT)
    shell.say(b"DATA\r\nhalf")
    shell.machine.shutdown(GONE)
    assert not shell.machine.closing
    assert shell.say(b" a line\r\n.\r\nNOOP\r\n") == b"250 2.0.0 ok\r\n421 4.3.2 shutting down\r\n"
    assert shell.machine.closing and shell.body == b"half a line\n"


def test_a_shutdown_waits_for_an_answer_that_is_owed() -> None:
    shell = Shell().at(State.READY)
    shell.pull(b"MAIL FROM:<s@x>\r\n")
    shell.machine.shutdown(GONE)
    shell.machine.accept()
    assert shell.machine.data_to_send() == b"250 2.1.0 ok\r\n421 4.3.2 shutting down\r\n"


def test_421_from_the_shell_ends_the_session() -> None:
    shell = Shell().at(State.MAIL)
    shell.pull(b"RCPT TO:<r@x>\r\nNOOP\r\n")
    shell.machine.send(GONE)
    assert shell.machine.closing and shell.machine.next_event() is events.NEED_DATA


def test_a_session_refused_at_the_greeting_waits_for_quit() -> None:
    machine = ServerSession(OFFER)
    machine.receive_data(b"EHLO early\r\nQUIT\r\n")
    assert machine.next_event() is events.PAUSED
    machine.send(Reply(554, b"", (b"no service",)))
    assert machine.next_event() == events.Quit()
    assert machine.data_to_send().startswith(
        b"554 no service\r\n503 5.5.1 no service here, only QUIT\r\n221 "
    )


def test_starttls_forgets_all_that_was_plain() -> None:
    shell = Shell(WIDE).at(State.READY)
    assert shell.pull(b"STARTTLS\r\nMAIL FROM:<injected@x>\r\n") == [events.StartTls()]
    shell.machine.accept()
    assert shell.machine.data_to_send() == b"220 2.0.0 ready to start TLS\r\n"
    assert shell.machine.next_event() is events.PAUSED
    shell.machine.receive_data(b"MAIL FROM:<late@x>\r\n")
    shell.machine.tls_started("facts")
    assert shell.machine.tls == "facts" and shell.machine.state is State.START
    assert shell.say(b"MAIL FROM:<s@x>\r\n") == b"503 5.5.1 EHLO or HELO first\r\n"
    said = shell.say(b"EHLO c\r\nSTARTTLS\r\n")
    assert b"STARTTLS\r\n" not in said and said.endswith(b"502 5.5.1 command not implemented\r\n")


def b64(data: bytes) -> bytes:
    return base64.b64encode(data)


def test_auth_with_an_initial_response() -> None:
    shell = Shell(WIDE).at(State.READY)
    assert shell.pull(b"auth plain " + b64(b"\0joe\0pw") + b"\r\n") == [events.Auth(b"PLAIN", b"\0joe\0pw")]
    shell.machine.authenticated(b"joe")
    assert shell.machine.data_to_send() == b"235 2.7.0 authenticated\r\n" and shell.machine.identity == b"joe"
    assert shell.say(b"AUTH PLAIN\r\n").startswith(b"503 5.5.1 already")
    assert shell.say(b"MAIL FROM:<s@x>\r\n").startswith(b"250")


def test_auth_with_challenges() -> None:
    shell = Shell(WIDE).at(State.READY)
    assert shell.pull(b"AUTH LOGIN\r\n") == [events.Auth(b"LOGIN", None)]
    for answer in (b"joe", b"", b"x" * 8000):
        shell.machine.send(Reply(334, b"", (b64(b"Name"),)))
        assert shell.machine.data_to_send() == b"334 TmFtZQ==\r\n" and shell.machine.state is State.AUTH
        assert shell.pull(b64(answer) + b"\r\n") == [events.AuthResponse(answer)]
    shell.machine.send(Reply(535, b"5.7.8", (b"wrong",)))
    assert shell.machine.state is State.READY
    assert shell.pull(b"AUTH PLAIN =\r\n") == [events.Auth(b"PLAIN", b"")]


@pytest.mark.parametrize(
    ("line", "code"), [(b"*", b"501 5.7.0"), (b"no base64!", b"501 5.5.2"), (b"QUIT!", b"501 5.5.2")]
)
def test_auth_that_breaks_off(line: bytes, code: bytes) -> None:
    shell = Shell(WIDE).at(State.READY)
    shell.pull(b"AUTH LOGIN\r\n")
    shell.machine.send(Reply(334, b"", (b"",)))
    shell.machine.data_to_send()
    assert shell.say(line + b"\r\n").startswith(code) and shell.machine.state is State.READY
    assert shell.events == [events.Reset(b"AUTH")]


def test_no_password_stays_in_what_is_kept_of_lines() -> None:
    common.cache_clear()
    shell = Shell(WIDE)
    assert shell.say(b"EHLO c.example\r\n").startswith(b"250")
    kept = common.cache_info().currsize
    for line in (b"AUTH PLAIN AGEAYg==\r\n", b"auth plain AGEAYg==\r\n"):
        shell.pull(line)
        shell.machine.send(NO)
    shell.pull(b"AUTH LOGIN\r\n")
    for answer in (b"YWxpY2U=\r\n", b"c2VjcmV0\r\n"):
        shell.machine.send(Reply(334, b"", (b"UGFzc3dvcmQ6",)))
        assert len(shell.pull(answer)) == 1
    shell.machine.send(NO)
    assert b"\r\n500 " in shell.say(b"c2VjcmV0\r\n")  # sent astray
    assert common.cache_info().currsize == kept == 1


@pytest.mark.parametrize(
    ("command", "code"),
    [(b"AUTH", b"501"), (b"AUTH X", b"504"), (b"AUTH PLAIN a b", b"501"), (b"AUTH PLAIN !", b"501 5.5.2")],
)
def test_auth_of_the_wrong_form(command: bytes, code: bytes) -> None:
    assert Shell(WIDE).at(State.READY).say(command + b"\r\n").startswith(code)


# --- any chunking, any junk ----------------------------------------------------------------

TOKENS = st.sampled_from(
    [
        *[command for verb, command in COMMANDS.items()],
        b"RCPT TO:<a@b>\r\nDATA\r\n",
        b"text\r\n",
        b"..\r\n",
        b".\r\n",
        b"\r\n.\r\n",
        b"EHLO c\r\nMAIL FROM:<s@x>\r\nRCPT TO:<r@x>\r\nDATA\r\n",
        b"junk\r\n",
        b"y" * 999 + b"\r\n",
    ]
)
POISONED = st.one_of(TOKENS, st.sampled_from([b"\r", b"\n", b"\0", b"x" * 3000]), st.binary(max_size=8))


def run(data: bytes, cuts: list[int]) -> tuple[bytes, bytes, list[events.Event]]:
    shell = Shell()
    places = sorted({0, len(data), *[c for c in cuts if c < len(data)]})
    said = b"".join([shell.say(data[a:b]) for a, b in pairwise(places)])
    if not shell.machine.closing:
        said += shell.say(b"")
    assert shell.machine.closing
    return said, shell.taken, shell.events


@given(st.lists(TOKENS, max_size=25).map(b"".join), st.lists(st.integers(1, 600), max_size=20))
@settings(max_examples=150)
def test_chunks_may_end_anywhere(data: bytes, cuts: list[int]) -> None:
    assert run(data, []) == run(data, cuts)


@given(st.lists(POISONED, max_size=30).map(b"".join), st.lists(st.integers(1, 600), max_size=20))
@settings(max_examples=150)
def test_junk_ends_in_the_same_way_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    said, _, found = run(data, [])
    again, _, same = run(data, cuts)
    assert (said, found) == (again, same)
    assert all(line[:3].isdigit() for line in said.splitlines())
    assert len(said) <= 200 * (data.count(b"\n") + 2)


@given(st.lists(st.binary(max_size=300), max_size=20))
@settings(max_examples=100)
def test_random_bytes_never_raise(chunks: list[bytes]) -> None:
    shell = Shell()
    for chunk in chunks:
        shell.machine.receive_data(chunk)
        shell.machine.next_event()
    shell.machine.timed_out()
    assert shell.machine.closing


def test_refusals_without_end_are_told_in_portions():
    shell = Shell()
    shell.machine.receive_data(b"BDAT 0\r\n" * 1000)
    breaths = 0
    while (event := shell.machine.next_event()) is events.BREATH:
        breaths += 1
    assert event is events.NEED_DATA and breaths == 3
    assert shell.machine.data_to_send().count(b"503") == 1000
