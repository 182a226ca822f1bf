"""Logins at relays: to whom they are told, by what, and what a relay can make of them."""

import asyncio
import base64

import pytest

from openqmail.core import sasl
from openqmail.core.control.credentials import parse_credentials, parse_route_logins
from openqmail.core.control.settings import Route
from openqmail.core.control.text import ControlText
from openqmail.core.log import RemoteLogin
from openqmail.core.remote import Keys
from openqmail.core.remote.report import concluded
from openqmail.core.remote.securing import logged_in
from openqmail.core.remote.security import Security
from openqmail.core.remote.transport import Stop
from openqmail.core.smtp.client_events import Login
from openqmail.core.values import Outcome, Reply

K, Z = Outcome.SUCCESS, Outcome.DEFERRAL
OURS = b"mx.test joe s3cret word\n"
PASSWORD = b"s3cret word"


def offers(*mechanisms):
    return b"250-peer.test\r\n250-PIPELINING\r\n250 AUTH " + b" ".join(mechanisms) + b"\r\n"


@pytest.fixture
def relay(scene, tls_scene, authority, tmp_path):
    """A class of relays that take SASL from `joe`, in whatever mechanism they offer."""

    class Relay(scene.Peer):
        def __init__(
            self, *mechanisms, password=PASSWORD, tls=True, names=("mx.test",), plain=None, **answers
        ):
            offered = offers(*mechanisms)
            first = scene.SECURE if tls else offered
            given = {"EHLO": [plain or first, offered] * 10 if tls else first, **answers}
            context = tls_scene.server(authority.issue("", names), tmp_path) if tls else None
            super().__init__(given, tls=context)
            self.password, self.talk, self.logins = password, None, []

        def _next(self, verb):
            line = self.commands[-1] if self.commands and verb else b""
            if "AUTH" in self.answers and verb == "AUTH":
                return super()._next(verb)
            if verb == "AUTH" and line.upper().startswith(b"AUTH "):
                _, name, *initial = line.split(b" ")
                self.name = name
                self.talk = sasl.server_mechanism(name, sasl.Facts(True, host=b"peer.test"))
                told = None
                if initial:
                    told = b"" if initial[0] == b"=" else base64.b64decode(initial[0])
                return self._said(self.talk.start(told))
            if self.talk is not None:
                if line == b"*":
                    self.talk = None
                    return b"501 5.7.0 cancelled\r\n"
                return self._said(self.talk.respond(base64.b64decode(line)))
            return super()._next(verb)

        def _said(self, step):
            while isinstance(step, sasl.Ask):
                step = self.talk.answer(self._known(step.query))
            if isinstance(step, sasl.Challenge):
                return b"334 " + base64.b64encode(step.data) + b"\r\n"
            self.talk = None
            if isinstance(step, sasl.Granted):
                self.logins.append((self.name, step.identity))
                return b"235 2.7.0 in\r\n"
            return b"535 5.7.8 no\r\n"

        def _known(self, query):
            if isinstance(query, sasl.WantSecrets):
                return sasl.Secrets(query.login, sasl.make_verifier(self.password, b"salty", 4096))
            if isinstance(query, sasl.CheckResponse):
                right = sasl.cram_response(self.password, query.challenge) == query.response
            else:
                right = query.password == self.password
            return sasl.Yes(query.login) if right and query.login == b"joe" else sasl.No()

    return Relay


@pytest.fixture
def send(scene, tls_scene, tmp_path):
    """Sends to a relay that is known as `mx.test`; the result, and the log."""

    def run(peer, policies=None, credentials=OURS, smtproutes=b"", jobs=1):
        async def main():
            async with peer:
                routes = {b"remote.test": Route("smtp", (b"mx.test",), peer.port)}
                given = scene.settings(smtproutes=routes, tlspolicy=policies or {}, timeoutremote=2)
                keys = tls_scene.keys(tmp_path, given, credentials=credentials, smtproutes=smtproutes)
                async with scene.remote(given, keys=keys, resolver=tls_scene.Zone()) as remote:
                    for _ in range(jobs):
                        (result,) = await remote.deliver(scene.job())
                    said = b" ".join(remote.log.lines()) + result.text + repr(remote.log.events).encode()
                    run.log = remote.log
                    assert PASSWORD not in said and base64.b64encode(PASSWORD) not in said
                    return result

        return asyncio.run(asyncio.wait_for(main(), 30))

    return run


