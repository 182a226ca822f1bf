"""Both sides of ours agree about every password, and about none but that."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.sasl import (
    CRAM_MD5,
    IN_CLEAR,
    LATER,
    LOGIN,
    MALFORMED,
    MECHANISMS,
    OAUTHBEARER,
    PLAIN,
    SCRAM,
    SCRAM_PLUS,
    WRONG,
    XOAUTH2,
    Ask,
    Challenge,
    CheckPassword,
    Denied,
    Facts,
    Granted,
    Later,
    No,
    SaslError,
    ScramVerifier,
    Secrets,
    Token,
    WantSecrets,
    Yes,
    client_mechanism,
    false_verifier,
    make_verifier,
    offered,
    prepared,
    server_mechanism,
)
from sasl_talks import FEW, answer_for, talk

TLS = Facts(tls=True, host=b"mx.example", bindings={"tls-server-end-point": b"hash of a certificate"})
WITH_PASSWORD = [name for name in MECHANISMS if name not in (OAUTHBEARER, XOAUTH2)]

words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
words = words.filter(lambda text: len(text.encode()) <= 255).map(str.encode)


def both(name, login, secret):
    facts = Facts(tls=True) if name == SCRAM else TLS
    client = client_mechanism([name], login, secret, facts)
    assert client is not None and client.name == name
    return server_mechanism(name, facts), client


@pytest.mark.parametrize("name", WITH_PASSWORD)
@settings(max_examples=60)
@given(login=words, password=words, other=words)
def test_the_right_password_and_no_other_is_granted(name, login, password, other) -> None:
    known = {prepared(login): password}
    assert isinstance(talk(*both(name, login, password), known), Granted)
    if prepared(other) != prepared(password):
        assert talk(*both(name, login, other), known) == Denied(WRONG)


@pytest.mark.parametrize("name", [OAUTHBEARER, XOAUTH2])
def test_a_token_is_granted_or_refused_with_a_reason(name) -> None:
    assert talk(*both(name, b"al,i=ce", Token(b"abc")), {b"al,i=ce": b"abc"}) == Granted(b"al,i=ce")
    server, client = both(name, b"alice", Token(b"abd"))
    ask = server.start(client.initial())
    assert isinstance(ask, Ask)
    refusal = server.answer(No())
    assert refusal == Challenge(b'{"status":"invalid_token"}')
    assert server.respond(client.respond(refusal.data)) == Denied(WRONG)


@pytest.mark.parametrize("name", WITH_PASSWORD)
def test_an_unknown_user_takes_the_same_way_as_a_known_one(name) -> None:
    def steps(login, known):
        server, client = both(name, login, b"guess")
        step, found = server.start(client.initial()), []
        while not isinstance(step, Denied):
            found.append(type(step))
            step = (
                server.respond(client.respond(step.data))
                if isinstance(step, Challenge)
                else server.answer(answer_for(step.query, known))
            )
        return [*found, step]

    known = {b"alice": b"secret"}
    assert steps(b"alice", known) == steps(b"nobody", known)


def test_a_false_verifier_is_stable_and_another_for_each_login_and_process() -> None:
    like = {(FEW, 8): 1}
    one = false_verifier(b"key", b"nobody", like)
    assert one == false_verifier(b"key", b"nobody", like)
    assert (one.iterations, len(one.salt)) == (FEW, 8)
    others = [false_verifier(b"key", b"nobody2", like), false_verifier(b"yek", b"nobody", like)]
    assert len({one.salt, *(other.salt for other in others)}) == 3


@pytest.mark.parametrize("name", MECHANISMS)
def test_what_cannot_be_told_now_is_later(name) -> None:
    secret = Token(b"t") if name in (OAUTHBEARER, XOAUTH2) else b"pw"
    server, client = both(name, b"alice", secret)
    step = server.start(client.initial())
    while isinstance(step, Challenge):
        step = server.respond(client.respond(step.data))
    assert isinstance(step, Ask)
    assert server.answer(Later()) == Denied(LATER)


def test_nobody_may_act_as_another() -> None:
    assert server_mechanism(PLAIN, TLS).start(b"bob\0alice\0pw") == Denied(WRONG)
    assert isinstance(server_mechanism(PLAIN, TLS).start(b"alice\0alice\0pw"), Ask)
    assert server_mechanism(SCRAM, Facts()).start(b"n,a=bob,n=alice,r=abc") == Denied(WRONG)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda nonce: b"another" + nonce,
        lambda nonce: nonce + b"x",
        lambda nonce: nonce[:-1],
        lambda nonce: nonce[:6],
    ],
    ids=["another", "longer", "shorter", "the client's part alone"],
)
def test_a_client_that_knows_the_password_but_not_our_nonce_is_refused(wrong) -> None:
    """RFC 5802, section 5.1: the server verifies it, or a proof would hold in more than one exchange."""

    def final(change):
        """A server, and a client's last message with its nonce changed, which the proof holds for."""
        server, bare = server_mechanism(SCRAM, Facts()), b"n=alice,r=nonce1"
        assert isinstance(server.start(b"n,," + bare), Ask)
        first = server.answer(Secrets(b"alice", make_verifier(b"pencil", b"salt", FEW))).data
        unproved = b"c=biws,r=" + change(first.partition(b",")[0].removeprefix(b"r="))
        key = hmac.digest(hashlib.pbkdf2_hmac("sha256", b"pencil", b"salt", FEW), b"Client Key", "sha256")
        mask = hmac.digest(hashlib.sha256(key).digest(), b",".join((bare, first, unproved)), "sha256")
        proof = bytes(one ^ other for one, other in zip(key, mask, strict=True))
        return server, unproved + b",p=" + base64.b64encode(proof)

    server, message = final(lambda nonce: nonce)
    assert isinstance(server.respond(message), Challenge)
    server, message = final(wrong)
    assert server.respond(message) == Denied(MALFORMED)


