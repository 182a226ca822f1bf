"""The client machine until mail may be given: what it demands of a peer, and what it says of itself."""

import base64
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openqmail.core import sasl
from openqmail.core.smtp import ClientSession, LmtpSession, Transaction
from openqmail.core.smtp import client_events as events
from openqmail.core.smtp.client_events import Login, Terms
from openqmail.core.tls import TlsFacts
from openqmail.core.values import Reply

PROVED = TlsFacts(version="TLSv1.3", cipher="TLS_AES_128_GCM_SHA256", peer="mx.test")
UNPROVED = TlsFacts(version="TLSv1.3", cipher="TLS_AES_128_GCM_SHA256")
PLAIN = b"250-mx.test\r\n250 PIPELINING\r\n"
OFFERS = b"250-mx.test\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
JOE = Login(b"joe", b"secret")
ANYHOW = Login(b"joe", b"secret", unverified=True)
CLEAR = Login(b"joe", b"secret", unverified=True, in_clear=True)


def asks_for(*mechanisms: bytes) -> bytes:
    return b"250-mx.test\r\n250 AUTH " + b" ".join(mechanisms) + b"\r\n"


class Peer:
    """A scripted peer beside the machine."""

    def __init__(self, terms: Terms, kind: type[ClientSession] = ClientSession) -> None:
        self.session = kind(b"client.test", terms=terms)

    def says(self, data: bytes) -> list[events.Event]:
        self.session.receive_data(data)
        found: list[events.Event] = []
        while not isinstance(event := self.session.next_event(), events.NeedData):
            found.append(event)
        return found

    def heard(self) -> bytes:
        return self.session.data_to_send()

    def greets(self, ehlo: bytes) -> list[events.Event]:
        self.says(b"220 mx.test ESMTP\r\n")
        assert self.heard() == b"EHLO client.test\r\n"
        return self.says(ehlo)

    def secured(self, ehlo: bytes, facts: TlsFacts = PROVED) -> list[events.Event]:
        """As far as the EHLO behind a handshake."""
        assert self.greets(OFFERS) == [] and self.heard() == b"STARTTLS\r\n"
        assert self.says(b"220 go\r\n") == [events.StartTls()]
        self.session.tls_started(facts)
        assert self.heard() == b"EHLO client.test\r\n"
        return self.says(ehlo)


# --- STARTTLS -----------------------------------------------------------------------------------


def test_starttls_is_said_where_it_is_offered_and_what_was_offered_before_is_forgotten() -> None:
    peer = Peer(Terms("may"))
    assert peer.greets(b"250-mx\r\n250-SIZE 10\r\n250-XOLD\r\n250 STARTTLS\r\n") == []
    assert peer.heard() == b"STARTTLS\r\n"
    assert peer.says(b"220 go\r\n") == [events.StartTls()] and not peer.session.ready
    peer.session.receive_data(b"250 injected\r\n")
    peer.session.tls_started(PROVED)
    assert peer.session.extensions == {} and peer.heard() == b"EHLO client.test\r\n"
    assert peer.says(b"250-mx\r\n250 STARTTLS\r\n") == [events.Ready({b"STARTTLS": b""})]
    assert peer.heard() == b"" and peer.session.tls is PROVED
    with pytest.raises(RuntimeError):
        peer.session.tls_started(PROVED)


def test_starttls_is_not_said_where_none_is_wanted() -> None:
    assert isinstance(Peer(Terms("none")).greets(OFFERS)[0], events.Ready)


@pytest.mark.parametrize("ehlo", [PLAIN, b"502 what\r\n"], ids=["not offered", "no EHLO"])
def test_a_peer_without_starttls_gets_mail_only_where_it_may(ehlo: bytes) -> None:
    for terms, kind in ((Terms("may"), events.Ready), (Terms("must"), events.Unmet)):
        peer = Peer(terms)
        found = peer.greets(ehlo)
        if not found:
            assert peer.heard() == b"HELO client.test\r\n"
            found = peer.says(b"250 mx\r\n")
        assert isinstance(found[0], kind) and peer.session.ready is (kind is events.Ready)


@pytest.mark.parametrize("code", [454, 500, 501, 530, 554])
def test_starttls_refused(code: int) -> None:
    peer = Peer(Terms("may"))
    assert peer.greets(OFFERS) == []
    assert isinstance(peer.says(b"%d no\r\n" % code)[0], events.Ready) and peer.session.ready
    peer = Peer(Terms("must"))
    assert peer.greets(OFFERS) == []
    assert peer.says(b"%d no\r\n" % code) == [events.Refused("starttls", Reply(code, b"", (b"no",)))]
    assert not peer.session.ready
    peer.session.quit()
    assert peer.heard() == b"STARTTLS\r\nQUIT\r\n"


