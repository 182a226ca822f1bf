"""SCRAM against another implementation of it, either way round."""

import pytest

from openqmail.core.sasl import (
    SCRAM,
    SCRAM_PLUS,
    Ask,
    Challenge,
    Denied,
    Facts,
    Granted,
    Secrets,
    client_mechanism,
    make_verifier,
    prepared,
    server_mechanism,
)

scramp = pytest.importorskip("scramp")

PASSWORDS = ["pencil", "p\u00e4ssw\u00f6rd", "a\u00a0b", "I\u00adX", "\u2168", "x, y = z"]
FACTS = Facts(tls=True, bindings={"tls-server-end-point": b"certificate"})
BINDING = ("tls-server-end-point", b"certificate")


def binding_of(name):
    return BINDING if name == SCRAM_PLUS else None


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("name", [SCRAM, SCRAM_PLUS])
def test_our_client_is_let_in_by_scramps_server(name, password) -> None:
    mechanism = scramp.ScramMechanism(name.decode())
    auth = mechanism.make_auth_info(password, iteration_count=4096)
    server = mechanism.make_server({"us,e=r": auth}.__getitem__, channel_binding=binding_of(name))
    client = client_mechanism([name], b"us,e=r", password.encode(), FACTS if binding_of(name) else Facts())
    server.set_client_first(client.initial().decode())
    server.set_client_final(client.respond(server.get_server_first().encode()).decode())
    assert client.respond(server.get_server_final().encode()) == b""
    client.accepted()


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("name", [SCRAM, SCRAM_PLUS])
def test_scramps_client_is_let_in_by_our_server(name, password) -> None:
    other = scramp.ScramClient([name.decode()], "user", password, channel_binding=binding_of(name))
    server = server_mechanism(name, FACTS if binding_of(name) else Facts())
    assert isinstance(server.start(other.get_client_first().encode()), Ask)
    first = server.answer(Secrets(b"user", make_verifier(prepared(password.encode()), b"salt" * 4, 4096)))
    other.set_server_first(first.data.decode())
    last = server.respond(other.get_client_final().encode())
    assert isinstance(last, Challenge)
    other.set_server_final(last.data.decode())
    assert server.respond(b"") == Granted(b"user")


def test_scramps_client_with_another_password_is_not() -> None:
    other = scramp.ScramClient([SCRAM.decode()], "user", "pencils")
    server = server_mechanism(SCRAM, Facts())
    server.start(other.get_client_first().encode())
    first = server.answer(Secrets(b"user", make_verifier(b"pencil", b"salt" * 4, 4096)))
    other.set_server_first(first.data.decode())
    assert isinstance(server.respond(other.get_client_final().encode()), Denied)


def test_our_verifiers_are_scramps() -> None:
    salt, stored, server, iterations = scramp.ScramMechanism(SCRAM.decode()).make_auth_info(
        "pencil", iteration_count=4096, salt=b"0123456789abcdef"
    )
    ours = make_verifier(b"pencil", salt, iterations)
    assert (ours.stored_key, ours.server_key) == (stored, server)
