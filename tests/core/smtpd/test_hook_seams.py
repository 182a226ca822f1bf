"""Where hooks meet what else a session has: logins, TLS, front ends, chunks, core's own checks and bounds."""

import asyncio
from base64 import b64encode

import msgspec
import pytest

from handshakes import client_context, loaded, secured
from homes import Waiting
from logins import PASSWORD
from openqmail.core import log
from openqmail.core.control.settings import Listener
from openqmail.core.hooks import Accept, Defer, Drop, HangUp, Hold, Reject, Replace, SkipChecks
from openqmail.core.smtpd import SubmissionsService
from openqmail.core.values import Reply

ALICE_LOGS_IN = b"AUTH PLAIN " + b64encode(b"\0alice\0" + PASSWORD)
NO = Reject(Reply(550, b"5.7.1", (b"not this",)))
FAR = b"far@away.example"
STEPS = ("connect", "helo", "auth", "mail", "rcpt", "data", "header", "chunk", "message", "reset")


class Told:
    """Answers as it was made to, at once or later; remembers at which step it was told what."""

    def __init__(self, slow=False, **answers):
        self.slow, self.answers, self.asked = slow, answers, []

    def __getattr__(self, step):
        if step not in STEPS:
            raise AttributeError(step)

        def plain(session, *facts):
            self.asked.append((step, session, *facts))
            return self.answers.get(step)

        async def slowly(session, *facts):
            await asyncio.sleep(0)
            return plain(session, *facts)

        return slowly if self.slow else plain

    def steps(self):
        return [one[0] for one in self.asked]


@pytest.fixture(params=[False, True], ids=["plain", "slow"])
def slow(request):
    return request.param


def mailed(client, sender=b"s@client.example"):
    return client.say(b"MAIL FROM:<%s>" % sender)


def asked_for(client, recipient):
    return client.say(b"RCPT TO:<%s>" % recipient)


# --- logins and TLS -----------------------------------------------------------------------


def test_a_hook_is_asked_before_a_login_counts(running, run, settings, users, slow) -> None:
    hook = Told(slow)

    async def story() -> None:
        async with running(settings, [("told", hook)], users=users, authplain=True) as server:
            client = await (await server.client()).hello()
            assert (await client.say(b"AUTH PLAIN " + b64encode(b"\0alice\0wrong")))[:3] == b"535"
            assert "auth" not in hook.steps()
            assert (await client.say(ALICE_LOGS_IN))[:3] == b"235"
            assert (await client.data(FAR))[:3] == b"354"

    run(story())
    [(_, session, identity)] = [one for one in hook.asked if one[0] == "auth"]
    assert (session.identity, session.relay, identity) == (b"", False, b"alice")
    [(_, session, _)] = [one for one in hook.asked if one[0] == "mail"]
    assert (session.identity, session.relay) == (b"alice", True)


@pytest.mark.parametrize("answer", [NO, Defer(Reply(454, b"4.7.0", (b"not now",)))])
def test_a_login_that_a_hook_refuses_is_none(running, run, settings, users, slow, answer) -> None:
    hook = Told(slow, auth=answer)

    async def story() -> None:
        async with running(settings, [("told", hook)], users=users, authplain=True) as server:
            client = await (await server.client()).hello()
            assert await client.say(ALICE_LOGS_IN) == answer.reply.encode()
            await mailed(client)
            assert (await asked_for(client, FAR))[:3] == b"553"
            await client.say(b"RSET")
            hook.answers.clear()
            assert (await client.say(ALICE_LOGS_IN))[:3] == b"235"

    run(story())


def test_a_hook_hangs_up_on_a_login(running, run, settings, users, slow) -> None:
    async def story() -> None:
        hook = Told(slow, auth=HangUp(Reply(421, b"4.7.0", (b"go",))))
        async with running(settings, [("told", hook)], users=users, authplain=True) as server:
            client = await (await server.client()).hello()
            client.writer.write(ALICE_LOGS_IN + b"\r\nMAIL FROM:<s@client.example>\r\n")
            assert await client.rest() == b"421 4.7.0 go\r\n"
            await server.quiet()
            [session] = [one for one in server.log.events if isinstance(one, log.SmtpdSession)]
            assert session.end == "refused"

    run(story())


