"""TLS as a client of the SMTP service sees it: real handshakes over real sockets, on both loops."""

import asyncio
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from handshakes import ALICE, AUTHORITY, OTHER, OURS, STRANGER, client_context, loaded, secured
from openqmail.core import log
from openqmail.core.control.blocklists import blocklist
from openqmail.core.control.home import Home
from openqmail.core.control.reader import read_settings
from openqmail.core.control.rules import Rule, Rules
from openqmail.core.control.settings import Settings
from openqmail.core.smtpd import SmtpsService, SubmissionService, SubmissionsService, handshake
from openqmail.core.smtpd import service as service_module
from openqmail.core.smtpd.session import EARLY
from openqmail.core.values import ControlError


def test_starttls_is_offered_only_with_a_certificate(settings: Settings, running: Any, run: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            client = await server.client()
            await client.reply()
            assert b"STARTTLS" not in await client.say(b"EHLO x.example")
            assert (await client.say(b"STARTTLS"))[:3] == b"502"

    run(story())


def test_mail_behind_starttls_says_so_in_received_and_log(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    async def story() -> None:
        async with running(settings, tls=loaded(control)) as server:
            client, extensions = await secured(server)
            assert b"STARTTLS" not in extensions  # RFC 3207 section 4.2
            await client.data()
            assert (await client.say(b"Subject: x\r\n\r\nx\r\n."))[:3] == b"250"
            await client.say(b"QUIT")
            await server.quiet()
            [(_, body)] = server.queue.messages
            unfolded = body.split(b"Subject")[0].replace(b"\n  ", b" ")
            assert b" with ESMTPS tls TLS_AES_256_GCM_SHA384 (TLSv1.3); " in unfolded
            [session] = [one for one in server.log.events if isinstance(one, log.SmtpdSession)]
            assert (session.end, session.tls, session.sni, session.peer) == (
                "quit",
                "TLSv1.3",
                "a.example",
                None,
            )

    run(story())


@pytest.mark.parametrize(
    "greeted", [b"MAIL FROM:<evil@x.example>\r\n", b"EHLO evil.example\r\nRSET\r\n", b"x"]
)
def test_what_came_in_plaintext_behind_starttls_is_never_obeyed(
    settings: Settings, running: Any, run: Any, control: Path, greeted: bytes
) -> None:
    async def story() -> None:
        async with running(settings, tls=loaded(control)) as server:
            client = await (await server.client()).hello()
            client.writer.write(b"STARTTLS\r\n" + greeted)
            assert (await client.reply())[:3] == b"220"
            await client.start_tls(client_context())
            assert await client.say(b"MAIL FROM:<s@client.example>") == b"503 5.5.1 EHLO or HELO first\r\n"
            await client.say(b"EHLO client.example")
            assert (await client.data(sender=b"good@client.example"))[:3] == b"354"
            assert (await client.say(b"x\r\n."))[:3] == b"250"
            [(envelope, _)] = server.queue.messages
            assert envelope.sender == b"good@client.example"

    run(story())


def test_what_was_known_before_is_forgotten(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    heard: list[Any] = []

    class Hook:
        def helo(self, session: Any, name: bytes) -> None:
            heard.append((session.helo, session.tls is not None))

        def mail(self, session: Any, sender: bytes) -> None:
            heard.append((session.helo, session.tls.version))

    async def story() -> None:
        async with running(settings, [("toy", Hook())], tls=loaded(control)) as server:
            client = await server.client()
            await client.reply()
            await client.say(b"EHLO before.example")
            await client.say(b"STARTTLS")
            await client.start_tls(client_context())
            await client.say(b"EHLO behind.example")
            await client.data()
        assert heard == [
            (b"before.example", False),
            (b"behind.example", True),
            (b"behind.example", "TLSv1.3"),
        ]

    run(story())


def test_starttls_within_a_transaction_is_refused(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    async def story() -> None:
        async with running(settings, tls=loaded(control)) as server:
            client = await (await server.client()).hello()
            await client.say(b"MAIL FROM:<s@client.example>")
            assert (await client.say(b"STARTTLS"))[:3] == b"503"
            await client.say(b"RSET")
            assert (await client.say(b"STARTTLS now"))[:3] == b"501"

    run(story())


def test_a_client_that_says_ehlo_with_its_last_handshake_message_is_heard(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    """TLS 1.3: Finished and the first command come in one packet."""

    async def story() -> None:
        async with running(settings, tls=loaded(control)) as server:
            client = await (await server.client()).hello()
            await client.say(b"STARTTLS")
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            peer = client_context().wrap_bio(incoming, outgoing, server_hostname="a.example")
            while True:
                try:
                    peer.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    client.writer.write(outgoing.read())
                    incoming.write(await client.reader.read(65536))
            peer.write(b"EHLO client.example\r\n")
            client.writer.write(outgoing.read())
            said = b""
            while b"250 HELP" not in said:
                incoming.write(await asyncio.wait_for(client.reader.read(65536), 10))
                try:
                    said += peer.read(65536)
                except ssl.SSLWantReadError:
                    continue

    run(story())


def test_implicit_tls_greets_behind_the_handshake(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    async def story() -> None:
        async with running(settings, tls=loaded(control), kind=SmtpsService) as server:
            client = await server.client(client_context())
            assert (await client.reply())[:4] == b"220 "
            assert b"STARTTLS" not in await client.say(b"EHLO client.example")
            assert (await client.data())[:3] == b"354"
            assert (await client.say(b"x\r\n."))[:3] == b"250"
            assert b"ESMTPS" in server.queue.messages[0][1]
            large = b"x" * 900 + b"\r\n"
            await client.data()
            client.writer.write(large * 2000)
            assert (await client.say(b"."))[:3] == b"250"
            assert len(server.queue.messages[1][1]) > 1_800_000

    run(story())


def test_implicit_tls_needs_a_certificate(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings, kind=SubmissionsService):
            pass

    with pytest.raises(ControlError, match="openqmail tls selfsign"):
        asyncio.run(story())


def test_submission_takes_no_mail_from_whom_nobody_knows(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    async def story() -> None:
        async with running(settings, tls=loaded(control), kind=SubmissionService) as server:
            client, _ = await secured(server)
            assert (await client.say(b"MAIL FROM:<s@client.example>"))[:9] == b"530 5.7.0"

    run(story())


def test_the_certificate_is_chosen_by_the_name_that_the_client_asks_for(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    (control / "certs").mkdir()
    (control / "certs" / "b.example.pem").write_bytes(OTHER.pem)

    async def story() -> None:
        tls = loaded(control)
        assert (tls.certificate_for("B.example"), tls.certificate_for("")) == (OTHER.der, OURS.der)
        async with running(settings, tls=tls) as server:
            for name, wanted in (("a.example", OURS), ("b.example", OTHER)):
                client, _ = await secured(server, name=name)  # the client verifies it
                peer = client.writer.get_extra_info("ssl_object")
                assert peer.getpeercert(binary_form=True) == wanted.der

    run(story())


def test_smtp_is_agreed_on_by_alpn(settings: Settings, running: Any, run: Any, control: Path) -> None:
    async def story() -> None:
        context = client_context()
        context.set_alpn_protocols(["http/1.1", "smtp"])
        async with running(settings, tls=loaded(control)) as server:
            client, _ = await secured(server, context)
            assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "smtp"

    run(story())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_are_spoken(
    settings: Settings, running: Any, run: Any, control: Path, version: ssl.TLSVersion
) -> None:
    async def story() -> None:
        context = client_context()
        context.minimum_version = context.maximum_version = version
        async with running(settings, tls=loaded(control)) as server:
            client, _ = await secured(server, context)
            await client.data()
            await client.say(b"x\r\n.")
            assert {"TLSv1_2": b"(TLSv1.2)", "TLSv1_3": b"(TLSv1.3)"}[version.name] in server.queue.messages[
                0
            ][1]

    run(story())


def test_an_old_version_is_refused_and_logged(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    async def story() -> None:
        context = client_context()
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        async with running(settings, tls=loaded(control)) as server:
            client = await (await server.client()).hello()
            await client.say(b"STARTTLS")
            with pytest.raises(OSError):
                await client.start_tls(context)
            await server.quiet()
            [failed] = [one for one in server.log.events if isinstance(one, log.SmtpdTlsFailed)]
            [session] = [one for one in server.log.events if isinstance(one, log.SmtpdSession)]
            assert (failed.text, session.end, session.tls) == (b"unsupported protocol", "tls", None)

    with pytest.warns(DeprecationWarning):
        run(story())


# --- client certificates ---------------------------------------------------------------


def test_a_listed_certificate_may_relay_and_others_may_not(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    (control / "clientca.pem").write_bytes(AUTHORITY.certificate)

    async def story() -> None:
        listed = frozenset({"alice@a.example"})
        async with running(settings, tls=loaded(control), tlsclients=listed) as server:
            client, _ = await secured(server, client_context(ALICE, control))
            assert (await client.data(b"far@away.example"))[:3] == b"354"
            await client.say(b"x\r\n.")
            assert b"certificate of alice@a.example)" in server.queue.messages[0][1]
            for context in (client_context(), client_context(OTHER, control)):
                client, _ = await secured(server, context)
                await client.say(b"MAIL FROM:<s@client.example>")
                assert (await client.say(b"RCPT TO:<far@away.example>"))[:3] == b"553"
                await client.say(b"QUIT")
            await client.rest()
            while len(found := [one for one in server.log.events if isinstance(one, log.SmtpdSession)]) < 2:
                await asyncio.sleep(0)
            assert {one.peer for one in found} == {None, "b.example"}

    run(story())


def test_any_name_of_a_certificate_may_be_the_listed_one_and_it_is_the_one_that_is_told(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    (control / "clientca.pem").write_bytes(AUTHORITY.certificate)
    several = AUTHORITY.issue(hosts=("mail.b.example", "relay.b.example"), mailboxes=("carol@b.example",))

    async def story() -> None:
        for name in ("mail.b.example", "relay.b.example", "carol@b.example"):
            async with running(settings, tls=loaded(control), tlsclients=frozenset({name})) as server:
                client, _ = await secured(server, client_context(several, control))
                assert (await client.data(b"far@away.example"))[:3] == b"354"
                await client.say(b"x\r\n.")
                assert b"certificate of %b)" % name.encode() in server.queue.messages[0][1]

    run(story())


def test_a_listed_name_may_be_written_in_any_case(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    (control / "clientca.pem").write_bytes(AUTHORITY.certificate)
    (control / "tlsclients").write_text("ALICE@a.Example\n")
    listed = read_settings(Home(str(control.parent))).tlsclients

    async def story() -> None:
        async with running(settings, tls=loaded(control), tlsclients=listed) as server:
            client, _ = await secured(server, client_context(ALICE, control))
            assert (await client.data(b"far@away.example"))[:3] == b"354"

    run(story())


def test_a_listed_certificate_may_relay_whatever_name_it_asks_for(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    (control / "clientca.pem").write_bytes(AUTHORITY.certificate)
    (control / "certs").mkdir()
    (control / "certs" / "b.example.pem").write_bytes(OTHER.pem)

    async def story() -> None:
        listed = frozenset({"alice@a.example"})
        async with running(settings, tls=loaded(control), tlsclients=listed) as server:
            for name in ("a.example", "b.example"):
                client, _ = await secured(server, client_context(ALICE, control), name)
                assert (await client.data(b"far@away.example"))[:3] == b"354"

    run(story())


@pytest.mark.parametrize("case", ["another authority", "revoked"])
def test_a_certificate_that_does_not_verify_ends_the_session(
    settings: Settings, running: Any, run: Any, control: Path, case: str
) -> None:
    (control / "clientca.pem").write_bytes(AUTHORITY.certificate)
    (control / "clientcrl.pem").write_bytes(AUTHORITY.revoked(ALICE))
    shown = STRANGER if case == "another authority" else ALICE

    async def story() -> None:
        async with running(settings, tls=loaded(control)) as server:
            client = await (await server.client()).hello()
            await client.say(b"STARTTLS")
            with suppress(OSError):  # a client of TLS 1.3 learns it later
                await client.start_tls(client_context(shown, control))
                assert await client.say(b"EHLO client.example") == b""
            await server.quiet()
            [failed] = [one for one in server.log.events if isinstance(one, log.SmtpdTlsFailed)]
            assert failed.text == b"certificate verify failed"
            client, _ = await secured(server, client_context(OTHER, control))  # of good standing

    run(story())


# --- who is let in ----------------------------------------------------------------------

LISTED = {b"1.0.0.127.bl.example": ["127.0.0.2"]}
NAMED = {b"1.0.0.127.in-addr.arpa": [b"client.example"], b"client.example": ["127.0.0.1"]}


def test_a_listed_certificate_counts_more_than_lists_and_names(
    settings: Settings, running: Any, run: Any, control: Path, names: Any
) -> None:
    (control / "clientca.pem").write_bytes(AUTHORITY.certificate)
    known = frozenset({"alice@a.example"})

    async def story() -> None:
        strangers = {"dnsbl": (blocklist("bl.example"),), "resolver": names(LISTED), "maxmessages": 1}
        for changes in (strangers, {"requirereverse": True, "resolver": names({})}):
            async with running(settings, tls=loaded(control), tlsclients=known, **changes) as server:
                client, _ = await secured(server)
                assert (await client.say(b"MAIL FROM:<s@client.example>"))[:2] == b"55"
                client, _ = await secured(server, client_context(ALICE, control))
                for _ in range(2):
                    await client.data(b"far@away.example")
                    assert (await client.say(b"x\r\n."))[:3] == b"250"

    run(story())


def test_lists_are_asked_no_more_about_who_has_proved_who_it_is(
    settings: Settings, running: Any, run: Any, control: Path, names: Any
) -> None:
    (control / "clientca.pem").write_bytes(AUTHORITY.certificate)

    async def story() -> None:
        resolver = names(LISTED)
        resolver.hold = asyncio.Event()
        wanted = {"tlsclients": frozenset({"alice@a.example"}), "dnsbl": (blocklist("bl.example"),)}
        async with running(settings, tls=loaded(control), resolver=resolver, **wanted) as server:
            client, _ = await secured(server, client_context(ALICE, control))
            assert (await client.say(b"MAIL FROM:<s@client.example>"))[:3] == b"250"
            assert resolver.asked and resolver.waiting == 0

    run(story())


def test_what_a_rule_says_of_an_address_counts_for_a_listed_certificate_too(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    (control / "clientca.pem").write_bytes(AUTHORITY.certificate)
    rules = Rules({"127.": Rule(True, {"RBLSMTPD": "-go away"})})

    async def story() -> None:
        known = frozenset({"alice@a.example"})
        async with running(settings, tls=loaded(control), tlsclients=known, rules=rules) as server:
            client, _ = await secured(server, client_context(ALICE, control))
            assert b"go away" in await client.say(b"MAIL FROM:<s@client.example>")

    run(story())


def test_submission_asks_no_lists_and_greets_at_once(
    settings: Settings, running: Any, run: Any, control: Path, names: Any
) -> None:
    async def story() -> None:
        resolver, lists = names(LISTED), (blocklist("bl.example"),)
        async with running(
            settings,
            tls=loaded(control),
            kind=SubmissionService,
            dnsbl=lists,
            resolver=resolver,
            greetdelay=300,
        ) as server:
            client, _ = await secured(server)
            assert (await client.say(b"MAIL FROM:<s@client.example>"))[:9] == b"530 5.7.0"
            assert not resolver.asked

    run(story())


@pytest.mark.parametrize(
    ("end", "changes"),
    [
        ("denied", {"rules": Rules({"127.": Rule(False, {})})}),
        ("rate", {"connectionsperhour": 1}),
        ("busy", {"concurrencynetwork": 1}),
        ("busy", {"concurrencyincoming": 1}),
    ],
)
def test_who_is_not_let_in_where_tls_begins_at_once_is_closed_without_a_word(
    settings: Settings, running: Any, run: Any, control: Path, end: str, changes: dict[str, Any]
) -> None:
    async def story() -> None:
        async with running(settings, tls=loaded(control), kind=SmtpsService, **changes) as server:
            if end != "denied":
                assert (await (await server.client(client_context())).reply())[:3] == b"220"
            assert await (await server.client()).rest() == b""
            while not (found := [one for one in server.log.events if isinstance(one, log.SmtpdSession)]):
                await asyncio.sleep(0)
            assert [one.end for one in found] == [end]

    run(story())


def test_a_greeting_delay_begins_behind_the_handshake_of_implicit_tls(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    async def story() -> None:
        async with running(settings, tls=loaded(control), kind=SmtpsService, greetdelay=7) as server:
            late = server.late()
            patient, hasty = [await server.client(client_context()) for _ in range(2)]
            hasty.writer.write(b"EHLO early.example\r\n")
            while sum(one._record.size > 0 for one in server.service.sessions) < 1:
                await asyncio.sleep(0)
            assert [await late.timer(7), await late.timer(7)] == [7, 7]
            assert (await patient.reply())[:4] == b"220 "
            assert await hasty.reply() == b"554 5.7.1 you talk before you are greeted\r\n"

    run(story())


def test_a_handshake_that_begins_before_the_client_is_let_in_is_not_lost(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    """uvloop begins to read behind connection_made, whatever was said in there."""

    async def story() -> None:
        async with running(settings, tls=loaded(control), kind=SmtpsService) as server:
            gate = SlowGate()
            server.service.reconfigure(msgspec.structs.replace(server.service.context, gate=gate))
            client = await server.client()
            answer = await gate.next()
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            peer = client_context().wrap_bio(incoming, outgoing, server_hostname="a.example")
            with suppress(ssl.SSLWantReadError):
                peer.do_handshake()
            [waiting] = server.service.sessions
            begun = outgoing.read()
            for piece in (begun[:7], begun[7:]):
                waiting.get_buffer(-1)[: len(piece)] = piece
                waiting.buffer_updated(len(piece))
            answer.set_result(True)
            said = b""
            while not said.endswith(b"\r\n"):
                incoming.write(await asyncio.wait_for(client.reader.read(65536), 10))
                with suppress(ssl.SSLWantReadError):
                    peer.do_handshake()
                    client.writer.write(outgoing.read())
                    said += peer.read(65536)
            assert said[:4] == b"220 "

    run(story())


def test_a_handshake_that_begins_while_the_name_of_the_client_is_asked_for_is_not_lost(
    settings: Settings, running: Any, run: Any, control: Path, names: Any
) -> None:
    async def story() -> None:
        resolver = names(NAMED)
        resolver.hold = asyncio.Event()
        changes = {"rules": Rules({"": Rule(False, {}), "=client.example": Rule(True, {})})}
        async with running(
            settings, tls=loaded(control), kind=SmtpsService, resolver=resolver, **changes
        ) as server:
            coming = asyncio.create_task(server.client(client_context()))
            while not (resolver.waiting and all(one._early for one in server.service.sessions)):
                await asyncio.sleep(0)
            resolver.hold.set()
            assert (await (await coming).reply())[:4] == b"220 "

    run(story())


def test_who_hangs_up_where_tls_begins_at_once_is_asked_about_no_more(
    settings: Settings, running: Any, run: Any, control: Path, names: Any
) -> None:
    async def story() -> None:
        resolver = names(NAMED)
        resolver.hold = asyncio.Event()
        async with running(
            settings, tls=loaded(control), kind=SmtpsService, resolver=resolver, lookupclients=True
        ) as server:
            client = await server.client()
            while not resolver.waiting:
                await asyncio.sleep(0)
            client.writer.close()
            await server.quiet()
            for _ in range(5):
                await asyncio.sleep(0)
            assert resolver.waiting == 0

    run(story())


class SlowGate:
    """Answers when it is told to."""

    mechanisms = frozenset[bytes]()

    def __init__(self) -> None:
        self.asked: asyncio.Queue[asyncio.Future[bool]] = asyncio.Queue()

    def lease(self, counter: bytes, count: int = 1) -> "asyncio.Future[bool]":
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.asked.put_nowait(answer)
        return answer

    def release(self, counter: bytes, count: int = 1) -> None:
        pass

    async def next(self) -> "asyncio.Future[bool]":
        return await asyncio.wait_for(self.asked.get(), 10)


# --- what never ends, or is no handshake ------------------------------------------------


@pytest.mark.parametrize("kind", ["starttls", "implicit"])
@pytest.mark.parametrize(
    "sent", [b"", b"\x16\x03\x01", b"EHLO x.example\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 9000]
)
def test_no_handshake_comes_to_nothing_but_a_line_in_the_log(
    settings: Settings, running: Any, run: Any, control: Path, kind: str, sent: bytes
) -> None:
    """One that stalls is ended when its time is up, by control/timeoutsmtpd."""

    async def story() -> None:
        service = {"kind": SmtpsService} if kind == "implicit" else {}
        async with running(settings, tls=loaded(control), timeoutsmtpd=1, **service) as server:
            client = await server.client()
            if kind == "starttls":
                await client.hello()
                await client.say(b"STARTTLS")
            client.writer.write(sent)
            said = await client.rest()
            assert b"220" not in said and b"250" not in said and b"421" not in said
            await server.quiet()
            failed = [one for one in server.log.events if isinstance(one, log.SmtpdTlsFailed)]
            ended = [one.end for one in server.log.events if isinstance(one, log.SmtpdSession)]
            assert len(failed) == 1 and ended == ["tls"]
            assert server.service.handshakes.under_way == 0

    run(story())


def test_who_hangs_up_in_a_handshake_leaves_nothing_behind(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    async def story() -> None:
        async with running(settings, tls=loaded(control)) as server:
            for linger in (False, True):
                client = await (await server.client()).hello()
                await client.say(b"STARTTLS")
                if linger:
                    option = b"\x01\0\0\0\0\0\0\0"
                    client.writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, option
                    )
                client.writer.close()
                await server.quiet()
            assert server.service.handshakes.under_way == 0

    run(story())


def test_too_many_handshakes_at_once_are_put_off(
    settings: Settings, running: Any, run: Any, control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "HANDSHAKES", 1)

    async def story() -> None:
        async with running(settings, tls=loaded(control)) as server:
            first = await (await server.client()).hello()
            await first.say(b"STARTTLS")
            second = await (await server.client()).hello()
            assert (await second.say(b"STARTTLS"))[:9] == b"454 4.7.0"
            assert (await second.data())[:3] == b"354"  # without TLS as before
            await first.start_tls(client_context())
            assert (await first.say(b"EHLO client.example"))[:3] == b"250"
            await second.say(b"x\r\n.")
            assert (await second.say(b"STARTTLS"))[:3] == b"220"

    run(story())


def test_with_too_many_handshakes_at_once_who_begins_with_one_is_closed_without_a_word(
    settings: Settings, running: Any, run: Any, control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "HANDSHAKES", 1)

    async def story() -> None:
        async with running(settings, tls=loaded(control), kind=SmtpsService) as server:
            first = await server.client()
            while server.service.handshakes.under_way < 1:
                await asyncio.sleep(0)
            assert await (await server.client()).rest() == b""
            [session] = [one for one in server.log.events if isinstance(one, log.SmtpdSession)]
            assert session.end == "busy"
            first.writer.close()
            await server.quiet()
            assert (await (await server.client(client_context())).reply())[:3] == b"220"

    run(story())


async def begins(server: Any, source: str) -> bytes:
    """The answer to STARTTLS for a client at this address, which says nothing more."""
    client = await server.client(source=source)
    await client.hello()
    said: bytes = await client.say(b"STARTTLS")
    return said[:3]


def test_networks_that_are_silent_in_handshakes_keep_no_others_from_tls(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    rules = Rules({"127.": Rule(True, {}), "127.0.1.200": Rule(True, {"RELAYCLIENT": ""})})

    async def story() -> None:
        async with running(settings, tls=loaded(control), rules=rules, concurrencyincoming=200) as server:
            answers = [await begins(server, f"127.0.{net}.{host}") for net in (1, 2) for host in range(1, 31)]
            assert answers.count(b"220") == 20 + 16
            assert await begins(server, "127.0.1.99") == b"454"
            assert await begins(server, "127.0.9.9") == b"220"
            assert (
                await begins(server, "127.0.1.200") == b"220"
            )  # of a network that holds many, but it may relay

    run(story())


@pytest.mark.parametrize("kind", ["starttls", "implicit"])
def test_a_handshake_has_its_own_time_however_long_clients_may_be_silent(
    settings: Settings, running: Any, run: Any, control: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    assert handshake.PATIENCE == 30
    monkeypatch.setattr(handshake, "PATIENCE", 0.05)

    async def story() -> None:
        service = {"kind": SmtpsService} if kind == "implicit" else {}
        async with running(settings, tls=loaded(control), timeoutsmtpd=1200, **service) as server:
            client = await server.client()
            if kind == "starttls":
                await client.hello()
                await client.say(b"STARTTLS")
            assert await client.rest() == b""
            await server.quiet()
            [failed] = [one for one in server.log.events if isinstance(one, log.SmtpdTlsFailed)]
            assert failed.text == b"it took too long"

    run(story())


@pytest.mark.parametrize("kind", ["plain", "implicit"])
def test_who_says_too_much_before_it_can_be_heard_is_closed(
    settings: Settings, running: Any, run: Any, control: Path, kind: str
) -> None:
    """No loop reads so much ahead by itself, so it is handed to the session as one would."""

    async def story() -> None:
        service = {"kind": SmtpsService} if kind == "implicit" else {}
        async with running(settings, tls=loaded(control), **service) as server:
            gate = SlowGate()
            server.service.reconfigure(msgspec.structs.replace(server.service.context, gate=gate))
            client = await server.client()
            answer = await gate.next()
            [waiting] = server.service.sessions
            for size in (*[65_536] * (EARLY // 65_536), 1):
                assert not waiting._transport.is_closing(), "it may say so much"
                waiting.get_buffer(-1)[:size] = b"x" * size
                waiting.buffer_updated(size)
            assert await client.rest() == b""
            answer.set_result(True)
            await server.quiet()
            assert not server.service.handshakes.under_way
            [session] = [one for one in server.log.events if isinstance(one, log.SmtpdSession)]
            assert session.end == "aborted"

    run(story())


def test_networks_that_are_silent_at_smtps_keep_no_others_out(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    rules = Rules({"127.": Rule(True, {}), "127.0.1.200": Rule(True, {"RELAYCLIENT": ""})})

    async def story() -> None:
        more = {"kind": SmtpsService, "rules": rules, "concurrencyincoming": 200}
        async with running(settings, tls=loaded(control), **more) as server:
            silent = [await server.client(source=f"127.0.1.{host}") for host in range(1, 31)]
            turned_away = 0
            for client in silent[20:]:
                turned_away += await client.rest() == b""
            assert turned_away == 10 and server.service.handshakes.under_way == 20
            for source in ("127.0.9.9", "127.0.1.200"):
                client = await server.client(client_context(), source=source)
                assert (await client.reply())[:3] == b"220"

    run(story())


@pytest.mark.parametrize("end", ["drain", "abort"])
def test_a_service_that_ends_in_the_midst_of_a_handshake_says_nothing_in_plaintext(
    settings: Settings, running: Any, run: Any, control: Path, end: str
) -> None:
    async def story() -> None:
        async with running(settings, tls=loaded(control)) as server:
            client = await (await server.client()).hello()
            await client.say(b"STARTTLS")
            getattr(server.service, end)()
            if end == "drain":
                await client.start_tls(client_context())
                assert (await client.reply())[:3] == b"421"
            else:
                assert await client.rest() == b""
            await server.quiet()

    run(story())


def test_a_service_that_ends_before_a_handshake_has_begun_leaves_nothing_behind(
    settings: Settings, running: Any, run: Any, control: Path
) -> None:
    async def story() -> None:
        async with running(settings, tls=loaded(control)) as server:
            await (await server.client()).hello()
            [session] = server.service.sessions
            session.get_buffer(-1)[:10] = b"STARTTLS\r\n"
            session.buffer_updated(10)
            server.service.abort()
            await server.quiet()

    run(story())


def test_a_client_that_asks_for_renegotiation_is_not_followed(control: Path) -> None:
    assert loaded(control).context.options & ssl.OP_NO_RENEGOTIATION
