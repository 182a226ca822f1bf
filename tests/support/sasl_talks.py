"""A whole SASL exchange between a server and a client of ours, with answers from a small back end."""

from collections.abc import Mapping

from openqmail.core.sasl import (
    Ask,
    Challenge,
    CheckPassword,
    CheckResponse,
    CheckToken,
    Client,
    Denied,
    Granted,
    No,
    Secrets,
    Server,
    Yes,
    cram_response,
    false_verifier,
    make_verifier,
    prepared,
)

FEW = 4096


def answer_for(query, passwords: Mapping[bytes, bytes]):
    """As a back end would that has these passwords."""
    password = passwords.get(prepared(query.login))
    match query:
        case CheckPassword():
            return Yes(query.login) if password == query.password else No()
        case CheckToken():
            return Yes(query.login) if password == query.token else No()
        case CheckResponse():
            right = password is not None and cram_response(password, query.challenge) == query.response
            return Yes(query.login) if right else No()
    if password is None:
        return Secrets(query.login, false_verifier(b"key", query.login))
    return Secrets(query.login, make_verifier(prepared(password), b"salt of it", FEW))


def talk(server: Server, client: Client, passwords: Mapping[bytes, bytes]) -> Granted | Denied:
    """Raises SaslError where the client does."""
    step = server.start(client.initial())
    for _ in range(10):
        match step:
            case Challenge(data):
                step = server.respond(client.respond(data))
            case Ask(query):
                step = server.answer(answer_for(query, passwords))
            case Granted():
                client.accepted()
                return step
            case Denied():
                return step
    raise AssertionError("the two never come to an end")