# --- channel binding --------------------------------------------------------------------------


def test_y_is_refused_where_plus_is_offered() -> None:
    """Somebody in between has taken -PLUS out of what we offer."""
    client = client_mechanism([SCRAM], b"alice", b"pw", TLS)
    assert client is not None and client.initial().startswith(b"y,,")
    assert server_mechanism(SCRAM, TLS).start(client.initial()) == Denied(WRONG)
    assert isinstance(server_mechanism(SCRAM, Facts(tls=True)).start(client.initial()), Ask)


def test_plus_is_refused_between_two_connections() -> None:
    """As a relay in between would have it, with a certificate of its own."""
    client = client_mechanism([SCRAM_PLUS], b"alice", b"pw", TLS)
    theirs = Facts(tls=True, bindings={"tls-server-end-point": b"hash of another certificate"})
    assert talk(server_mechanism(SCRAM_PLUS, theirs), client, {b"alice": b"pw"}) == Denied(WRONG)


def test_an_exporter_is_preferred_and_its_data_count() -> None:
    facts = Facts(tls=True, bindings={**TLS.bindings, "tls-exporter": b"exported"})
    client = client_mechanism([SCRAM_PLUS, SCRAM], b"alice", b"pw", facts)
    assert client.initial().startswith(b"p=tls-exporter,,")
    assert talk(server_mechanism(SCRAM_PLUS, facts), client, {b"alice": b"pw"}) == Granted(b"alice")
    client = client_mechanism([SCRAM_PLUS], b"alice", b"pw", facts)
    assert server_mechanism(SCRAM_PLUS, TLS).start(client.initial()) == Denied(WRONG)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        (SCRAM, b"p=tls-server-end-point,,n=alice,r=abc"),
        (SCRAM_PLUS, b"n,,n=alice,r=abc"),
        (SCRAM_PLUS, b"y,,n=alice,r=abc"),
    ],
)
def test_a_header_of_the_other_mechanism_is_malformed(name, first) -> None:
    assert server_mechanism(name, TLS).start(first) == Denied(MALFORMED)


# --- what is chosen ---------------------------------------------------------------------------


def test_a_server_offers_what_the_connection_allows() -> None:
    assert set(offered(MECHANISMS, Facts(), in_clear=False)) == set()
    assert set(offered(MECHANISMS, Facts(), in_clear=True)) == {*MECHANISMS} - {SCRAM_PLUS}
    assert offered(MECHANISMS, TLS, in_clear=False) == MECHANISMS
    assert offered([PLAIN, LOGIN], TLS, in_clear=False) == (PLAIN, LOGIN)


