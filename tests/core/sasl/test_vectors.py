"""The examples that the RFCs give, byte for byte."""

import base64

import pytest

from openqmail.core.sasl import (
    CRAM_MD5,
    LOGIN,
    OAUTHBEARER,
    PLAIN,
    SCRAM,
    XOAUTH2,
    Ask,
    Challenge,
    CheckPassword,
    CheckResponse,
    CheckToken,
    Facts,
    Granted,
    Secrets,
    Token,
    WantSecrets,
    Yes,
    client_mechanism,
    cram_response,
    make_verifier,
    saslprep,
    server_mechanism,
)

CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
VERIFIER = make_verifier(b"pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)


def test_scram_as_a_server_is_rfc_7677s() -> None:
    server = server_mechanism(SCRAM, Facts(), lambda: b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert server.start(CLIENT_FIRST) == Ask(WantSecrets(b"user", SCRAM))
    assert server.answer(Secrets(b"user", VERIFIER)) == Challenge(SERVER_FIRST)
    assert server.respond(CLIENT_FINAL) == Challenge(SERVER_FINAL)
    assert server.respond(b"") == Granted(b"user")


def test_scram_as_a_client_is_rfc_7677s() -> None:
    client = client_mechanism([SCRAM], b"user", b"pencil", Facts(), nonce=lambda: b"rOprNGfwEbeRWgbNEkqO")
    assert client is not None
    assert client.initial() == CLIENT_FIRST
    assert client.respond(SERVER_FIRST) == CLIENT_FINAL
    assert client.respond(SERVER_FINAL) == b""
    client.accepted()


def test_cram_md5_is_rfc_2195s() -> None:
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    digest = b"b913a602c7eda7a495b4e6e7334d3890"
    assert cram_response(b"tanstaaftanstaaf", challenge) == digest
    client = client_mechanism([CRAM_MD5], b"tim", b"tanstaaftanstaaf", Facts())
    assert client is not None and client.initial() is None
    assert client.respond(challenge) == b"tim " + digest
    server = server_mechanism(
        CRAM_MD5, Facts(host=b"postoffice.reston.mci.net"), nonce=lambda: b"1896.697170952"
    )
    assert server.start(None) == Challenge(challenge)
    assert server.respond(b"tim " + digest) == Ask(CheckResponse(b"tim", challenge, digest))


def test_plain_is_rfc_4616s() -> None:
    server = server_mechanism(PLAIN, Facts())
    assert server.start(b"\0tim\0tanstaaftanstaaf") == Ask(CheckPassword(b"tim", b"tanstaaftanstaaf"))
    assert server.answer(Yes(b"tim@x.example")) == Granted(b"tim@x.example")


@pytest.mark.parametrize("initial", [None, b"tim"])
def test_login_takes_its_name_with_the_command_or_after(initial: bytes | None) -> None:
    server = server_mechanism(LOGIN, Facts())
    step = server.start(initial)
    if initial is None:
        assert step == Challenge(b"Username:")
        step = server.respond(b"tim")
    assert step == Challenge(b"Password:")
    assert server.respond(b"x") == Ask(CheckPassword(b"tim", b"x"))


def test_oauthbearer_is_rfc_7628s() -> None:
    facts = Facts(tls=True, host=b"server.example.com", port=143)
    client = client_mechanism([OAUTHBEARER], b"user@example.com", Token(b"vF9dft4qmTc2Nvb3RlckBhbHR="), facts)
    assert client is not None
    said = (
        b"n,a=user@example.com,\1host=server.example.com\1port=143\1"
        b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHR=\1\1"
    )
    assert client.initial() == said
    server = server_mechanism(OAUTHBEARER, facts)
    assert server.start(said) == Ask(CheckToken(b"user@example.com", b"vF9dft4qmTc2Nvb3RlckBhbHR="))


def test_xoauth2_is_googles() -> None:
    client = client_mechanism([XOAUTH2], b"someuser@example.com", Token(b"ya29.vF9df"), Facts(tls=True))
    assert client is not None
    assert client.initial() == b"user=someuser@example.com\1auth=Bearer ya29.vF9df\1\1"


@pytest.mark.parametrize(
    ("text", "ready"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("e\u0301", "\u00e9"),
    ],
)
def test_saslprep_is_rfc_4013s(text: str, ready: str) -> None:
    assert saslprep(text) == ready


@pytest.mark.parametrize("text", ["\u0007", "\u0627\u0031", "a\ue000", "\u0627b\u0627"])
def test_saslprep_forbids_what_rfc_4013_forbids(text: str) -> None:
    with pytest.raises(ValueError, match="RFC"):
        saslprep(text)