@pytest.mark.parametrize("terms", [Terms("may"), Terms("must")])
def test_421_to_starttls_ends_the_session(terms: Terms) -> None:
    peer = Peer(terms)
    assert peer.greets(OFFERS) == []
    found = peer.says(b"421 bye\r\n")
    assert [type(event) for event in found] == [events.Refused, events.Ended]


@pytest.mark.parametrize("code", [200, 221, 250, 334, 354])
def test_a_reply_to_starttls_that_is_none_ends_the_session(code: int) -> None:
    peer = Peer(Terms("may"))
    assert peer.greets(OFFERS) == []
    assert [type(event) for event in peer.says(b"%d well\r\n" % code)] == [events.Ended]


@pytest.mark.parametrize("terms", [Terms("may"), Terms("must"), Terms("must", JOE)])
@pytest.mark.parametrize(
    "behind",
    [b"250 injected\r\n", b"2", b"\0", b"250-mx.test\r\n250 AUTH PLAIN\r\n", b"\x16\x03\x03\x00\x01"],
)
def test_plain_text_behind_the_answer_to_starttls_ends_the_session(terms: Terms, behind: bytes) -> None:
    peer = Peer(terms)
    assert peer.greets(OFFERS) == []
    found = peer.says(b"220 go\r\n" + behind)
    assert [type(event) for event in found] == [events.Ended] and found[0].stage == "handshake"
    assert peer.heard() == b"STARTTLS\r\n" and peer.session.closing


def test_tls_may_begin_before_the_greeting() -> None:
    peer = Peer(Terms("must", JOE))
    peer.session.tls_started(PROVED)
    assert peer.greets(b"250-mx\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n") == []
    assert peer.heard() == b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n"


def test_lmtp_begins_tls_and_goes_on_with_lhlo() -> None:
    peer = Peer(Terms("must"), LmtpSession)
    peer.says(b"220 mx\r\n")
    assert peer.heard() == b"LHLO client.test\r\n" and peer.says(OFFERS) == []
    assert peer.says(b"220 go\r\n") == [events.StartTls()] and peer.heard() == b"STARTTLS\r\n"
    peer.session.tls_started(UNPROVED)
    assert peer.heard() == b"LHLO client.test\r\n" and isinstance(peer.says(PLAIN)[0], events.Ready)


# --- AUTH ---------------------------------------------------------------------------------------


def test_plain_under_tls() -> None:
    peer = Peer(Terms("must", JOE))
    assert peer.secured(asks_for(b"LOGIN", b"plain")) == []
    assert peer.heard() == b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n"
    assert isinstance(peer.says(b"235 2.7.0 in\r\n")[0], events.Ready) and peer.session.ready


def test_login_asks_twice() -> None:
    peer = Peer(Terms("must", JOE))
    assert peer.secured(asks_for(b"LOGIN")) == [] and peer.heard() == b"AUTH LOGIN\r\n"
    assert peer.says(b"334 VXNlcm5hbWU6\r\n") == [] and peer.heard() == b"am9l\r\n"
    assert peer.says(b"334 UGFzc3dvcmQ6\r\n") == [] and peer.heard() == b"c2VjcmV0\r\n"
    assert isinstance(peer.says(b"235 in\r\n")[0], events.Ready)


def test_cram_md5_of_rfc_2195() -> None:
    peer = Peer(Terms("must", Login(b"tim", b"tanstaaftanstaaf")))
    peer.secured(asks_for(b"CRAM-MD5", b"PLAIN"))
    assert peer.heard() == b"AUTH CRAM-MD5\r\n"
    challenge = base64.b64encode(b"<1896.697170952@postoffice.reston.mci.net>")
    peer.says(b"334 " + challenge + b"\r\n")
    assert base64.b64decode(peer.heard()) == b"tim b913a602c7eda7a495b4e6e7334d3890"
    assert isinstance(peer.says(b"235 in\r\n")[0], events.Ready)


def test_scram_is_chosen_before_the_others_and_proves_both_sides() -> None:
    peer = Peer(Terms("must", JOE))
    peer.secured(asks_for(b"PLAIN", b"CRAM-MD5", b"SCRAM-SHA-256"))
    server = sasl.server_mechanism(b"SCRAM-SHA-256", sasl.Facts(True))
    line = peer.heard()
    assert line.startswith(b"AUTH SCRAM-SHA-256 ")
    asked = server.start(base64.b64decode(line.split()[2]))
    assert isinstance(asked, sasl.Ask)
    challenge = server.answer(sasl.Secrets(b"joe", sasl.make_verifier(b"secret", b"salt", 4096)))
    peer.says(b"334 " + base64.b64encode(challenge.data) + b"\r\n")
    last = server.respond(base64.b64decode(peer.heard()))
    peer.says(b"334 " + base64.b64encode(last.data) + b"\r\n")
    assert peer.heard() == b"\r\n"
    assert isinstance(server.respond(b""), sasl.Granted)
    assert isinstance(peer.says(b"235 in\r\n")[0], events.Ready)


