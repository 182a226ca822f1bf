"""TLS between a test's client and a real service: certificates of an authority of ours, and both sides."""

import ssl
from pathlib import Path
from typing import Any

from certificates import Authority
from openqmail.core.tls import ServerTls

AUTHORITY = Authority()
OURS = AUTHORITY.issue(hosts=("a.example",))
OTHER = AUTHORITY.issue(hosts=("b.example",))
ALICE = AUTHORITY.issue(mailboxes=("Alice@a.example",))
STRANGER = Authority("Another").issue(mailboxes=("alice@a.example",))


def loaded(control: Path) -> ServerTls:
    """The certificates of a home."""
    found = ServerTls.load(str(control), b"a.example")
    assert found is not None
    return found


def client_context(certificate: Any = None, folder: Path | None = None) -> ssl.SSLContext:
    """That of a client that believes `AUTHORITY`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=AUTHORITY.certificate.decode())
    if certificate is not None and folder is not None:
        (folder / "client.pem").write_bytes(certificate.pem)
        context.load_cert_chain(folder / "client.pem")
    return context


async def secured(server: Any, context: ssl.SSLContext | None = None, name: str = "a.example") -> Any:
    """A client behind STARTTLS and EHLO; and the answer to EHLO."""
    client = await (await server.client()).hello()
    assert (await client.say(b"STARTTLS"))[:3] == b"220"
    await client.start_tls(context or client_context(), name)
    return client, await client.say(b"EHLO client.example")
