"""Where TLS and logins meet front ends and chunks: a PROXY header ahead of TLS, XCLIENT, BDAT within."""

import asyncio
from base64 import b64encode
from contextlib import suppress

import msgspec
import pytest

from handshakes import ALICE, AUTHORITY, client_context, loaded, secured
from logins import PASSWORD
from openqmail.core import log
from openqmail.core.control.rules import Rule, Rules
from openqmail.core.control.settings import Listener
from openqmail.core.smtpd import SmtpService, SmtpsService, SubmissionService, SubmissionsService

PROXY = b"PROXY TCP4 192.0.2.9 198.51.100.1 4711 465\r\n"


def listens(server, **options):
    """From now on it has these front ends."""
    context = server.service.context
    listener = msgspec.structs.replace(Listener("smtp", "127.0.0.1", 0), **options)
    server.service.reconfigure(msgspec.structs.replace(context, listener=listener))


def sessions(server):
    return [one for one in server.log.events if isinstance(one, log.SmtpdSession)]


async def opened(server, context):
    """A client within TLS that has been greeted and has said hello."""
    if not server.service.implicit:
        return (await secured(server, context))[0]
    return await (await server.client(context)).hello()


@pytest.mark.parametrize("kind", [SmtpService, SmtpsService])
def test_a_proxy_header_comes_in_plaintext_ahead_of_tls(running, run, settings, control, kind) -> None:
    async def story() -> None:
        async with running(settings, tls=loaded(control), kind=kind) as server:
            listens(server, proxy=("127.0.0.1/32",))
            client = await server.client()
            client.writer.write(PROXY)
            if not server.service.implicit:
                await client.hello()
                await client.say(b"STARTTLS")
            await client.start_tls(client_context())
            if server.service.implicit:
                assert (await client.reply())[:4] == b"220 "
            await client.say(b"EHLO client.example")
            await client.data()
            assert (await client.say(b"x\r\n."))[:3] == b"250"
            await client.say(b"QUIT")
            await server.quiet()
            [one] = sessions(server)
            assert (one.client, one.port, one.tls, one.end) == ("192.0.2.9", 4711, "TLSv1.3", "quit")
            assert one.via is not None and b" tls TLSv1.3 " in one.line()
            [(_, body)] = server.queue.messages
            assert b"[192.0.2.9]" in body and b"with ESMTPS" in body

    run(story())


def test_a_proxy_header_within_tls_is_none(running, run, settings, control) -> None:
    """Who is to send one first and sends a TLS hello is hung up on."""

    async def story() -> None:
        async with running(settings, tls=loaded(control), kind=SmtpsService) as server:
            listens(server, proxy=("127.0.0.1/32",))
            with pytest.raises(OSError):
                await server.client(client_context())
            await server.quiet()
            assert not sessions(server)

    run(story())


@pytest.mark.parametrize("kind", [SmtpService, SmtpsService])
def test_xclient_within_tls_begins_a_session_within_the_same(running, run, settings, control, kind) -> None:
    async def story() -> None:
        async with running(settings, tls=loaded(control), kind=kind) as server:
            listens(server, xclient=("127.0.0.1/32",))
            client = await opened(server, client_context())
            assert (await client.say(b"XCLIENT ADDR=192.0.2.8"))[:4] == b"220 "
            assert (await client.say(b"XCLIENT PORT=25"))[:4] == b"220 "
            offered = await client.say(b"EHLO told.example")
            assert b"STARTTLS" not in offered and b"XCLIENT" not in offered
            await client.data()
            assert (await client.say(b"x\r\n."))[:3] == b"250"
            await client.say(b"QUIT")
            await server.quiet()
            assert [(one.client, one.port > 0, one.tls, one.end) for one in sessions(server)] == [
                ("127.0.0.1", True, "TLSv1.3", "xclient"),
                ("192.0.2.8", False, "TLSv1.3", "xclient"),
                ("192.0.2.8", True, "TLSv1.3", "quit"),
            ]
            [(_, body)] = server.queue.messages
            assert b"[192.0.2.8]" in body and b"with ESMTPS" in body

    run(story())


