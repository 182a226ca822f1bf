"""One client that sends more than can be answered at once does not keep the others waiting."""

import asyncio
import socket
from contextlib import suppress

import pytest

from handshakes import loaded
from keyupdates import Asker, openssl
from openqmail.core.smtpd import SmtpsService
from openqmail.core.smtpd.service import READ


def fill(client, data):
    """Send until the system takes no more."""
    wire = client.writer.get_extra_info("socket")
    wire = socket.socket(fileno=socket.dup(wire.fileno()))
    wire.setblocking(False)
    with suppress(BlockingIOError), wire:
        while True:
            wire.send(data)


def messages(session):
    return session._dialogue.standing.bounds._messages


LONG = b"MAIL FROM:<>%b\r\nRSET%b\r\n" % (b" " * 900, b" " * 900)


@pytest.mark.parametrize("command", [b"MAIL FROM:<>\r\nRSET\r\n", LONG, b"BDAT 0\r\n"])
def test_a_client_that_pipelines_without_end_is_answered_in_portions(settings, running, run, command):
    async def story():
        async with running(settings, maxmessages=0) as server:
            client = await (await server.client()).hello()
            [session] = server.service.sessions
            fill(client, command * 5000)
            await asyncio.sleep(0)
            read = answered = 0
            while session.size < 500_000 and not session._unread:
                size, begun = session.size, messages(session)
                await asyncio.sleep(0)
                read = max(read, session.size - size)
                answered = max(answered, messages(session) - begun)
            assert read <= READ
            assert answered <= 256

    run(story())


def test_a_client_that_asks_for_new_keys_without_end_is_cut_off(settings, running, run, control):
    library = openssl()
    if library is None:
        pytest.skip("no libssl")

    def ask(port):
        with socket.create_connection(("127.0.0.1", port), 10) as wire:
            wire.setblocking(True)
            asker = Asker(library, wire)
            assert asker.read()[:3] == b"220"
            return asker.ask(1_000_000)

    async def story():
        async with running(settings, tls=loaded(control), kind=SmtpsService) as server:
            asked = await asyncio.to_thread(ask, server.port)
            assert asked < 1_000_000
            await server.quiet()

    run(story())