def scram() -> tuple[Peer, sasl.Server]:
    """As far as the server's first message, which has been answered with a proof."""
    peer = Peer(Terms("must", JOE))
    peer.secured(asks_for(b"SCRAM-SHA-256"))
    server = sasl.server_mechanism(b"SCRAM-SHA-256", sasl.Facts(True))
    server.start(base64.b64decode(peer.heard().split()[2]))
    challenge = server.answer(sasl.Secrets(b"joe", sasl.make_verifier(b"other", b"salt", 4096)))
    peer.says(b"334 " + base64.b64encode(challenge.data) + b"\r\n")
    peer.heard()
    return peer, server


def test_a_scram_server_that_proves_nothing_gets_no_mail() -> None:
    peer, _ = scram()
    found = peer.says(b"235 in\r\n")
    assert isinstance(found[0], events.Unmet) and found[0].stage == "auth" and not peer.session.ready


def test_a_scram_server_with_a_false_proof_is_told_so_and_gets_no_mail() -> None:
    peer, _ = scram()
    assert peer.says(b"334 " + base64.b64encode(b"v=" + base64.b64encode(b"x" * 32)) + b"\r\n") == []
    assert peer.heard() == b"*\r\n"
    for answer in (b"501 cancelled\r\n", b"235 never mind\r\n"):
        last, _ = scram()
        last.says(b"334 dj1hYWFh\r\n")
        found = last.says(answer)
        assert isinstance(found[0], events.Unmet) and "prove" in found[0].why and not last.session.ready


@pytest.mark.parametrize("code", [421, 432, 454, 500, 504, 530, 534, 535, 538])
def test_auth_refused(code: int) -> None:
    peer = Peer(Terms("must", JOE))
    peer.secured(asks_for(b"PLAIN"))
    found = peer.says(b"%d no\r\n" % code)
    assert found[0] == events.Refused("auth", Reply(code, b"", (b"no",))) and not peer.session.ready


@pytest.mark.parametrize(
    "answer",
    [b"250 ok\r\n", b"220 ok\r\n", b"354 go\r\n", b"334 ?\r\n", b"334 YQ\r\n", b"334-YQ==\r\n334 YQ==\r\n"],
)
def test_an_answer_to_auth_that_is_none_ends_the_session(answer: bytes) -> None:
    peer = Peer(Terms("must", JOE))
    peer.secured(asks_for(b"PLAIN"))
    assert [type(event) for event in peer.says(answer)] == [events.Ended]


def test_a_server_that_asks_for_more_than_the_mechanism_has_is_left() -> None:
    peer = Peer(Terms("must", JOE))
    peer.secured(asks_for(b"PLAIN"))
    peer.heard()
    assert peer.says(b"334 bW9yZQ==\r\n") == [] and peer.heard() == b"*\r\n"
    assert isinstance(peer.says(b"501 well\r\n")[0], events.Unmet)


@pytest.mark.parametrize("ehlo", [PLAIN, asks_for(b"XUNKNOWN"), asks_for(), b"250-mx\r\n250 AUTH=PLAIN\r\n"])
def test_a_peer_that_takes_no_login_gets_no_mail(ehlo: bytes) -> None:
    found = Peer(Terms("must", JOE)).secured(ehlo)
    assert isinstance(found[0], events.Unmet) and found[0].stage == "auth"


def test_no_login_is_said_to_a_peer_that_has_not_proved_whose_host_it_is() -> None:
    for peer, found in (
        (one := Peer(Terms("must", JOE)), one.secured(asks_for(b"PLAIN", b"SCRAM-SHA-256"), UNPROVED)),
        (two := Peer(Terms("may", JOE)), two.greets(asks_for(b"PLAIN", b"SCRAM-SHA-256"))),
    ):
        assert isinstance(found[0], events.Unmet) and b"AUTH" not in peer.heard()


def test_a_password_is_said_in_clear_only_where_that_is_wanted() -> None:
    offered = asks_for(b"PLAIN", b"LOGIN")
    assert isinstance(Peer(Terms("may", ANYHOW)).greets(offered)[0], events.Unmet)
    assert isinstance(Peer(Terms("none", JOE)).greets(offered)[0], events.Unmet)
    assert isinstance(Peer(Terms("none", ANYHOW)).greets(offered)[0], events.Unmet)
    peer = Peer(Terms("none", CLEAR))
    assert peer.greets(offered) == [] and peer.heard().startswith(b"AUTH PLAIN ")
    peer = Peer(Terms("may", ANYHOW))
    assert peer.greets(asks_for(b"PLAIN", b"CRAM-MD5")) == [] and peer.heard() == b"AUTH CRAM-MD5\r\n"


