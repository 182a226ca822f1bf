"""AUTH as a client of the SMTP service sees it, and what a login may do then."""

import asyncio
import base64
import ssl
from pathlib import Path
from typing import Any

import pytest

from certificates import Authority
from logins import ALICE, CRAM, CRAM_PASSWORD, PASSWORD
from openqmail.core import log
from openqmail.core.control.rules import Rule, Rules
from openqmail.core.control.settings import Settings
from openqmail.core.sasl import Facts, client_mechanism
from openqmail.core.smtpd import SmtpService, SubmissionService, SubmissionsService
from openqmail.core.tls import ServerTls, facts_of

AUTHORITY = Authority()
OURS = AUTHORITY.issue(hosts=("a.example",))
ANYWHERE = b"friend@elsewhere.example"
RIGHT = b"\0alice\0" + PASSWORD


@pytest.fixture(autouse=True)
def quick(monkeypatch: Any) -> None:
    """Failures are answered at once."""
    monkeypatch.setattr("openqmail.core.gate.guard.pause", lambda _: 0.0)


@pytest.fixture
def clear(settings: Settings, running: Any, users: Path) -> Any:
    """A service that offers AUTH without TLS: `async with clear(**changes) as server`."""
    return lambda *hooks, **changes: running(
        settings, hooks, users=users, **{"authplain": True, "checkrcpt": False} | changes
    )


@pytest.fixture
def tls(tmp_path: Path) -> ServerTls:
    (tmp_path / "control" / "servercert.pem").write_bytes(OURS.pem)
    found = ServerTls.load(str(tmp_path / "control"), b"a.example")
    assert found is not None
    return found


def run(story: Any) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))


def b64(data: bytes) -> bytes:
    return base64.b64encode(data)


def context() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(cadata=AUTHORITY.certificate.decode())
    return made


async def hello(server: Any) -> Any:
    return await (await server.client()).hello()


async def log_in(client: Any, said: bytes = RIGHT) -> bytes:
    return await client.say(b"AUTH PLAIN " + b64(said))


# --- what is offered ------------------------------------------------------------------------------


def test_nothing_is_offered_in_clear_and_nothing_taken(settings: Any, running: Any, users: Path) -> None:
    async def story() -> None:
        async with running(settings, users=users) as server:
            client = await server.client()
            await client.reply()
            assert b"AUTH" not in await client.say(b"EHLO x.example")
            assert await log_in(client) == b"502 5.5.1 command not implemented\r\n"

    run(story)


@pytest.mark.parametrize("kind", [SmtpService, SubmissionService])
def test_who_forgot_tls_is_told_so(settings: Any, running: Any, users: Path, tls: Any, kind: Any) -> None:
    """538 of RFC 4954 section 6, 530 of RFC 3207 section 4."""

    async def story() -> None:
        async with running(settings, users=users, tls=tls, kind=kind) as server:
            client = await hello(server)
            assert await log_in(client) == b"538 5.7.11 STARTTLS first\r\n"
            mail = await client.say(b"MAIL FROM:<s@x.example>")
            if kind is SmtpService:
                assert mail[:3] == b"250"
            else:
                assert mail == b"530 5.7.0 Must issue a STARTTLS command first\r\n"
                await client.say(b"STARTTLS")
                await client.start_tls(context())
                await client.say(b"EHLO x.example")
                mail = await client.say(b"MAIL FROM:<s@x.example>")
                assert mail == b"530 5.7.0 authentication required\r\n"

    run(story)


def test_nothing_is_offered_where_nobody_can_log_in(clear: Any, users: Path) -> None:
    users.write_bytes(b"")

    async def story() -> None:
        async with clear() as server:
            client = await server.client()
            await client.reply()
            assert b"AUTH" not in await client.say(b"EHLO x.example")

    run(story)


def test_under_tls_it_is_offered_with_channel_binding(
    settings: Any, running: Any, users: Any, tls: Any
) -> None:
    async def story() -> None:
        async with running(settings, users=users, tls=tls) as server:
            client = await hello(server)
            await client.say(b"STARTTLS")
            await client.start_tls(context())
            said = await client.say(b"EHLO x.example")
            assert b"250-AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN CRAM-MD5\r\n" in said

    run(story)