@pytest.mark.parametrize("mechanism", [b"PLAIN", b"LOGIN", b"CRAM-MD5", b"SCRAM-SHA-256"])
def test_a_login_is_told_to_a_relay_that_has_proved_its_name(relay, send, trusted, mechanism):
    peer = relay(mechanism)
    assert send(peer, jobs=2).outcome is K
    assert peer.logins == [(mechanism, b"joe")] and len(peer.messages) == 2 and peer.connections == 1
    begun = next(at for at, line in enumerate(peer.commands) if line.startswith(b"AUTH"))
    assert all(not line.startswith(b"MAIL") for line in peer.commands[:begun])
    assert peer.commands[begun] in peer.inside


def logins(log):
    return [event for event in log.events if isinstance(event, RemoteLogin)]


@pytest.mark.parametrize("tls", [True, False])
def test_a_login_that_is_taken_is_in_the_log_once_a_connection(relay, send, trusted, tls):
    peer = relay(b"CRAM-MD5", tls=tls)
    assert send(peer, policies=None if tls else {b"mx.test": "none"}, jobs=2).outcome is K
    assert len(peer.messages) == 2 and peer.connections == 1
    ((delivery, line),) = [(event.delivery, event.line()) for event in logins(send.log)]
    assert line == (
        b"remote: login <joe>: delivery %d host 127.0.0.1:%d name mx.test mechanism CRAM-MD5 tls %s"
        % (delivery, peer.port, b"yes" if tls else b"no")
    )


def test_a_login_that_is_refused_is_not_in_the_log_as_taken(relay, send, trusted):
    assert send(relay(b"PLAIN", password=b"another")).outcome is Z
    assert logins(send.log) == []


def test_who_has_one_secret_for_name_and_password_is_not_named_in_the_log():
    for name, told in ((b"t0ken", b""), (b"customer+t0ken", b""), (b"joe", b"joe")):
        stop = Stop(b"mx.test", "192.0.2.1", 587, security=Security(login=Login(name, b"t0ken")))
        event = logged_in(1, stop, b"PLAIN", True)
        assert event.login == told and b"t0ken" not in event.line()


def test_the_best_mechanism_is_used(relay, send, trusted):
    peer = relay(b"LOGIN", b"PLAIN", b"CRAM-MD5", b"SCRAM-SHA-256", b"XUNKNOWN")
    assert send(peer).outcome is K and peer.logins == [(b"SCRAM-SHA-256", b"joe")]


def test_the_fourth_field_of_a_route_is_a_login(relay, send, trusted):
    peer = relay(b"PLAIN")
    line = b"remote.test:mx.test:25:joe s3cret word\n"
    assert send(peer, credentials=b"", smtproutes=line).outcome is K and peer.logins == [(b"PLAIN", b"joe")]


@pytest.mark.parametrize("names", [("other.test",), ()])
@pytest.mark.parametrize("policies", [{}, {b"*": "may"}, {b".test": "none"}, {b"remote.test": "encrypt"}])
def test_no_login_is_told_to_a_relay_that_has_not_proved_its_name(relay, send, trusted, names, policies):
    peer = relay(b"PLAIN", b"SCRAM-SHA-256", names=names)
    result = send(peer, policies)
    assert result.outcome is Z and not peer.messages
    assert b"a login is told to mx.test" in result.text
    assert not [line for line in peer.commands if line.startswith((b"AUTH", b"MAIL"))]


def test_a_relay_whose_own_line_asks_for_less_is_told_the_login_under_tls(relay, send):
    for policy in ("encrypt", "may"):
        peer = relay(b"PLAIN", names=("other.test",))
        assert send(peer, {b"mx.test": policy}).outcome is K and peer.logins == [(b"PLAIN", b"joe")]
        assert peer.inside


def test_a_password_is_not_told_where_somebody_strips_starttls(relay, send):
    for mechanisms, logins in (
        ((b"PLAIN", b"LOGIN"), []),
        ((b"PLAIN", b"CRAM-MD5"), [(b"CRAM-MD5", b"joe")]),
    ):
        peer = relay(*mechanisms, tls=False)
        result = send(peer, {b"mx.test": "may"})
        assert peer.logins == logins and (result.outcome is K) is bool(logins)
        assert base64.b64encode(b"\0joe\0" + PASSWORD) not in b" ".join(peer.commands)


def test_a_password_is_not_told_after_a_handshake_that_failed(relay, send, scene):
    """The next try is without TLS, and the relay offers AUTH there."""
    peer = relay(b"PLAIN", plain=b"250-p\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n", STAR=scene.CLOSE)
    peer.answers["EHLO"] = b"250-p\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n"
    assert send(peer, {b"mx.test": "may"}).outcome is Z
    assert not [line for line in peer.commands if line.startswith(b"AUTH")] and peer.connections == 2


