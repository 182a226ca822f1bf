"""The client's end of TLS as a machine: bytes of the network in, bytes for it out.  No socket.

For connections that are kept: nothing is there for each but what OpenSSL itself needs, and the handshake
has no timer of its own.
"""

import ssl
from collections.abc import Iterable
from contextlib import suppress

from openqmail.core.tls.facts import TlsFacts, facts_of

_PIECE = 65536


class TlsStream:
    """One connection.  `opened` when the handshake is done, `closed` when the peer has said that it will
    send no more.  What `receive` and `send` have to say is handed out by `data_to_send`, once."""

    def __init__(self, context: ssl.SSLContext, server_name: str = "") -> None:
        """`server_name`: for SNI, "" for none."""
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = server_name.encode("ascii") or None  # as text Python would load what IDNA needs
        self._object = context.wrap_bio(self._in, self._out, server_hostname=name)
        self.opened = False
        self.closed = False

    def begin(self) -> None:
        """The first word is ours.  Raises ssl.SSLError."""
        self._shake_hands()

    def receive(self, data: bytes) -> bytes:
        """What is deciphered of it.  Raises ssl.SSLError; what the peer is to be told of that is there to
        be sent."""
        self._in.write(data)
        if not self.opened:
            self._shake_hands()
            if not self.opened:
                return b""
        pieces = []
        try:
            while piece := self._object.read(_PIECE):
                pieces.append(piece)
            self.closed = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.closed = True
        return b"".join(pieces)

    def send(self, data: bytes) -> None:
        """Raises ssl.SSLError."""
        view = memoryview(data)
        while view:
            view = view[self._object.write(view) :]

    def data_to_send(self) -> bytes:
        return self._out.read()

    def close(self) -> None:
        """Say that no more will come.  Raises nothing."""
        with suppress(ssl.SSLError, ValueError):  # it waits for the peer's, or there is nothing to close
            self._object.unwrap()

    @property
    def certificate(self) -> bytes:
        """The peer's, in DER."""
        return self._object.getpeercert(binary_form=True) or b""

    def facts(self, references: Iterable[str]) -> TlsFacts:
        return facts_of(self._object, False, self.certificate, references)

    def _shake_hands(self) -> None:
        try:
            self._object.do_handshake()
            self.opened = True
        except ssl.SSLWantReadError:
            pass