# --- the exchanges --------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", [b"PLAIN", b"LOGIN", b"SCRAM-SHA-256", b"SCRAM-SHA-256-PLUS"])
@pytest.mark.parametrize("implicit", [False, True])
def test_every_mechanism_over_tls_lets_mail_through_to_anywhere(
    settings: Any, running: Any, users: Path, tls: Any, mechanism: bytes, implicit: bool
) -> None:
    async def story() -> None:
        kind = SubmissionsService if implicit else SubmissionService
        async with running(settings, users=users, tls=tls, kind=kind) as server:
            client = await server.client(context() if implicit else None)
            await client.reply()
            await client.say(b"EHLO client.example")
            if not implicit:
                await client.say(b"STARTTLS")
                await client.start_tls(context())
                await client.say(b"EHLO client.example")
            bindings = {}
            if mechanism.endswith(b"PLUS"):
                peer = client.writer.get_extra_info("ssl_object")
                bindings = facts_of(peer, False, peer.getpeercert(True)).bindings
            talk = client_mechanism([mechanism], ALICE, PASSWORD, Facts(True, bindings))
            assert talk is not None
            first = talk.initial()
            reply = await client.say(b"AUTH " + mechanism + (b"" if first is None else b" " + b64(first)))
            while reply[:3] == b"334":
                reply = await client.say(b64(talk.respond(base64.b64decode(reply[4:]))))
            talk.accepted()
            assert reply == b"235 2.7.0 authenticated\r\n"
            await client.data(ANYWHERE)
            assert (await client.say(b"Subject: x\r\n\r\nx\r\n."))[:3] == b"250"
            await client.say(b"QUIT")
            await server.quiet()
            [(_, body)] = server.queue.messages
            assert b" with ESMTPSA tls " in body.replace(b"\n  ", b" ")
            assert b"alice" not in body
            [accepted] = [one for one in server.log.events if isinstance(one, log.SmtpdAccepted)]
            assert accepted.login == ALICE
            assert accepted.line().endswith(b" login <alice>")

    run(story)


def test_a_login_is_bound_to_the_certificate_of_the_name_that_was_asked_for(
    settings: Any, running: Any, users: Path, control: Path
) -> None:
    (control / "servercert.pem").write_bytes(OURS.pem)
    (control / "certs").mkdir()
    (control / "certs" / "b.example.pem").write_bytes(AUTHORITY.issue(hosts=("b.example",)).pem)
    plus = [b"SCRAM-SHA-256-PLUS"]

    async def story() -> None:
        async with running(settings, users=users, tls=ServerTls.load(str(control), b"a.example")) as server:
            for name in ("a.example", "b.example"):
                client = await hello(server)
                await client.say(b"STARTTLS")
                await client.start_tls(context(), name)
                await client.say(b"EHLO client.example")
                peer = client.writer.get_extra_info("ssl_object")
                bindings = facts_of(peer, False, peer.getpeercert(True)).bindings
                talk = client_mechanism(plus, ALICE, PASSWORD, Facts(True, bindings))
                assert talk is not None
                reply = await client.say(b"AUTH " + plus[0] + b" " + b64(talk.initial() or b""))
                while reply[:3] == b"334":
                    reply = await client.say(b64(talk.respond(base64.b64decode(reply[4:]))))
                assert reply[:3] == b"235", name

    run(story)


@pytest.mark.parametrize(("flag", "code"), [(b"n", b"334 "), (b"y", b"535 "), (b"p=tls-unique", b"501 ")])
def test_who_believes_that_we_cannot_bind_has_somebody_between_who_hid_it(
    settings: Any, running: Any, users: Any, tls: Any, flag: bytes, code: bytes
) -> None:
    """`y` (RFC 5802 section 6): a client that can bind was not shown -PLUS, which we have offered; so it is
    denied before it has proved anything."""

    async def story() -> None:
        async with running(settings, users=users, tls=tls) as server:
            client = await hello(server)
            await client.say(b"STARTTLS")
            await client.start_tls(context())
            assert b"SCRAM-SHA-256-PLUS" in await client.say(b"EHLO x.example")
            first = flag + b",,n=alice,r=nonce"
            assert (await client.say(b"AUTH SCRAM-SHA-256 " + b64(first)))[:4] == code
            if code != b"334 ":
                assert (await client.say(b"MAIL FROM:<s@client.example>"))[:3] == b"250"
                assert (await client.say(b"RCPT TO:<%b>" % ANYWHERE))[:3] == b"553"

    run(story)