def test_a_line_that_says_none_for_the_relay_tells_it_in_plaintext(relay, send):
    peer = relay(b"PLAIN", tls=False)
    assert send(peer, {b"mx.test": "none"}).outcome is K and peer.logins == [(b"PLAIN", b"joe")]


def test_a_relay_that_takes_no_login_gets_no_mail(relay, send, scene, trusted):
    peer = relay()
    peer.answers["EHLO"] = [scene.SECURE, scene.PLAIN] * 3
    result = send(peer)
    assert result.outcome is Z and b"does not offer AUTH" in result.text and not peer.messages
    peer = relay(b"GSSAPI", b"NTLM")
    assert b"no mechanism of AUTH" in send(peer).text and not peer.messages


@pytest.mark.parametrize("code", [454, 535, 534, 538, 504])
def test_a_login_that_is_refused_defers(relay, send, trusted, code):
    peer = relay(b"PLAIN", AUTH=b"%d 5.7.8 no such thing\r\n" % code)
    result = send(peer)
    assert result.outcome is Z and result.host and not peer.messages
    assert b"my login was rejected" in result.text and b"%d" % code in result.text
    if code == 454:
        assert "credentials" not in result.why, "it cannot tell now, which no line mends"
    else:
        assert result.why.startswith("mx.test: it refuses our login")
        assert "line in control/credentials" in result.why and "joe" not in result.why
    assert peer.commands[-1] == b"QUIT"


@pytest.mark.parametrize(("verb", "host"), [("MAIL", True), ("RCPT", False), ("DATA", False)])
def test_mail_waits_where_a_relay_wants_a_login_that_it_is_not_told(scene, tls_scene, verb, host):
    """Its name was misspelt in control/credentials: mail would come back at once, all of it."""
    said = {verb: b"530 5.7.0 Authentication required\r\n"}
    result = exchange_by_route(scene, tls_scene, said)
    assert (result.outcome, result.host) == (Z, host) and b"530 5.7.0" in result.text
    assert "line in control/credentials" in result.why and result.why.startswith("mx.test: ")


def test_a_strangers_host_that_wants_a_login_refuses_for_good():
    reply = Reply(530, b"5.7.0", (b"Authentication required",))
    assert concluded(b"192.0.2.1", "mail", reply).outcome is Outcome.FAILURE


def exchange_by_route(scene, tls_scene, answers):
    async def main():
        async with scene.Peer(answers) as peer:
            routes = {b"remote.test": Route("smtp", (b"mx.test",), peer.port)}
            given = scene.settings(smtproutes=routes, timeoutremote=2)
            async with scene.remote(given, resolver=tls_scene.Zone()) as remote:
                (result,) = await remote.deliver(scene.job())
                return result

    return asyncio.run(asyncio.wait_for(main(), 30))


def test_a_wrong_password_defers(relay, send, trusted):
    for mechanism in (b"PLAIN", b"LOGIN", b"CRAM-MD5"):
        peer = relay(mechanism, password=b"another")
        assert b"535" in send(peer).text and not peer.logins and not peer.messages


@pytest.mark.parametrize("quoted", [b"%b", b"AUTH PLAIN %b is wrong"])
@pytest.mark.parametrize(
    "said", [PASSWORD, base64.b64encode(PASSWORD), base64.b64encode(b"\0joe\0" + PASSWORD)]
)
def test_a_relay_that_says_our_password_back_does_not_bring_it_into_the_log(
    relay, send, trusted, said, quoted
):
    peer = relay(b"PLAIN", AUTH=b"535 5.7.8 " + quoted % said + b"\r\n")
    result = send(peer)
    assert (
        result.outcome is Z and b"535 5.7.8 (it quotes our login)" in result.text and said not in result.text
    )


@pytest.mark.parametrize(
    "answer",
    [b"334 ?\r\n", b"334 YQ\r\n", b"250 ok\r\n", b"220 go\r\n", b"334-YQ==\r\n334 YQ==\r\n", b"235\n"],
)
def test_what_is_no_answer_to_auth_defers(relay, send, trusted, answer):
    peer = relay(b"PLAIN", AUTH=answer)
    assert send(peer).outcome is Z and not peer.messages


def test_a_scram_server_that_does_not_know_the_password_gets_nothing(relay, send, trusted):
    """It says 535, or claims that all is well."""
    peer = relay(b"SCRAM-SHA-256", password=b"another")
    assert send(peer).outcome is Z and not peer.messages
    peer = relay(b"SCRAM-SHA-256", AUTH=b"235 2.7.0 in\r\n")
    result = send(peer)
    assert result.outcome is Z and b"is done before it is" in result.text and not peer.messages