def test_a_client_says_no_password_in_clear() -> None:
    assert client_mechanism(list(IN_CLEAR), b"alice", b"pw", Facts()) is None
    assert client_mechanism(MECHANISMS, b"alice", b"pw", Facts()).name == SCRAM
    assert client_mechanism([PLAIN, CRAM_MD5], b"alice", b"pw", Facts()).name == CRAM_MD5
    assert client_mechanism([LOGIN, PLAIN], b"alice", b"pw", Facts(), in_clear=True).name == PLAIN
    assert client_mechanism([b"plain"], b"alice", b"pw", TLS).name == PLAIN
    assert client_mechanism(MECHANISMS, b"alice", b"pw", TLS).name == SCRAM_PLUS
    assert client_mechanism([PLAIN, SCRAM, XOAUTH2], b"alice", Token(b"t"), TLS).name == XOAUTH2
    assert client_mechanism([b"GSSAPI"], b"alice", b"pw", TLS) is None


# --- a server that lies -----------------------------------------------------------------------


def after(client, *challenges):
    for challenge in challenges:
        client.respond(challenge)


SALTED = b",s=c2FsdA==,i=4096"


@pytest.mark.parametrize(
    ("challenge", "why"),
    [
        (b"r=other" + SALTED, "does not go on from ours"),
        (b"r=nonce" + SALTED, "does not go on from ours"),
        (b"r=nonce1,s=c2FsdA==,i=1", "1 iterations"),
        (b"r=nonce1,s=c2FsdA==,i=999999999", "999999999 iterations"),
        (b"r=nonce1,s=!,i=4096", "not the form"),
        (b"r=nonce1,s=abc,i=4096", "salt"),
        (b"m=ext,r=nonce1" + SALTED, "not the form"),
        (b"e=other-error", "refuses: other-error"),
        (b"", "not the form"),
        (b"r=nonce1" + SALTED + b",x=" + b"a" * 10_000, "longer than"),
    ],
)
def test_a_client_of_scram_stops_at_a_bad_server(challenge, why) -> None:
    client = client_mechanism([SCRAM], b"alice", b"pw", Facts(), nonce=lambda: b"nonce")
    with pytest.raises(SaslError, match=why):
        client.respond(challenge)


@pytest.mark.parametrize(
    "last", [b"", b"v=", b"v=AAAA", b"v=" + b"A" * 43 + b"=", b"e=invalid-proof", b"\xff"]
)
def test_a_server_that_does_not_know_the_secret_is_found_out(last) -> None:
    client = client_mechanism([SCRAM], b"alice", b"pw", Facts(), nonce=lambda: b"nonce")
    client.respond(b"r=nonce1" + SALTED)
    with pytest.raises(SaslError, match=r"cannot prove|refuses"):
        client.respond(last)


@pytest.mark.parametrize("challenges", [[], [b"r=nonce1" + SALTED]])
def test_success_before_the_server_has_proved_itself_is_none(challenges) -> None:
    client = client_mechanism([SCRAM], b"alice", b"pw", Facts(), nonce=lambda: b"nonce")
    for challenge in challenges:
        client.respond(challenge)
    with pytest.raises(SaslError, match="before it is"):
        client.accepted()


@pytest.mark.parametrize("name", WITH_PASSWORD)
def test_a_server_that_never_has_enough_is_left(name) -> None:
    client = client_mechanism([name], b"alice", b"pw", TLS)
    with pytest.raises(SaslError):
        for _ in range(5):
            client.respond(b"more")


def test_a_server_that_failed_cannot_be_accepted_after_all() -> None:
    client = client_mechanism([SCRAM], b"alice", b"pw", Facts(), nonce=lambda: b"nonce")
    with pytest.raises(SaslError):
        client.respond(b"nonsense")
    with pytest.raises(SaslError, match="over"):
        client.accepted()
    with pytest.raises(SaslError, match="over"):
        client.respond(b"r=nonce1" + SALTED)


# --- bytes of anybody -------------------------------------------------------------------------