def test_cram_md5_in_the_dialogue_of_its_rfc(clear: Any) -> None:
    async def story() -> None:
        async with clear() as server:
            client = await hello(server)
            challenge = await client.say(b"AUTH CRAM-MD5")
            talk = client_mechanism([b"CRAM-MD5"], CRAM, CRAM_PASSWORD, Facts())
            assert talk is not None
            assert challenge[:4] == b"334 "
            assert (await client.say(b64(talk.respond(base64.b64decode(challenge[4:])))))[:3] == b"235"

    run(story)


@pytest.mark.parametrize(
    ("lines", "replies"),
    [
        ([b"AUTH PLAIN " + b64(b"\0alice\0guess")], [b"535 5.7.8"]),
        ([b"AUTH PLAIN " + b64(b"\0nobody\0" + PASSWORD)], [b"535 5.7.8"]),
        ([b"AUTH PLAIN " + b64(b"bob\0alice\0" + PASSWORD)], [b"535 5.7.8"]),
        ([b"AUTH PLAIN =" ], [b"501 5.5.2"]),
        ([b"AUTH PLAIN", b""], [b"334 \r\n", b"501 5.5.2"]),
        ([b"AUTH PLAIN", b64(RIGHT)], [b"334 \r\n", b"235 2.7.0"]),
        ([b"AUTH LOGIN", b64(ALICE), b64(PASSWORD)], [b"334 VXNlcm5hbWU6\r", b"334 UGFzc3dvcmQ6\r", b"235"]),
        ([b"AUTH LOGIN " + b64(ALICE), b64(PASSWORD)], [b"334", b"235"]),
        ([b"auth plain " + b64(RIGHT)], [b"235 2.7.0"]),
        ([b"AUTH LOGIN", b"*"], [b"334", b"501 5.7.0"]),
        ([b"AUTH LOGIN", b64(ALICE), b"*"], [b"334", b"334", b"501 5.7.0"]),
        ([b"AUTH LOGIN", b"not base64!"], [b"334", b"501 5.5.2"]),
        ([b"AUTH LOGIN", b"YWxp\0Y2U="], [b"334", b"500 5.5.2"]),
        ([b"AUTH PLAIN not!base64"], [b"501 5.5.2"]),
        ([b"AUTH PLAIN AGFsaWNl=AHg"], [b"501 5.5.2"]),
        ([b"AUTH GSSAPI"], [b"504 5.5.4"]),
        ([b"AUTH XOAUTH2 " + b64(b"x")], [b"504 5.5.4"]),
        ([b"AUTH"], [b"501 5.5.4"]),
        ([b"AUTH PLAIN a b"], [b"501 5.5.4"]),
        ([b"AUTH CRAM-MD5 " + b64(b"x")], [b"501 5.5.2"]),
        ([b"AUTH PLAIN " + b"A" * 3000], [b"501 5.5.2"]),
        ([b"AUTH LOGIN", b"A" * 12_000], [b"334", b"501 5.5.2"]),
    ],
)  # fmt: skip
def test_each_way_of_saying_it_has_its_reply(clear: Any, lines: list[bytes], replies: list[bytes]) -> None:
    async def story() -> None:
        async with clear() as server:
            client = await hello(server)
            for line, reply in zip(lines, replies, strict=True):
                assert (await client.say(line))[: len(reply)] == reply
            if not replies[-1].startswith((b"235", b"500")):
                assert (await log_in(client))[:3] == b"235"  # nothing is left over of it

    run(story)