def test_a_login_shows_nothing_of_itself() -> None:
    assert "secret" not in repr(Terms("must", JOE)) and "joe" not in repr(JOE)


# --- any replies in any order -------------------------------------------------------------------

REPLIES = st.sampled_from(
    [
        b"220 mx\r\n",
        b"250 mx\r\n",
        OFFERS,
        PLAIN,
        b"250-mx\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256\r\n",
        asks_for(b"PLAIN"),
        asks_for(b"LOGIN", b"SCRAM-SHA-256"),
        asks_for(b"SCRAM-SHA-256-PLUS", b"CRAM-MD5"),
        b"235 2.7.0 in\r\n",
        b"334 \r\n",
        b"334 VXNlcm5hbWU6\r\n",
        b"334 cj1hLHM9YSxpPTE=\r\n",
        b"354 go\r\n",
        b"421 bye\r\n",
        b"454 later\r\n",
        b"501 no\r\n",
        b"535 5.7.8 no\r\n",
        b"junk\r\n",
        b"220 go\r\n250 injected\r\n",
        b"",
    ]
)
TERMS = st.builds(
    Terms, st.sampled_from(["none", "may", "must"]), st.sampled_from([None, JOE, ANYHOW, CLEAR])
)


def says_the_password(line: bytes) -> bool:
    try:
        return b"secret" in base64.b64decode(line.split()[-1]) if line.split() else False
    except ValueError:
        return False


@given(TERMS, st.lists(REPLIES, max_size=12), st.sampled_from([PROVED, UNPROVED]), st.booleans())
@example(
    Terms("must", JOE),
    [b"220 mx\r\n", OFFERS, b"220 go\r\n", asks_for(b"PLAIN"), b"235 in\r\n"],
    PROVED,
    False,
)
@example(Terms("none", CLEAR), [b"220 mx\r\n", asks_for(b"PLAIN"), b"235 in\r\n"], PROVED, False)
@settings(max_examples=500)
def test_whatever_the_peer_says_the_terms_hold(
    terms: Terms, replies: list[bytes], facts: TlsFacts, implicit: bool
) -> None:
    session = ClientSession(b"client.test", terms=terms)
    login, secured, accepted = terms.login, False, False
    if implicit:
        session.tls_started(facts)
        secured = True
    for reply in replies:
        session.receive_data(reply)
        while not isinstance(event := session.next_event(), events.NeedData):
            if isinstance(event, events.StartTls):
                assert terms.tls != "none" and not secured
                session.data_to_send()
                session.tls_started(facts)
                secured = True
                assert session.extensions == {} and session.data_to_send() == b"EHLO client.test\r\n"
            elif isinstance(event, events.Ready):
                assert secured or terms.tls != "must"
                assert login is None or reply.startswith(b"235")
                accepted = True
                assert session.ready
                session.begin(Transaction(b"s@x", (b"r@y",)))
            elif isinstance(event, events.Refused | events.Unmet | events.Ended):
                assert not session.ready
                if isinstance(event, events.Ended):
                    assert session.closing
        for line in session.data_to_send().split(b"\r\n"):
            if line.startswith(b"AUTH"):
                assert login is not None
                assert login.unverified or (secured and facts is PROVED)
            if says_the_password(line):
                assert secured or login is CLEAR
            if line.startswith(b"MAIL"):
                assert accepted


@given(
    st.sampled_from([None, JOE, ANYHOW, CLEAR]),
    st.lists(REPLIES, max_size=8),
    st.lists(st.integers(1, 90), max_size=8),
)
@settings(max_examples=200)
def test_replies_may_be_cut_anywhere_before_mail(
    login: Login | None, replies: list[bytes], cuts: list[int]
) -> None:
    """Without STARTTLS, behind whose answer it counts what came at once."""
    terms, data = Terms("none", login), b"".join(replies)

    def met(places: list[int]) -> list[type[events.Event]]:
        session = ClientSession(b"client.test", terms=terms)
        found: list[type[events.Event]] = []
        for start, end in pairwise([0, *places, len(data)]):
            session.receive_data(data[start:end])
            while not isinstance(event := session.next_event(), events.NeedData):
                found.append(type(event))
        return found

    if data:
        assert met(sorted({cut for cut in cuts if cut < len(data)})) == met([])
