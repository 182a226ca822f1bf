"""What a handshake came to: the facts that a session, a log, SASL and Received are told.

Channel bindings: tls-server-end-point (RFC 5929) is the hash of the server's certificate;
tls-exporter (RFC 9266) is there where this Python's ssl can export keying material.
"""

import hashlib
import ssl
from collections.abc import Iterable
from functools import lru_cache

import msgspec

from openqmail.core.tls.certificate import TlsError, read_certificate
from openqmail.core.tls.names import client_names, verified_name

END_POINT, EXPORTER = "tls-server-end-point", "tls-exporter"


class TlsFacts(msgspec.Struct, frozen=True):
    """`version` is OpenSSL's word ("TLSv1.3"), `cipher` the suite's name in IANA's registry, `server_name`
    the SNI, `alpn` what was agreed on, `peer` the verified name of the other side's certificate; ""
    where there is none.  `bindings`: those that are there, by name."""

    version: str
    cipher: str
    server_name: str = ""
    alpn: str = ""
    peer: str = ""
    bindings: dict[str, bytes] = {}


def facts_of(
    peer: ssl.SSLObject | ssl.SSLSocket,
    server_side: bool,
    certificate: bytes = b"",
    references: Iterable[str] = (),
) -> TlsFacts:
    """After the handshake.  `certificate`: the server's in DER, be it ours or theirs (b"": as it came).

    `references`: as a client, the names that the server may have (`verified_name`)."""
    if server_side:
        names = client_names(peer)
        name = names[0] if names else ""
        sni = getattr(peer, "server_name", "")
    else:
        certificate = certificate or peer.getpeercert(binary_form=True) or b""
        verified = peer.context.verify_mode is ssl.CERT_REQUIRED
        name = verified_name(certificate, references) if verified else ""
        sni = peer.server_hostname or ""
    cipher = peer.cipher()
    return TlsFacts(
        version=peer.version() or "",
        cipher=suite(cipher[0]) if cipher else "",
        server_name=sni,
        alpn=peer.selected_alpn_protocol() or "",
        peer=name,
        bindings=_bindings(peer, certificate),
    )


@lru_cache(32)  # a server's own is the same in each session
def end_point(certificate: bytes) -> bytes:
    """tls-server-end-point of a certificate in DER; b"" where it is not defined."""
    try:
        binding = read_certificate(certificate).binding
    except TlsError:
        return b""
    return hashlib.new(binding, certificate).digest() if binding else b""


def suite(name: str) -> str:
    """IANA's name of a suite that OpenSSL calls `name`: `ECDHE-RSA-AES128-GCM-SHA256` is
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256."""
    if name.startswith("TLS_"):
        return name
    parts = name.split("-")
    exchange = []
    while parts and parts[0] in _EXCHANGES:
        exchange.append(parts.pop(0))
    if exchange in (["ECDHE"], ["DHE"]):
        exchange.append("RSA")
    words = [word for part in parts for word in _CIPHERS.get(part, part).split("_")]
    if words and words[-1].startswith("SHA") and not {"CBC", "GCM", "CCM"} & set(words):
        words.insert(-1, "CBC")
    if words[-1:] == ["POLY1305"]:
        words.append("SHA256")
    return "TLS_" + "_".join(exchange or ["RSA"]) + "_WITH_" + "_".join(words)


_EXCHANGES = {"ECDHE", "DHE", "RSA", "ECDSA", "DSS", "ADH", "AECDH", "PSK", "SRP", "ECDH"}
_CIPHERS = {
    **{f"AES{size}": f"AES_{size}" for size in (128, 256)},
    **{f"CAMELLIA{size}": f"CAMELLIA_{size}" for size in (128, 256)},
    **{f"ARIA{size}": f"ARIA_{size}" for size in (128, 256)},
    "CCM8": "CCM_8",
}


def _bindings(peer: ssl.SSLObject | ssl.SSLSocket, certificate: bytes) -> dict[str, bytes]:
    found = {}
    if certificate and (hashed := end_point(certificate)):
        found[END_POINT] = hashed
    export = getattr(peer, "export_keying_material", None)  # not in any Python up to 3.14
    if export is not None and peer.version() == "TLSv1.3":
        found[EXPORTER] = export(b"EXPORTER-Channel-Binding", 32, b"")
    return found