scraps = st.sampled_from(
    [
        *(b"", b"\0", b"\0\0", b"a\0b\0c", b"n,,", b"n=a", b",r=x", b"n,,n=a,r=x", b"y,,n=a,r=x"),
        *(b"p=tls-server-end-point,,n=a,r=x", b"c=biws,r=x1", b",p=" + b"A" * 43 + b"=", b"v=AA==", b"e=x"),
        *(b"auth=Bearer x", b"user=a", b"\1", b"\1\1", b"a " + b"0" * 32, b"=2C", b"=", b",", b"\xff"),
        b"r=x1,s=AA==,i=4096",
    ]
)
noise = st.lists(st.one_of(scraps, st.binary(max_size=30)), max_size=6).map(b"".join)


@pytest.mark.parametrize("name", MECHANISMS)
@settings(max_examples=150)
@given(initial=st.none() | noise, more=st.lists(noise, max_size=5))
def test_whatever_a_client_sends_is_answered(name, initial, more) -> None:
    server = server_mechanism(name, TLS, nonce=lambda: b"1")
    step = server.start(initial)
    for data in more:
        while isinstance(step, Ask):
            step = server.answer(answer_for(step.query, {b"a": b"c"}))
        step = server.respond(data)
        assert isinstance(step, Challenge | Ask | Granted | Denied)


@pytest.mark.parametrize("name", MECHANISMS)
@settings(max_examples=150)
@given(challenges=st.lists(noise, max_size=4))
def test_whatever_a_server_sends_ends_in_the_named_error(name, challenges) -> None:
    secret = Token(b"t") if name in (OAUTHBEARER, XOAUTH2) else b"pw"
    client = client_mechanism([name], b"a", secret, TLS, nonce=lambda: b"x")
    try:
        for challenge in challenges:
            assert isinstance(client.respond(challenge), bytes)
        client.accepted()
    except SaslError as error:
        assert "pw" not in str(error)


@pytest.mark.parametrize("name", MECHANISMS)
def test_what_is_too_long_is_malformed(name) -> None:
    assert server_mechanism(name, TLS).start(b"x" * 10_000) == Denied(MALFORMED)
    server = server_mechanism(name, TLS)
    assert isinstance(server.start(None), Challenge)
    assert server.respond(b"x" * 10_000) == Denied(MALFORMED)


@pytest.mark.parametrize(
    "message",
    [b"\0" + b"a" * 256 + b"\0pw", b"\0a\0" + b"p" * 256, b"\0\0pw", b"\0a\0", b"\0a", b"a\0b\0c\0"],
)
def test_logins_and_passwords_are_bounded_and_not_empty(message) -> None:
    assert server_mechanism(PLAIN, TLS).start(message) == Denied(MALFORMED)


def test_a_response_out_of_turn_is_malformed_and_ends_it() -> None:
    server = server_mechanism(PLAIN, TLS)
    assert isinstance(server.start(b"\0a\0b"), Ask)
    assert server.respond(b"") == Denied(MALFORMED)
    with pytest.raises(SaslError):
        server.answer(Yes(b"a"))
    assert server.respond(b"") == Denied(MALFORMED)


def test_an_unasked_answer_is_refused_and_a_strange_one_denies() -> None:
    with pytest.raises(SaslError):
        server_mechanism(PLAIN, TLS).answer(Yes(b"a"))
    server = server_mechanism(SCRAM, Facts())
    assert isinstance(server.start(b"n,,n=a,r=x"), Ask)
    assert server.answer(Yes(b"a")) == Denied(WRONG)
    with pytest.raises(SaslError):
        server_mechanism(b"GSSAPI", TLS)


# --- nothing is shown -------------------------------------------------------------------------


def test_no_secret_is_in_a_repr() -> None:
    verifier = ScramVerifier(4096, b"hush-salt", b"hush-stored", b"hush-server")
    values = [
        CheckPassword(b"hush", b"hush"),
        WantSecrets(b"hush", SCRAM),
        Secrets(b"hush", verifier),
        verifier,
        Token(b"hush"),
        Ask(CheckPassword(b"hush", b"hush")),
        *both(PLAIN, b"hush", b"hush"),
    ]
    assert not [one for one in values if "hush" in repr(one) or "hush" in str(one)]
