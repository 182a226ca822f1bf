"""TLS with other hosts: taken where it is offered, demanded where a policy says so, and what is met there."""

import asyncio
import os
import socket
import ssl
import time

import pytest

from certificates import Authority
from keyupdates import Asker, openssl
from openqmail.core.control.settings import Route
from openqmail.core.log import RemoteTls, RemoteTlsFailed
from openqmail.core.tls import self_signed
from openqmail.core.values import BytesBody, Outcome

K, Z = Outcome.SUCCESS, Outcome.DEFERRAL
CLEAR_AFTER_TLS = b"250-peer.test\r\n250 PIPELINING\r\n"


class Meeting:
    """A remote, and a peer that it calls `mx.test`."""

    def __init__(self, scene, tls_scene, folder, monkeypatch):
        self.scene, self.tls, self.folder, self.monkeypatch = scene, tls_scene, folder, monkeypatch
        self.results, self.log = [], []

    def hold(
        self,
        peer,
        policy=None,
        *,
        jobs=1,
        files=None,
        routes=None,
        job=None,
        key="remote.test",
        submissions=False,
        **changes,
    ):
        async def main():
            async with peer:
                if submissions:
                    self.monkeypatch.setattr("openqmail.core.remote.security.SUBMISSIONS", peer.port)
                given = self.scene.settings(
                    smtproutes=routes or {b"remote.test": Route("smtp", (b"mx.test",), peer.port)},
                    tlspolicy={key.encode(): policy} if policy else {},
                    **{"timeoutremote": 1, **changes},
                )
                keys = self.tls.keys(self.folder, given, **(files or {}))
                zone = self.tls.Zone(remote_test=(b"mx.test",), example_org=(b"mx.test",))
                more = {"resolver": zone, "own": frozenset, "exchanger_port": peer.port}
                async with self.scene.remote(given, keys=keys, **more) as remote:
                    for _ in range(jobs):
                        (result,) = await remote.deliver(job or self.scene.job())
                        self.results.append(result)
                    self.log = remote.log.events

        asyncio.run(asyncio.wait_for(main(), 30))
        return self.results[0]

    def lines(self, kind):
        return [event for event in self.log if isinstance(event, kind)]


@pytest.fixture
def meeting(scene, tls_scene, tmp_path, monkeypatch):
    return Meeting(scene, tls_scene, tmp_path, monkeypatch)


@pytest.fixture
def peer(scene, tls_scene, authority, tmp_path):
    """Makes one, with a certificate of that authority for `mx.test` unless told otherwise."""

    def make(answers=None, issued=None, implicit=False, **how):
        issued = issued or authority.issue("mx.test", ("mx.test",))
        given = {"EHLO": [scene.SECURE, CLEAR_AFTER_TLS] * 10, **(answers or {})}
        return scene.Peer(given, tls=tls_scene.server(issued, tmp_path, **how), implicit=implicit)

    return make