def test_a_session_is_one_to_hooks_before_tls_and_behind_it(running, run, settings, control, slow) -> None:
    hook = Told(slow)

    async def story() -> None:
        async with running(settings, [("told", hook)], tls=loaded(control)) as server:
            client, _ = await secured(server)
            await mailed(client)
            await client.say(b"QUIT")
            await server.quiet()
            while hook.asked[-1][-1] != "end":
                await asyncio.sleep(0)

    run(story())
    assert hook.steps() == ["connect", "helo", "helo", "mail", "reset", "reset"]
    assert len({session.id for _, session, *_ in hook.asked}) == 1
    assert [session.tls is not None for _, session, *_ in hook.asked] == [
        False,
        False,
        True,
        True,
        True,
        True,
    ]


def test_a_client_that_a_front_end_names_is_another_session_to_hooks(
    running, run, settings, control, slow
) -> None:
    hook = Told(slow, helo=Accept())

    async def story() -> None:
        async with running(settings, [("told", hook)], tls=loaded(control)) as server:
            context = server.service.context
            listener = Listener("smtp", "127.0.0.1", 0, xclient=("127.0.0.1/32",))
            server.service.reconfigure(msgspec.structs.replace(context, listener=listener))
            client, _ = await secured(server)
            assert (await client.say(b"XCLIENT ADDR=192.0.2.8 LOGIN=carol"))[:3] == b"220"
            await client.say(b"EHLO told.example")
            await client.say(b"QUIT")
            await server.quiet()
            while hook.steps().count("reset") < 2:
                await asyncio.sleep(0)

    run(story())
    first, second = [one for one in hook.asked if one[0] == "connect"]
    assert first[1].id != second[1].id
    assert (second[1].client, second[1].identity, second[1].relay) == ("192.0.2.8", b"carol", True)
    assert second[1].tls is not None and second[1].tls.peer == ""
    ended = [(one[1].id, one[2]) for one in hook.asked if one[0] == "reset"]
    assert ended == [(first[1].id, "end"), (second[1].id, "end")]


# --- core's own checks and bounds ---------------------------------------------------------


def test_a_hook_spares_a_sender_what_core_would_check(running, run, settings, slow) -> None:
    bad = frozenset({b"bad@client.example"})

    async def story() -> None:
        hook = Told(slow)
        async with running(settings, [("told", hook)], badmailfrom=bad, tarpit=0) as server:
            client = await (await server.client()).hello()
            for answer, sender, code in (
                (None, b"bad@client.example", b"553"),
                (SkipChecks(), b"bad@client.example", b"250"),
                (Replace(b"bad@client.example"), b"good@client.example", b"553"),
                (Replace(b"bad@client.example", skip_checks=True), b"good@client.example", b"250"),
                (Replace(b"good@client.example"), b"bad@client.example", b"250"),
            ):
                hook.answers["mail"] = answer
                assert (await mailed(client, sender))[:3] == b"250"
                assert (await asked_for(client, b"alice@a.example"))[:3] == code
                assert (await asked_for(client, FAR))[:3] == b"553", "it spares the sender alone"
                await client.say(b"RSET")

    run(story())


def test_a_sender_that_a_hook_makes_is_to_be_one_of_the_login_too(
    running, run, settings, users, slow
) -> None:
    senders = {b"alice": frozenset({b"alice@a.example"})}

    async def story() -> None:
        hook = Told(slow)
        changes = {"users": users, "authplain": True, "senders": senders}
        async with running(settings, [("told", hook)], **changes) as server:
            client = await (await server.client()).hello()
            await client.say(ALICE_LOGS_IN)
            for answer, sender, code in (
                (None, b"bob@a.example", b"553"),
                (SkipChecks(), b"bob@a.example", b"250"),
                (Replace(b"bob@a.example"), b"alice@a.example", b"553"),
                (Replace(b"alice@a.example"), b"bob@a.example", b"250"),
            ):
                hook.answers["mail"] = answer
                assert (await mailed(client, sender))[:3] == code
                await client.say(b"RSET")

    run(story())