@pytest.mark.parametrize("begin", [b"AUTH PLAIN ", b"AUTH LOGIN\r\n"])
def test_a_line_of_more_than_12288_bytes_ends_the_session(clear: Any, begin: bytes) -> None:
    async def story() -> None:
        async with clear() as server:
            client = await hello(server)
            client.writer.write(begin + b"A" * (12_289 - 2) + b"\r\n")
            assert b"500 5.5.2 command line too long" in await client.rest()

    run(story)


def test_where_auth_is_not_offered_no_long_line_is_taken(settings: Any, running: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            client = await hello(server)
            client.writer.write(b"AUTH PLAIN " + b"A" * 2100 + b"\r\n")
            assert b"500 5.5.2 command line too long" in await client.rest()

    run(story)


def test_three_wrong_ones_end_the_session(clear: Any) -> None:
    async def story() -> None:
        async with clear() as server:
            client = await hello(server)
            replies = [await log_in(client, b"\0alice\0guess") for _ in range(3)]
            assert [reply[:9] for reply in replies] == [b"535 5.7.8", b"535 5.7.8", b"421 4.7.0"]
            assert await client.rest() == b""
            await server.quiet()
            [session] = [one for one in server.log.events if isinstance(one, log.SmtpdSession)]
            assert session.end == "logins"

    run(story)


def test_three_guesses_end_the_session_also_where_the_client_is_told_to_come_again(
    clear: Any, users: Path
) -> None:
    users.unlink()
    users.mkdir()  # cannot be read

    async def story() -> None:
        async with clear(checkpassword=(b"/bin/true",)) as server:
            client = await hello(server)
            replies = [await log_in(client, b"\0alice\0guess") for _ in range(3)]
            assert [reply[:9] for reply in replies] == [b"454 4.7.0", b"454 4.7.0", b"421 4.7.0"]
            assert await client.rest() == b""

    run(story)


@pytest.mark.parametrize("lines", [[b"AUTH PLAIN ="], [b"AUTH PLAIN", b""], [b"AUTH CRAM-MD5", b64(b"x")]])
def test_logins_that_make_no_sense_are_errors_like_any_other(clear: Any, lines: list[bytes]) -> None:
    async def story() -> None:
        async with clear(maxerrors=3) as server:
            client = await hello(server)
            await client.say(b"NONSENSE")
            for _ in range(2):
                for line in lines:
                    said = await client.say(line)
                assert said[:9] == b"501 5.5.2"
            assert await client.rest() == b"421 4.7.0 too many errors\r\n"
            await server.quiet()
            sessions = [one for one in server.log.events if isinstance(one, log.SmtpdSession)]
            assert sessions[-1].end == "errors"

    run(story)


def test_too_many_failures_lock_out_by_network_and_say_so(clear: Any) -> None:
    async def story() -> None:
        async with clear(authfailures=2) as server:
            client = await hello(server)
            for _ in range(2):
                await log_in(client, b"\0alice\0guess")
            another = await hello(server)
            assert await log_in(another) == b"421 4.7.0 too many failed logins, try again later\r\n"
            server.clock.advance(901)
            assert (await log_in(await hello(server)))[:3] == b"235"

    run(story)


# --- where it has no place ------------------------------------------------------------------------


def test_it_is_neither_taken_twice_nor_in_a_transaction_nor_before_ehlo(clear: Any) -> None:
    async def story() -> None:
        async with clear() as server:
            client = await server.client()
            await client.reply()
            assert (await log_in(client))[:3] == b"503"
            await client.say(b"EHLO x.example")
            await client.say(b"MAIL FROM:<s@client.example>")
            assert (await log_in(client))[:3] == b"503"
            await client.say(b"RSET")
            assert (await log_in(client))[:3] == b"235"
            assert await log_in(client) == b"503 5.5.1 already authenticated\r\n"
            await client.say(b"EHLO again.example")
            assert (await log_in(client))[:3] == b"503"

    run(story)


def test_what_is_sent_ahead_is_taken_in_its_order(clear: Any) -> None:
    async def story() -> None:
        async with clear() as server:
            client = await hello(server)
            client.writer.write(
                b"AUTH LOGIN\r\n" + b64(ALICE) + b"\r\n" + b64(PASSWORD)
                + b"\r\nMAIL FROM:<s@client.example>\r\nRCPT TO:<" + ANYWHERE + b">\r\n"
            )  # fmt: skip
            assert [(await client.reply())[:3] for _ in range(5)] == [b"334", b"334", b"235", b"250", b"250"]

    run(story)


def test_a_client_that_leaves_in_an_exchange_leaves_nothing_behind(clear: Any) -> None:
    async def story() -> None:
        async with clear() as server:
            for line in (b"AUTH LOGIN\r\n", b"AUTH PLAIN " + b64(RIGHT) + b"\r\n"):
                client = await hello(server)
                client.writer.write(line)
                client.writer.close()
            await server.quiet()
            while server.gate._authentication._open:
                await asyncio.sleep(0)

    run(story)


def test_starttls_ends_a_login_in_clear(settings: Any, running: Any, users: Any, tls: Any) -> None:
    async def story() -> None:
        async with running(settings, users=users, tls=tls, authplain=True) as server:
            client = await hello(server)
            assert (await log_in(client))[:3] == b"235"
            assert (await client.say(b"STARTTLS"))[:3] == b"220"
            await client.start_tls(context())
            await client.say(b"EHLO client.example")
            await client.say(b"MAIL FROM:<s@client.example>")
            assert (await client.say(b"RCPT TO:<%s>" % ANYWHERE))[:3] in (b"550", b"553", b"554")
            await client.say(b"RSET")
            assert (await log_in(client))[:3] == b"235"

    run(story)


def test_hooks_are_told_who_it_is(clear: Any) -> None:
    heard: list[bytes] = []

    class Hook:
        def mail(self, session: Any, sender: bytes) -> None:
            heard.append(session.identity)

    async def story() -> None:
        async with clear(("toy", Hook())) as server:
            client = await hello(server)
            await client.say(b"MAIL FROM:<s@client.example>")
            await client.say(b"RSET")
            await log_in(client)
            await client.say(b"MAIL FROM:<s@client.example>")
            assert heard == [b"", ALICE]

    run(story)


@pytest.mark.parametrize("value", [b"<>", b"alice@a.example", b"a+2Bb@a.example"])
def test_mails_auth_parameter_is_taken_where_auth_is_offered(clear: Any, value: bytes) -> None:
    async def story() -> None:
        async with clear() as server:
            client = await hello(server)
            assert (await client.say(b"MAIL FROM:<s@client.example> AUTH=" + value))[:3] == b"250"
            await client.say(b"RSET")
            assert (await client.say(b"MAIL FROM:<s@client.example> AUTH=a+zz"))[:3] == b"501"

    run(story)


# --- submission -----------------------------------------------------------------------------------


@pytest.fixture
def submission(clear: Any) -> Any:
    return lambda **changes: clear(kind=SubmissionService, **changes)


def test_submission_wants_a_login_first(submission: Any) -> None:
    async def story() -> None:
        async with submission() as server:
            client = await hello(server)
            assert (
                await client.say(b"MAIL FROM:<s@client.example>") == b"530 5.7.0 authentication required\r\n"
            )
            await log_in(client)
            assert (await client.data(ANYWHERE))[:3] == b"354"

    run(story)


def test_who_never_logs_in_is_not_asked_to_without_end(submission: Any) -> None:
    async def story() -> None:
        async with submission(maxerrors=3) as server:
            client = await hello(server)
            for _ in range(3):
                await client.say(b"MAIL FROM:<s@client.example>")
            assert await client.rest() == b"421 4.7.0 too many errors\r\n"

    run(story)


LOCAL = Rules({"127.": Rule(True, {"RELAYCLIENT": ""})})


def test_submission_wants_a_login_of_who_may_relay_by_rules_too(submission: Any) -> None:
    own = {b"alice": frozenset({b"alice@a.example"})}

    async def story() -> None:
        async with submission(rules=LOCAL, senders=own) as server:
            client = await hello(server)
            assert (await client.say(b"MAIL FROM:<bob@a.example>"))[:9] == b"530 5.7.0"
            await log_in(client)
            assert (await client.say(b"MAIL FROM:<bob@a.example>"))[:9] == b"553 5.7.1"
            assert (await client.say(b"MAIL FROM:<alice@a.example>"))[:3] == b"250"

    run(story)


@pytest.mark.parametrize(("rules", "code"), [(LOCAL, b"250"), (Rules({}), b"530")])
def test_rules_are_enough_for_submission_where_the_control_file_says_so(
    submission: Any, rules: Rules, code: bytes
) -> None:
    async def story() -> None:
        async with submission(rules=rules, submissionauth=False) as server:
            client = await hello(server)
            assert (await client.say(b"MAIL FROM:<s@client.example>"))[:3] == code

    run(story)


@pytest.mark.parametrize(
    ("sender", "code"),
    [
        (b"alice@a.example", b"250"),
        (b"Alice@A.example", b"250"),
        (b"anything@news.example", b"250"),
        (b"", b"250"),
        (b"bob@a.example", b"553"),
        (b"alice@sub.news.example", b"553"),
        (b"alice@[192.0.2.1]", b"553"),
    ],
)
def test_a_login_may_use_its_own_senders_alone(submission: Any, sender: bytes, code: bytes) -> None:
    own = {b"alice": frozenset({b"alice@a.example", b"@news.example"}), b"bob": frozenset({b"bob@a.example"})}

    async def story() -> None:
        async with submission(senders=own) as server:
            client = await hello(server)
            await log_in(client)
            assert (await client.say(b"MAIL FROM:<%s>" % sender))[:3] == code

    run(story)


def test_a_login_without_senders_may_use_none_where_others_have_some(submission: Any) -> None:
    async def story() -> None:
        async with submission(senders={b"bob": frozenset({b"bob@a.example"})}) as server:
            client = await hello(server)
            await log_in(client)
            assert (await client.say(b"MAIL FROM:<alice@a.example>"))[:9] == b"553 5.7.1"

    run(story)


def test_messages_and_recipients_of_a_login_are_limited_whoever_connects(submission: Any) -> None:
    async def story() -> None:
        async with submission(loginmessagesperhour=2, loginrecipientsperhour=3) as server:
            first, second = await hello(server), await hello(server)
            for client in (first, second):
                await log_in(client)
            assert (await first.data(ANYWHERE, b"a@b.example"))[:3] == b"354"
            assert (await first.say(b"."))[:3] == b"250"
            assert (await second.data(ANYWHERE))[:3] == b"354"
            assert (await second.say(b"."))[:3] == b"250"
            assert (await first.say(b"MAIL FROM:<s@a.example>"))[:9] == b"450 4.7.1"
            server.clock.advance(3600)
            assert (await first.data(*[ANYWHERE] * 3))[:3] == b"354"
            assert (await first.say(b"."))[:3] == b"250"
            await first.say(b"MAIL FROM:<s@a.example>")
            assert (await first.say(b"RCPT TO:<a@b.example>"))[:9] == b"452 4.7.1"

    run(story)


def test_logins_of_one_network_do_not_spend_each_others_messages_and_recipients(submission: Any) -> None:
    async def story() -> None:
        async with submission(loginmessagesperhour=1, loginrecipientsperhour=2) as server:
            for login in (RIGHT, b"\0carol\0" + CRAM_PASSWORD):
                client = await hello(server)
                assert (await log_in(client, login))[:3] == b"235"
                await client.say(b"MAIL FROM:<s@a.example>")
                said = [(await client.say(b"RCPT TO:<%b>" % ANYWHERE))[:9] for _ in range(3)]
                assert said == [b"250 2.1.5", b"250 2.1.5", b"452 4.7.1"]
                await client.say(b"RSET")
                assert (await client.say(b"MAIL FROM:<s@a.example>"))[:9] == b"450 4.7.1"

    run(story)


def test_a_login_that_is_written_in_another_case_has_no_limit_of_its_own(submission: Any) -> None:
    async def story() -> None:
        limits = {"loginmessagesperhour": 2, "loginrecipientsperhour": 2}
        async with submission(checkpassword=(b"/bin/true",), **limits) as server:
            replies = []
            for login in (b"alice", b"Alice", b"ALICE"):
                client = await hello(server)
                assert (await log_in(client, b"\0%b\0" % login + PASSWORD))[:3] == b"235"
                await client.say(b"MAIL FROM:<s@a.example>")
                replies.append((await client.say(b"RCPT TO:<a@b.example>"))[:3])
                await client.say(b"RSET")
            assert replies == [b"250", b"250", b"503"]

    run(story)


def test_what_a_login_has_spent_holds_up_no_other_login_of_its_network(submission: Any) -> None:
    async def story() -> None:
        async with submission(loginmessagesperhour=1, loginrecipientsperhour=1) as server:
            for who in (RIGHT, b"\0carol\0" + CRAM_PASSWORD):
                client = await hello(server)
                assert (await log_in(client, who))[:3] == b"235"
                assert (await client.data(ANYWHERE))[:3] == b"354"
                assert (await client.say(b"."))[:3] == b"250"
                assert (await client.say(b"MAIL FROM:<s@a.example>"))[:9] == b"450 4.7.1"

    run(story)


async def submitted(submission: Any, message: bytes) -> tuple[bytes, bytes]:
    """The reply, and what is in the queue behind our Received."""
    async with submission() as server:
        client = await hello(server)
        await log_in(client)
        await client.data(ANYWHERE)
        client.writer.write(message.replace(b"\n", b"\r\n") + b".\r\n")
        reply = await client.reply()
        body = bytes(server.queue.messages[0][1]) if server.queue.messages else b""
        return reply, body.partition(b" +0000\n")[2]


def test_what_is_missing_is_added_and_a_bcc_is_taken_out(submission: Any) -> None:
    async def story() -> None:
        message = b"From: a@a.example\nBcc: secret@a.example,\n other@a.example\nSubject: x\n"
        message += b"Resent-Bcc: secret@a.example\n\nBcc: stays\n"
        reply, body = await submitted(submission, message)
        assert reply[:3] == b"250"
        date, number, rest = body.split(b"\n", 2)
        assert date == b"Date: 14 Nov 2023 22:13:20 -0000"
        assert number.startswith(b"Message-ID: <20231114221320.")
        assert number.endswith(b".openqmail@a.example>")
        assert rest == b"From: a@a.example\nSubject: x\n\nBcc: stays\n"

    run(story)


@pytest.mark.parametrize(
    "message",
    [
        b"Date: today\nMessage-ID: <x@y>\n\n",
        b"date : today\nMESSAGE-ID: <x@y>\nSubject: a\n b\n\nbody\n",
        b"Date: today\nMessage-ID: <x@y>\n\n" + b"x" * 60 + b"\n" + (b"y" * 99 + b"\n") * 3000,
    ],
)
def test_what_is_whole_stays_as_it_is(submission: Any, message: bytes) -> None:
    async def story() -> None:
        assert (await submitted(submission, message))[1] == message

    run(story)


@pytest.mark.parametrize(
    ("message", "end"),
    [
        (b"", b""),
        (b"no header at all\n", b"\nno header at all\n"),
        (b"\nbody\n", b"\nbody\n"),
        (b"Subject: x\nno field\n", b"Subject: x\n\nno field\n"),
        (b"Subject: x\n", b"Subject: x\n"),
        (b"Date:\nMessage-Id: \n \t\nSubject: x\n\nDate:\n", b"Subject: x\n\nDate:\n"),
    ],
)
def test_messages_without_a_whole_header_get_one(submission: Any, message: bytes, end: bytes) -> None:
    async def story() -> None:
        _, body = await submitted(submission, message)
        assert body.startswith(b"Date: ")
        assert body.split(b"\n", 2)[2] == end

    run(story)


def test_a_header_that_never_ends_is_not_taken(submission: Any) -> None:
    async def story() -> None:
        reply, body = await submitted(submission, b"X-Long: yes\n" * 30_000 + b"Bcc: secret@a.example\n\n")
        assert reply == b"552 5.3.4 the header of the message is too large\r\n"
        assert body == b""

    run(story)


def test_mail_on_the_smtp_service_keeps_its_header(clear: Any) -> None:
    async def story() -> None:
        _, body = await submitted(clear, b"Bcc: x@a.example\n\n")
        assert body == b"Bcc: x@a.example\n\n"

    run(story)
