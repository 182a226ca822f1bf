"""A peer that asks for new keys without end (RFC 8446 section 4.6.3), which Python's ssl cannot."""

import ctypes
import ctypes.util
import socket
from contextlib import suppress

REQUESTED = 1
_ERRORS = (ConnectionError, TimeoutError)


def openssl() -> ctypes.CDLL | None:
    """OpenSSL's library, where it is there."""
    name = ctypes.util.find_library("ssl")
    if name is None:
        return None
    library = ctypes.CDLL(name)
    for function in (
        "TLS_client_method",
        "TLS_server_method",
        "SSL_CTX_new",
        "SSL_new",
        "BIO_new",
        "BIO_s_mem",
    ):
        getattr(library, function).restype = ctypes.c_void_p
    return library


class Asker:
    """One end of a connection; `pem`: it is the server, with this file.  All blocks: for a thread."""

    def __init__(self, library: ctypes.CDLL, wire: socket.socket, pem: bytes = b"") -> None:
        self._library, self._wire = library, wire
        method = library.TLS_server_method() if pem else library.TLS_client_method()
        context = ctypes.c_void_p(library.SSL_CTX_new(ctypes.c_void_p(method)))
        if pem:
            assert library.SSL_CTX_use_certificate_file(context, pem, 1) == 1
            assert library.SSL_CTX_use_PrivateKey_file(context, pem, 1) == 1
        self._ssl = ctypes.c_void_p(library.SSL_new(context))
        library.SSL_set_fd(self._ssl, wire.fileno())
        begun = library.SSL_accept(self._ssl) if pem else library.SSL_connect(self._ssl)
        assert begun == 1

    def read(self) -> bytes:
        room = ctypes.create_string_buffer(4096)
        count = self._library.SSL_read(self._ssl, room, len(room))
        return room.raw[: max(count, 0)]

    def ask(self, most: int) -> int:
        """So often at most, and read nothing; how often, until the other end was gone."""
        library = self._library
        coming, going = (ctypes.c_void_p(library.BIO_new(ctypes.c_void_p(library.BIO_s_mem()))) for _ in "12")
        library.SSL_set_bio(self._ssl, coming, going)
        room = ctypes.create_string_buffer(1 << 16)
        with suppress(*_ERRORS):
            for asked in range(most):
                library.SSL_key_update(self._ssl, REQUESTED)
                library.SSL_do_handshake(self._ssl)
                if asked % 1000 == 999:
                    while (count := library.BIO_read(going, room, len(room))) > 0:
                        self._wire.sendall(room.raw[:count])
            return most
        return asked