# --- where it works -----------------------------------------------------------------------------


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_is_taken_where_it_is_offered_and_the_connection_is_kept(meeting, peer, newest):
    host = peer(newest=newest)
    assert meeting.hold(host, jobs=3).outcome is K
    assert [each.outcome for each in meeting.results] == [K, K, K]
    assert host.connections == 1 and len(host.messages) == 3 and len(host.secured) == 1
    assert host.commands[:3] == [b"EHLO mail.example.test", b"STARTTLS", b"EHLO mail.example.test"]
    assert not [line for line in host.commands[:2] if line.startswith((b"MAIL", b"RCPT"))]
    assert host.inside[-1] == b"QUIT"
    (line,) = meeting.lines(RemoteTls)
    assert (line.policy, line.sni, line.peer, line.name) == ("may", "mx.test", None, b"mx.test")
    assert line.tls == {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[newest]


def test_none_never_begins_tls(meeting, peer, scene):
    host = peer({"EHLO": scene.SECURE})
    assert meeting.hold(host, "none").outcome is K
    assert b"STARTTLS" not in host.commands and len(host.messages) == 1


def test_a_large_message_goes_through_tls_whole(meeting, peer, scene):
    body = b"Subject: large\n\n" + b"".join(b"%08d %s\n" % (n, b"x" * 60) for n in range(20_000))

    class Read(BytesBody):
        """A body that is not in memory."""

        data = None

        def chunks(self):
            for at in range(0, len(body), 65536):
                yield body[at : at + 65536]

    host = peer()
    meeting.hold(host, job=scene.job(Read(body)), timeoutremote=10)
    assert meeting.results[0].outcome is K and host.messages == [body.replace(b"\n", b"\r\n")]
    assert len(host.secured) == 1


def test_verify_takes_a_host_that_proves_its_name_and_the_log_says_so(meeting, peer, trusted):
    host = peer()
    assert meeting.hold(host, "verify", jobs=2).outcome is K and host.connections == 1
    (line,) = meeting.lines(RemoteTls)
    assert (line.policy, line.peer) == ("verify", "mx.test")


# --- where it does not --------------------------------------------------------------------------


class Alone:
    """A certificate that has signed itself, for `mx.test`."""

    def __init__(self):
        self.pem = self_signed("mx.test", time.time())
        self.certificate = self.pem[self.pem.index(b"-----BEGIN CERTIFICATE") :]


WRONG = {
    "signed by itself": lambda ca: Alone(),
    "expired": lambda ca: ca.issue("mx.test", ("mx.test",), days=-1, began=30),
    "not yet good": lambda ca: ca.issue("mx.test", ("mx.test",), began=-1),
    "of another authority": lambda ca: Authority("Foreign").issue("mx.test", ("mx.test",)),
    "for another name": lambda ca: ca.issue("mx.test", ("other.test",)),
    "for the name in its subject alone": lambda ca: ca.issue("mx.test"),
    "for a name below": lambda ca: ca.issue("mx.test", ("a.mx.test", "*.mx.test")),
    "for too wide a name": lambda ca: ca.issue("mx.test", ("*.test", "*")),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_host_that_does_not_prove_its_name_gets_no_mail_where_it_has_to(
    meeting, peer, authority, trusted, kind
):
    host = peer(issued=WRONG[kind](authority))
    result = meeting.hold(host, "verify")
    assert result.outcome is Z and result.host and b"(#4.7.5)" in result.text
    assert b"control/tlspolicy says verify for remote.test" in result.text
    assert not [line for line in host.commands if line.startswith(b"MAIL")] and not host.messages
    (line,) = meeting.lines(RemoteTlsFailed)
    assert line.then == "wait" and b"certificate" in line.text


@pytest.mark.parametrize("kind", WRONG)
def test_whoever_it_is_gets_mail_under_tls_where_nobody_asks_for_more(meeting, peer, authority, kind):
    for policy in ("may", "encrypt"):
        host = peer(issued=WRONG[kind](authority))
        assert meeting.hold(host, policy).outcome is K
        assert len(host.secured) == 1 and len(host.messages) == 1 and host.connections == 1


class Unsound:
    """Says 220 to STARTTLS, and then what is no TLS, or nothing; polite in plaintext."""

    def __init__(self, then):
        self.then, self.port, self.connections, self.messages, self.heard = then, 0, 0, [], []

    async def __aenter__(self):
        self._tasks = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self.connections += 1
        self._tasks.add(asyncio.current_task())
        try:
            await self._session(reader, writer)
        except OSError:
            pass
        finally:
            writer.close()

    async def _session(self, reader, writer):
        writer.write(b"220 hi\r\n")
        while line := await reader.readline():
            verb = line[:4].upper()
            self.heard.append(line)
            if verb == b"EHLO":
                writer.write(b"250-mx\r\n250 STARTTLS\r\n")
            elif verb == b"STAR":
                await self.then(reader, writer)
                return
            elif verb == b"DATA":
                writer.write(b"354 go\r\n")
                self.messages.append(await reader.readuntil(b"\r\n.\r\n"))
                writer.write(b"250 ok\r\n")
            else:
                writer.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")


def says(data, hang=False):
    async def then(reader, writer):
        writer.write(b"220 go\r\n")
        await reader.read(1)  # of the client's hello: nothing is said before it
        writer.write(data)
        if hang:
            await asyncio.Event().wait()

    return then


async def resets(reader, writer):
    writer.write(b"220 go\r\n")
    await reader.read(1)
    writer.transport.abort()


async def leaves(reader, writer):
    """Without an answer to STARTTLS."""


UNSOUND = {
    "it does not answer": leaves,
    "it hangs up": says(b""),
    "it resets": resets,
    "it talks junk": says(b"\xff" * 100, hang=True),
    "it goes on in plaintext": says(b"250-mx\r\n250 AUTH PLAIN\r\n", hang=True),
    "it sends an alert": says(b"\x15\x03\x03\x00\x02\x02\x28"),
    "it stalls": says(b"", hang=True),
    "it stalls in the midst": says(b"\x16\x03\x03\x40\x00" + b"\x02" * 20, hang=True),
    "it drips": says(b"\x16\x03", hang=True),
}


@pytest.mark.parametrize("kind", UNSOUND)
def test_where_tls_does_not_work_mail_goes_without_on_a_new_connection(meeting, kind):
    host = Unsound(UNSOUND[kind])
    assert meeting.hold(host, timeoutremote=0.5).outcome is K
    assert host.connections == 2 and len(host.messages) == 1
    assert host.heard[:3] == [b"EHLO mail.example.test\r\n", b"STARTTLS\r\n", b"EHLO mail.example.test\r\n"]
    (line,) = meeting.lines(RemoteTlsFailed)
    assert (line.policy, line.then, line.name) == ("may", "plain", b"mx.test") and line.text


@pytest.mark.parametrize("policy", ["encrypt", "verify", "secure"])
@pytest.mark.parametrize("kind", UNSOUND)
def test_where_tls_does_not_work_and_has_to_mail_waits(meeting, trusted, kind, policy):
    host = Unsound(UNSOUND[kind])
    result = meeting.hold(host, policy, timeoutremote=0.5)
    assert result.outcome is Z and f"control/tlspolicy says {policy} for remote.test".encode() in result.text
    assert host.connections == 1 and not host.messages
    assert not [line for line in host.heard if line.startswith((b"MAIL", b"RCPT"))]
    (line,) = meeting.lines(RemoteTlsFailed)
    assert line.then == "wait"


def test_a_host_whose_tls_is_too_old_gets_mail_without_or_not_at_all(meeting, peer):
    old = {"oldest": ssl.TLSVersion.TLSv1, "newest": ssl.TLSVersion.TLSv1_1}
    host = peer(**old)
    assert meeting.hold(host).outcome is K and host.connections == 2 and not host.secured
    meeting.results.clear()
    host = peer(**old)
    assert meeting.hold(host, "encrypt").outcome is Z and not host.messages


@pytest.mark.parametrize("ehlo", ["stripped", "refused", "refused for good"])
def test_starttls_that_somebody_strips_or_the_host_refuses(meeting, peer, scene, ehlo):
    answers = {
        "stripped": {"EHLO": scene.EXTENSIONS},
        "refused": {"STAR": b"454 4.7.0 not now\r\n", "EHLO": scene.SECURE},
        "refused for good": {"STAR": b"502 5.5.1 no\r\n", "EHLO": scene.SECURE},
    }[ehlo]
    host = peer(answers)
    assert meeting.hold(host).outcome is K and host.connections == 1 and not host.secured
    for policy in ("encrypt", "verify", "secure"):
        meeting.results.clear()
        host = peer(answers)
        result = meeting.hold(host, policy)
        assert result.outcome is Z and b"says %s for" % policy.encode() in result.text
        assert b"(#4.7." in result.text and not host.messages
        assert host.commands[-1] == b"QUIT" and b"MAIL" not in b"".join(host.commands)


@pytest.mark.parametrize("policy", ["may", "encrypt", "verify"])
@pytest.mark.parametrize(
    "injected", [b"250 injected\r\n", b"250-mx\r\n250 PIPELINING\r\n", b"2", b"\x16\x03\x03\x00\x00"]
)
def test_what_is_said_in_plaintext_behind_the_answer_to_starttls_is_an_attack(
    meeting, peer, scene, trusted, policy, injected
):
    host = peer({"STAR": b"220 go\r\n" + injected})
    result = meeting.hold(host, policy)
    assert result.outcome is Z and not host.messages and host.connections == 1
    assert host.commands == [b"EHLO mail.example.test", b"STARTTLS"]


def test_the_next_host_has_its_turn_where_one_cannot_prove_its_name(meeting, peer, scene, authority, trusted):
    """It is the exchanger of lower preference, whose certificate is in order."""

    async def main():
        bad = peer(issued=authority.issue("", ("other.test",)))
        async with bad:
            good = scene.Peer(
                {"EHLO": [scene.SECURE, CLEAR_AFTER_TLS]},
                host="127.0.0.2",
                port=bad.port,
                tls=meeting.tls.server(authority.issue("", ("b.test",)), meeting.folder),
            )
            async with good:
                given = scene.settings(tlspolicy={b"*": "verify"})

                class Two(meeting.tls.Zone):
                    async def addresses(self, host):
                        found = await super().addresses(host)
                        return type(found)(("127.0.0.2",), 300.0) if host == b"b.test" else found

                keys = meeting.tls.keys(meeting.folder, given)
                zone = Two(remote_test=(b"a.test", b"b.test"))
                more = {"resolver": zone, "own": frozenset, "exchanger_port": bad.port, "keys": keys}
                async with scene.remote(given, **more) as remote:
                    (result,) = await remote.deliver(scene.job())
                    assert result.outcome is K, result.text
                assert len(good.messages) == 1 and not bad.messages

    asyncio.run(asyncio.wait_for(main(), 30))


# --- secure, pins, our own certificate ----------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "outcome"),
    [
        (("mx.test",), Z),
        (("remote.test",), K),
        (("mx.remote.test",), K),
        (("*.remote.test",), K),
        (("a.b.remote.test",), Z),
        (("xremote.test",), Z),
    ],
)
def test_secure_wants_the_domains_own_name_and_not_its_exchangers(
    meeting, peer, authority, trusted, names, outcome
):
    host = peer(issued=authority.issue("", names))
    result = meeting.hold(host, "secure", routes={b"other.test": Route("smtp", (b"mx.test",))})
    assert result.outcome is outcome, result.text
    assert bool(host.messages) is (outcome is K)


def test_secure_of_a_relay_wants_the_relays_name(meeting, peer, trusted):
    assert meeting.hold(peer(), "secure").outcome is K


def test_a_pin_makes_its_host_prove_itself_by_it_alone(meeting, peer, authority):
    own, other, alone = authority.issue("whoever"), authority.issue("mx.test", ("mx.test",)), Alone()
    cases = [
        (alone, alone.certificate, K),
        (Alone(), alone.certificate, Z),
        (own, own.certificate, K),  # whatever its names
        (other, own.certificate, Z),
        (other, authority.certificate, K),
        (own, authority.certificate, Z),  # signed, but without its name
        (other, Authority("Foreign").certificate, Z),
    ]
    for issued, pin, outcome in cases:
        for policy in (None, "may", "none", "verify"):
            meeting.results.clear()
            host = peer(issued=issued)
            result = meeting.hold(host, policy, files={"tlshosts__mx_test_pem": pin})
            assert result.outcome is outcome, (outcome, policy, result.text)
            assert bool(host.messages) is (outcome is K)
            if outcome is Z and policy != "verify":
                assert b"control/tlshosts/mx.test.pem" in result.text
            if outcome is K:
                assert meeting.lines(RemoteTls)[0].peer == "mx.test"


def test_a_host_named_in_notlshosts_is_not_asked_for_tls(meeting, peer, scene):
    host = peer({"EHLO": scene.SECURE})
    assert meeting.hold(host, files={"notlshosts__mx_test": b""}).outcome is K
    assert b"STARTTLS" not in host.commands


def test_our_certificate_is_shown_to_who_asks(meeting, peer, authority):
    ours = authority.issue("mail.example.test", ("mail.example.test",))
    host = peer(ca=authority.certificate)
    assert meeting.hold(host, "encrypt", files={"clientcert_pem": ours.pem}).outcome is K
    assert host.secured[0].getpeercert(binary_form=True) == ours.der


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_host_that_wants_a_certificate_which_we_have_not(meeting, peer, authority, newest):
    host = peer(ca=authority.certificate, newest=newest)
    assert meeting.hold(host).outcome is K and host.connections == 2  # without TLS then
    meeting.results.clear()
    host = peer(ca=authority.certificate, newest=newest)
    assert meeting.hold(host, "encrypt").outcome is Z and not host.messages


# --- TLS from the first byte on -----------------------------------------------------------------


@pytest.mark.parametrize("policy", [None, "may", "encrypt", "verify"])
def test_at_the_port_of_submissions_tls_begins_at_once(meeting, peer, scene, trusted, policy):
    host = peer({"EHLO": scene.EXTENSIONS}, implicit=True)
    assert meeting.hold(host, policy, jobs=2, submissions=True).outcome is K
    assert host.inside == host.commands and b"STARTTLS" not in host.commands and host.connections == 1


@pytest.mark.parametrize("kind", ["plaintext", "silence", "hangs up"])
def test_at_the_port_of_submissions_nothing_goes_without_tls(meeting, scene, kind):
    answer = {"plaintext": b"220 hi\r\n", "silence": scene.HANG, "hangs up": scene.CLOSE}[kind]
    host = scene.Peer({"": answer})
    result = meeting.hold(host, submissions=True, timeoutremote=0.5)
    assert result.outcome is Z and b"TLS begins with the connection" in result.text
    assert not [line for line in host.commands if line.startswith(b"EHLO")] and host.connections == 1


# --- what TLS does by itself ---------------------------------------------------------------------


class AsksForKeys:
    """A host that answers EHLO with new keys, again and again, and reads nothing."""

    MOST = 500_000

    def __init__(self, library, pem):
        self._library, self._pem = library, os.fsencode(pem)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.asked = None

    async def __aenter__(self):
        self._task = asyncio.create_task(asyncio.to_thread(self._serve))
        return self

    async def __aexit__(self, *_):
        await self._task

    def _serve(self):
        wire, _ = self._listening.accept()
        with wire, self._listening:
            for reply in (b"220 mx.test\r\n", b"250-mx.test\r\n250 STARTTLS\r\n", b"220 go on\r\n"):
                wire.sendall(reply)
                if not reply.startswith(b"220 go"):
                    wire.recv(1000)
            asker = Asker(self._library, wire, self._pem)
            asker.read()
            self.asked = asker.ask(self.MOST)


def test_a_host_that_asks_for_new_keys_without_end_is_left(meeting, authority, tmp_path):
    """Or the answers to it, which it does not read, would be kept."""
    library = openssl()
    if library is None:
        pytest.skip("no libssl")
    (tmp_path / "mx.pem").write_bytes(authority.issue("mx.test", ("mx.test",)).pem)
    host = AsksForKeys(library, tmp_path / "mx.pem")
    assert meeting.hold(host, "encrypt", timeoutremote=20).outcome is Z
    assert host.asked < host.MOST


# --- kept connections ---------------------------------------------------------------------------


def test_a_kept_connection_serves_only_mail_that_demands_the_same(meeting, peer, scene, trusted):
    host = peer()

    async def main():
        async with host:
            routes = {
                name: Route("smtp", (b"mx.test",), host.port)
                for name in (b"a.test", b"b.test", b"c.test", b"d.test")
            }
            given = scene.settings(
                smtproutes=routes, tlspolicy={b"c.test": "verify", b"d.test": "encrypt"}, timeoutremote=5
            )
            keys = meeting.tls.keys(meeting.folder, given)
            async with scene.remote(given, keys=keys, resolver=meeting.tls.Zone()) as remote:
                for domain, connections in (
                    (b"a.test", 1),
                    (b"b.test", 1),
                    (b"c.test", 2),
                    (b"d.test", 3),
                    (b"c.test", 3),
                    (b"a.test", 3),
                ):
                    job = scene.job(domain=domain, recipients=(b"r@" + domain,))
                    (result,) = await remote.deliver(job)
                    assert result.outcome is K and host.connections == connections, domain

    asyncio.run(asyncio.wait_for(main(), 30))