def test_a_scram_server_that_cannot_prove_itself_gets_nothing(relay, send, trusted):
    class Liar(relay):
        def _known(self, query):
            return sasl.Secrets(query.login, self.verifier)

        def _said(self, step):
            while isinstance(step, sasl.Ask):
                step = self.talk.answer(self._known(step.query))
            if isinstance(step, sasl.Challenge):
                return b"334 " + base64.b64encode(step.data) + b"\r\n"
            self.talk = None
            return b"334 " + base64.b64encode(b"v=" + base64.b64encode(b"x" * 32)) + b"\r\n"

    peer = Liar(b"SCRAM-SHA-256")
    peer.verifier = sasl.make_verifier(b"another", b"salty", 4096)
    result = send(peer)
    assert result.outcome is Z and b"cannot prove" in result.text and not peer.messages
    assert b"*" in peer.commands


def test_connections_with_different_logins_are_not_shared(relay, scene, tls_scene, tmp_path, trusted):
    peer = relay(b"PLAIN")
    lines = b"a.test:mx.test:25:joe s3cret word\nb.test:mx.test:25:joe s3cret word\nc.test:mx.test:25:jim x\n"

    async def main():
        async with peer:
            keys = (b"a.test", b"b.test", b"c.test")
            given = scene.settings(smtproutes={key: Route("smtp", (b"mx.test",), peer.port) for key in keys})
            held = tls_scene.keys(tmp_path, given, smtproutes=lines)
            async with scene.remote(given, keys=held, resolver=tls_scene.Zone()) as remote:
                outcomes = []
                for domain in keys:
                    job = scene.job(domain=domain, recipients=(b"r@" + domain,))
                    (result,) = await remote.deliver(job)
                    outcomes.append((result.outcome, peer.connections))
                assert outcomes == [(K, 1), (K, 1), (Z, 2)]

    asyncio.run(asyncio.wait_for(main(), 30))


# --- the files ----------------------------------------------------------------------------------


def test_credentials_are_read_and_show_nothing():
    text = ControlText("control/credentials", b"# ours\nMX.test joe s3cret word \n[192.0.2.1]  jim a:b c\n")
    found, problems = parse_credentials(text)
    assert not problems
    assert {host: (one.name, one.password) for host, one in found.items()} == {
        b"mx.test": (b"joe", b"s3cret word"),
        b"[192.0.2.1]": (b"jim", b"a:b c"),
    }
    assert "s3cret" not in repr(found) and "joe" not in repr(found)


@pytest.mark.parametrize(
    "line", ["mx.test joe", "mx.test", "joe s3cret", "b@d!host joe s3cret", "mx.test joe " + "s3cret" * 50]
)
def test_a_line_of_credentials_that_is_wrong_quotes_nothing(line):
    found, problems = parse_credentials(ControlText("control/credentials", line.encode()))
    assert not found and len(problems) == 1
    assert problems[0].line == 1 and "s3cret" not in str(problems[0])


def test_two_logins_for_one_host_are_a_mistake():
    _, problems = parse_credentials(ControlText("control/credentials", b"a.test x y\nA.test x z\n"))
    assert [problem.line for problem in problems] == [2]


def test_passwords_of_routes_may_have_colons_and_brackets():
    text = b"a.test:[::1]:587:joe p:w]o[r d\n.b.test:lmtp!x.test\n:relay.test::jim x\n"
    found = parse_route_logins(ControlText("control/smtproutes", text))
    assert {key: (one.name, one.password) for key, one in found.items()} == {
        b"a.test": (b"joe", b"p:w]o[r d"),
        b"": (b"jim", b"x"),
    }


def test_settings_have_no_password(tmp_path, scene):
    from openqmail.core.control import syntax

    keys, route = syntax.route("a.test:b.test:587:joe s3cret")
    assert keys == (b"a.test",) and route == Route("smtp", (b"b.test",), 587)
    assert "s3cret" not in syntax.without_login("a.test:b.test:587:joe s3cret")
    assert "s3cret" not in syntax.without_login("a.test:b.test:joe s3cret")
    assert syntax.without_login("a.test:b.test:587") == "a.test:b.test:587"
    control = tmp_path / "control"
    control.mkdir()
    (control / "credentials").write_bytes(OURS)
    assert "s3cret" not in repr(vars(Keys.load(str(control), scene.settings())))