@pytest.mark.parametrize("kind", [SmtpService, SmtpsService])
def test_what_a_front_end_proves_does_not_count_for_whom_it_names(
    running, run, settings, control, kind
) -> None:
    (control / "clientca.pem").write_bytes(AUTHORITY.certificate)

    async def story() -> None:
        known = frozenset({"alice@a.example"})
        async with running(settings, tls=loaded(control), kind=kind, tlsclients=known) as server:
            listens(server, xclient=("127.0.0.1/32",))
            client = await opened(server, client_context(ALICE, control))
            assert (await client.data(b"far@away.example"))[:3] == b"354"
            await client.say(b"x\r\n.")
            await client.say(b"XCLIENT ADDR=192.0.2.8")
            await client.say(b"EHLO told.example")
            await client.say(b"MAIL FROM:<s@client.example>")
            assert (await client.say(b"RCPT TO:<far@away.example>"))[:3] == b"553"
            await client.say(b"QUIT")
            await server.quiet()
            assert [one.peer for one in sessions(server)] == ["alice@a.example", None]

    run(story())


@pytest.mark.parametrize("kind", [SmtpService, SmtpsService])
def test_whom_the_rules_deny_is_told_within_tls(running, run, settings, control, kind) -> None:
    async def story() -> None:
        rules = Rules({"192.0.2.7": Rule(False, {}), "": Rule(True, {})})
        async with running(settings, tls=loaded(control), kind=kind, rules=rules) as server:
            listens(server, xclient=("127.0.0.1/32",))
            client = await opened(server, client_context())
            client.writer.write(b"XCLIENT ADDR=192.0.2.7\r\n")
            assert (await client.rest())[:4] == b"554 "
            while len(sessions(server)) < 2:  # nobody counts whom the rules deny
                await asyncio.sleep(0)
            assert [one.end for one in sessions(server)] == ["xclient", "denied"]

    run(story())


@pytest.mark.parametrize("kind", [SmtpService, SmtpsService])
@pytest.mark.parametrize(
    "sent", [b"BDAT 100\r\nhalf of it", b"BDAT 7\r\nwhole\r\n", b"BDAT 100 LAST\r\nhalf"]
)
@pytest.mark.parametrize("clean", [True, False])
def test_a_tls_connection_that_ends_in_a_chunk_leaves_no_message(
    running, run, settings, control, kind, sent, clean
) -> None:
    """A close_notify is no end of a message, and neither is a connection cut off."""

    async def story() -> None:
        async with running(settings, tls=loaded(control), kind=kind) as server:
            client = await opened(server, client_context())
            await client.say(b"MAIL FROM:<s@client.example>")
            await client.say(b"RCPT TO:<alice@a.example>")
            [session] = server.service.sessions
            wanted = session._record.size + len(sent)
            client.writer.write(sent)
            while session._record.size < wanted:
                await asyncio.sleep(0)
            if clean:
                client.writer.close()
            else:
                client.writer.transport.abort()
            with suppress(OSError):
                await client.rest()
            await server.quiet()
            assert not server.queue.messages
            assert [one.messages for one in sessions(server)] == [0]

    run(story())


def test_starttls_between_chunks_is_refused_and_the_message_goes_on(running, run, settings, control) -> None:
    async def story() -> None:
        async with running(settings, tls=loaded(control)) as server:
            client = await (await server.client()).hello()
            await client.say(b"MAIL FROM:<s@client.example>")
            await client.say(b"RCPT TO:<alice@a.example>")
            assert (await client.say(b"BDAT 5\r\none"))[:3] == b"250"
            assert (await client.say(b"STARTTLS"))[:3] == b"503"
            assert (await client.say(b"BDAT 5 LAST\r\ntwo"))[:3] == b"250"
            [(_, body)] = server.queue.messages
            assert bytes(body).endswith(b"one\ntwo\n")

    run(story())


# --- logins -------------------------------------------------------------------------------


ALICE_LOGS_IN = b"AUTH PLAIN " + b64encode(b"\0alice\0" + PASSWORD)


async def relays(client):
    """Whether it may send to anywhere."""
    await client.say(b"RSET")
    await client.say(b"MAIL FROM:<s@client.example>")
    return (await client.say(b"RCPT TO:<far@away.example>"))[:3] == b"250"


def test_auth_between_chunks_is_refused_and_the_message_goes_on(
    running, run, settings, control, users
) -> None:
    async def story() -> None:
        async with running(settings, tls=loaded(control), users=users) as server:
            client, _ = await secured(server)
            await client.say(b"MAIL FROM:<s@client.example>")
            await client.say(b"RCPT TO:<alice@a.example>")
            assert (await client.say(b"BDAT 5\r\none"))[:3] == b"250"
            assert (await client.say(ALICE_LOGS_IN))[:3] == b"503"
            assert (await client.say(b"BDAT 5 LAST\r\ntwo"))[:3] == b"250"
            [(_, body)] = server.queue.messages
            assert bytes(body).endswith(b"one\ntwo\n") and b"with ESMTPS" in body
            assert (await client.say(ALICE_LOGS_IN))[:3] == b"235"

    run(story())