def test_a_hook_is_asked_about_recipients_before_core_and_told_what_core_thinks(
    running, run, settings, mailboxes, slow
) -> None:
    literal = b"alice@[127.0.0.1]"
    hook = Told(slow)

    async def story() -> None:
        changes = {"badrcptto": frozenset({b"bad@a.example"}), "localiphost": b"a.example", "tarpit": 0}
        async with running(settings, [("told", hook)], mailboxes, **changes) as server:
            client = await (await server.client()).hello()
            await mailed(client)
            for answer, recipient, code in (
                (None, b"nobody@a.example", b"550"),
                (SkipChecks(), b"nobody@a.example", b"250"),
                (None, FAR, b"553"),
                (SkipChecks(), FAR, b"250"),
                (None, b"bad@a.example", b"553"),
                (SkipChecks(), b"bad@a.example", b"250"),
                (Replace(FAR), b"alice@a.example", b"553"),
                (Replace(b"alice@a.example"), FAR, b"250"),
                (Replace(literal), FAR, b"250"),
                (None, literal, b"250"),
            ):
                hook.answers["rcpt"] = answer
                assert (await asked_for(client, recipient))[:3] == code, (answer, recipient)
            await client.say(b"DATA")
            await client.say(b"x\r\n.")
            [(envelope, _)] = server.queue.messages
            taken = [one.address for one in envelope.recipients]
            assert taken == [b"nobody@a.example", FAR, b"bad@a.example"] + [b"alice@a.example"] * 3

    run(story())
    told = [(facts[0].address, session.listed) for step, session, *facts in hook.asked if step == "rcpt"]
    assert (FAR, False) in told and (b"nobody@a.example", True) in told
    assert told[-1] == (b"alice@a.example", True)


def test_recipients_that_a_hook_refuses_count_as_guesses(running, run, settings, slow) -> None:
    async def story() -> None:
        hook = Told(slow, rcpt=NO)
        async with running(settings, [("told", hook)], maxbadrcpt=3, tarpit=5) as server:
            late = server.late()
            client = await (await server.client()).hello()
            await mailed(client)
            assert [(await asked_for(client, FAR))[:3] for _ in range(3)] == [b"550", b"550", b"421"]
            assert not [one for one in late.timers if one[0] < 1000 and one[0] >= 5]
            assert await client.rest() == b""

    run(story())


# --- chunks, and headers that core completes ----------------------------------------------


def test_a_message_in_chunks_streams_by_like_any_other(running, run, settings, slow) -> None:
    hook = Told(slow)

    async def story() -> None:
        async with running(settings, [("told", hook)]) as server:
            client = await (await server.client()).hello()
            await mailed(client)
            await asked_for(client, b"alice@a.example")
            for said in (b"BDAT 11\r\nSubject: a\r", b"BDAT 7\r\n\n\r\nhell", b"BDAT 3 LAST\r\no\r\n"):
                client.writer.write(said)
                assert (await client.reply())[:3] == b"250"
            assert server.queue.messages[0][1].endswith(b"\nSubject: a\n\nhello\n")

    run(story())
    assert [one[2].value for one in hook.asked if one[0] == "header"] == [b" a"]
    assert b"".join(one[2] for one in hook.asked if one[0] == "chunk") == b"hello\n"
    assert hook.steps()[2:5] == ["mail", "rcpt", "data"]


@pytest.mark.parametrize("step", ["header", "chunk", "message"])
def test_what_is_refused_in_a_chunk_is_told_behind_the_last(running, run, settings, slow, step) -> None:
    async def story() -> None:
        hook = Told(slow, **{step: NO})
        async with running(settings, [("told", hook)]) as server:
            client = await (await server.client()).hello()
            await mailed(client)
            await asked_for(client, b"alice@a.example")
            client.writer.write(b"BDAT 14\r\nSubject: a\r\n\r\nBDAT 7\r\nhello\r\nBDAT 0 LAST\r\nNOOP\r\n")
            said = [await client.reply() for _ in range(4)]
            assert [one[:3] for one in said] == [b"250", b"250", b"550", b"250"]
            assert not server.queue.messages

    run(story())