def test_what_is_a_chunk_is_no_login(running, run, settings, control, users) -> None:
    """An AUTH in a refused chunk is swallowed with it."""

    async def story() -> None:
        async with running(settings, tls=loaded(control), users=users) as server:
            client, _ = await secured(server)
            assert (await client.say(b"BDAT %d\r\n%b" % (len(ALICE_LOGS_IN) + 2, ALICE_LOGS_IN)))[
                :3
            ] == b"503"
            assert not await relays(client)

    run(story())


@pytest.mark.parametrize("kind", [SubmissionService, SubmissionsService])
def test_a_header_that_comes_in_chunks_is_completed(running, run, settings, control, users, kind) -> None:
    async def story() -> None:
        async with running(settings, tls=loaded(control), users=users, kind=kind) as server:
            client = await opened(server, client_context())
            assert (await client.say(ALICE_LOGS_IN))[:3] == b"235"
            await client.say(b"MAIL FROM:<s@client.example>")
            await client.say(b"RCPT TO:<far@away.example>")
            for chunk in (b"Subject: ", b"x\r\nBcc: secret", b"@x.example\r\n\r\nBcc: told\r\n"):
                last = b" LAST" if chunk.endswith(b"\n") else b""
                client.writer.write(b"BDAT %d%b\r\n%b" % (len(chunk), last, chunk))
                assert (await client.reply())[:3] == b"250"
            [(_, body)] = server.queue.messages
            header, _, text = bytes(body).partition(b"\n\n")
            assert text == b"Bcc: told\n" and b"secret" not in header
            assert b"\nSubject: x" in header and b"\nDate: " in header and b"\nMessage-ID: " in header

    run(story())


@pytest.mark.parametrize("kind", [SmtpService, SmtpsService])
def test_a_login_belongs_to_the_client_that_has_it(running, run, settings, control, users, kind) -> None:
    """A front end's ends with XCLIENT; one that it names holds for the client that it named."""

    async def story() -> None:
        async with running(settings, tls=loaded(control), users=users, kind=kind) as server:
            listens(server, xclient=("127.0.0.1/32",))
            client = await opened(server, client_context())
            assert (await client.say(ALICE_LOGS_IN))[:3] == b"235" and await relays(client)
            await client.say(b"RSET")
            await client.say(b"XCLIENT ADDR=192.0.2.8")
            offered = await client.say(b"EHLO told.example")
            assert b" SCRAM-SHA-256 PLAIN" in offered and b"-PLUS" not in offered  # it ends at the front end
            assert not await relays(client)
            await client.say(b"RSET")
            assert (await client.say(ALICE_LOGS_IN))[:3] == b"235" and await relays(client)
            await client.say(b"QUIT")

            client = await opened(server, client_context())
            await client.say(b"XCLIENT ADDR=192.0.2.9 LOGIN=carol")
            await client.say(b"EHLO told.example")
            assert await relays(client)
            assert (await client.say(b"DATA"))[:3] == b"354"
            await client.say(b"x\r\n.")
            await client.say(b"QUIT")

            client = await opened(server, client_context())
            await client.say(b"XCLIENT ADDR=192.0.2.9 LOGIN=carol")
            await client.say(b"XCLIENT ADDR=192.0.2.10")
            await client.say(b"EHLO told.example")
            assert not await relays(client)
            [accepted] = [one for one in server.log.events if isinstance(one, log.SmtpdAccepted)]
            assert (accepted.client, accepted.login) == ("192.0.2.9", b"carol")
            assert b"with ESMTPSA" in server.queue.messages[0][1]

    run(story())


def test_starttls_ends_a_login_that_was_named_in_clear(running, run, settings, control, users) -> None:
    async def story() -> None:
        async with running(settings, tls=loaded(control), users=users) as server:
            listens(server, xclient=("127.0.0.1/32",))
            client = await (await server.client()).hello()
            await client.say(b"XCLIENT ADDR=192.0.2.9 LOGIN=carol")
            await client.say(b"EHLO told.example")
            assert await relays(client)
            await client.say(b"RSET")
            assert (await client.say(b"STARTTLS"))[:3] == b"220"
            await client.start_tls(client_context())
            assert (await client.say(b"XCLIENT LOGIN=carol"))[
                :3
            ] == b"502"  # it may be the client who says it
            await client.say(b"EHLO told.example")
            assert not await relays(client)

    run(story())