def test_a_refusal_of_data_is_one_of_the_first_chunk_and_swallows_it(running, run, settings, slow) -> None:
    async def story() -> None:
        hook = Told(slow, data=NO)
        async with running(settings, [("told", hook)]) as server:
            client = await (await server.client()).hello()
            await mailed(client)
            await asked_for(client, b"alice@a.example")
            client.writer.write(b"BDAT 6\r\nRSET\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
            assert [(await client.reply())[:3] for _ in range(3)] == [b"550", b"503", b"250"]
            assert not server.queue.messages and "chunk" not in hook.steps()

    run(story())


def test_hooks_of_submission_see_the_header_that_is_kept(
    running, run, settings, control, users, slow
) -> None:
    """What a signer or a filter has seen is what is stored: with a Date, without a Bcc."""
    hook = Told(slow)

    async def story() -> None:
        changes = {"tls": loaded(control), "kind": SubmissionsService, "users": users}
        async with running(settings, [("told", hook)], **changes) as server:
            client = await (await server.client(client_context())).hello()
            await client.say(ALICE_LOGS_IN)
            await client.data(FAR)
            client.writer.write(b"Subject: a\r\nBcc: secret@x.example\r\n\r\nhello\r\n.\r\n")
            assert (await client.reply())[:3] == b"250"
            stored = bytes(server.queue.messages[0][1])
            header = stored.partition(b"\n\n")[0]
            names = [one[2].name for one in hook.asked if one[0] == "header"]
            assert b"Date" in names and b"Message-ID" in names and b"Bcc" not in names
            assert all(b"\n%s:" % name in b"\n" + header for name in names)
            assert b"".join(one[2] for one in hook.asked if one[0] == "chunk") == b"hello\n"

    run(story())


class Ponders:
    """Answers about a piece of the first message when the test wants it; keeps what it was asked."""

    def __init__(self, answer, asked):
        self.answer, self.asked, self.goes_on = answer, asked, None

    def mail(self, session, sender):
        self.asked.append(("mail", sender))

    async def chunk(self, session, data):
        self.asked.append(("chunk", session.sender))
        if session.sender == b"one@y.example":
            await self.goes_on.wait()
            return self.answer

    def reset(self, session, why):
        self.asked.append(("reset", why))


class Watches(Ponders):
    def chunk(self, session, data):
        self.asked.append(("chunk", session.sender))

    def message(self, session, envelope, body, edits):
        return NO if b"VIAGRA" in body.data else None


@pytest.mark.parametrize("answer", [None, Accept(), Drop(), Hold("odd"), NO])
def test_a_late_answer_about_one_message_is_none_about_the_next(running, run, settings, answer) -> None:
    """RSET and the next message come in the packet of the first, while a hook ponders its text."""
    asked = []

    async def story() -> None:
        hooks = [("ponders", Ponders(answer, asked)), ("watches", Watches(None, asked))]
        hooks[0][1].goes_on = asyncio.Event()
        async with running(settings, hooks) as server:
            client = await (await server.client()).hello()
            for text, code in ((b"VIAGRA", b"550"), (b"dear", b"250")):
                pieces = b""
                for sender, line in ((b"one", b"spam"), (b"two", text)):
                    given = b"Subject: a\r\n\r\n%b\r\n" % line
                    pieces += b"MAIL FROM:<%b@y.example>\r\nRCPT TO:<alice@a.example>\r\n" % sender
                    pieces += b"BDAT %d\r\n%b" % (len(given), given)
                    pieces += b"RSET\r\n" if sender == b"one" else b""
                client.writer.write(pieces + b"BDAT 0 LAST\r\n")
                for _ in Waiting("the first is asked about"):
                    if asked[-1:] == [("chunk", b"one@y.example")]:
                        break
                    await asyncio.sleep(0)
                hooks[0][1].goes_on.set()
                said = [await client.reply() for _ in range(8)]
                assert said[-1][:3] == code
                hooks[0][1].goes_on.clear()
                asked.append("end")
            [(_, stored)] = server.queue.messages
            assert stored.endswith(b"\n\ndear\n")
            assert server.queue.reasons == [""]

    run(story())
    told = asked[: asked.index("end")]
    over = told.index(("reset", "abandoned"))
    assert ("chunk", b"one@y.example") not in told[over:], "of the first nothing is asked behind its end"
    assert ("mail", b"two@y.example") in told[over:]


def test_what_a_client_says_in_plaintext_silences_no_hook_behind_starttls(
    running, run, settings, control, slow
) -> None:
    """Anybody on the way may have said it."""
    hook = Told(slow, helo=Accept(), mail=NO)

    async def story() -> None:
        async with running(settings, [("told", hook)], tls=loaded(control)) as server:
            client = await (await server.client()).hello()
            assert (await mailed(client))[:3] == b"250", "accepted for the session"
            await client.say(b"RSET")
            hook.answers["helo"] = None
            assert (await client.say(b"STARTTLS"))[:3] == b"220"
            await client.start_tls(client_context())
            await client.say(b"EHLO client.example")
            assert (await mailed(client))[:3] == b"550"

    run(story())


def test_a_client_that_hooks_accept_at_connect_is_accepted_behind_starttls_too(
    running, run, settings, control, slow
) -> None:
    hook = Told(slow, connect=Accept(), mail=NO)

    async def story() -> None:
        async with running(settings, [("told", hook)], tls=loaded(control)) as server:
            client, _ = await secured(server)
            assert (await mailed(client))[:3] == b"250"

    run(story())
