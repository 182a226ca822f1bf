"""Certificates and revocation lists as values: whose they are, from when to when, by which hash a certificate
is bound.

What is read here is shown, warned about and compared; whether a chain holds is OpenSSL's to say.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from openqmail.core.tls import der
from openqmail.core.tls.der import Element, TlsError

__all__ = [
    "Certificate",
    "Revocations",
    "TlsError",
    "read_certificate",
    "read_certificates",
    "read_revocations",
]

_PEM = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.*?)-----END ", re.DOTALL)

_PEM_LIST = re.compile(rb"-----BEGIN X509 CRL-----(.*?)-----END ", re.DOTALL)

_COMMON_NAME, _EMAIL_ADDRESS = "2.5.4.3", "1.2.840.113549.1.9.1"
_SUBJECT_ALT_NAME = "2.5.29.17"
_MAILBOX, _DNS_NAME = 0x81, 0x82

_PSS = "1.2.840.113549.1.1.10"
_HASHES = {
    # RFC 5929 section 4.1: MD5 and SHA-1 become SHA-256
    "1.2.840.113549.1.1.4": "sha256",
    "1.2.840.113549.1.1.5": "sha256",
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
    "1.2.840.113549.1.1.14": "sha224",
    "1.2.840.10045.4.1": "sha256",
    "1.2.840.10045.4.3.1": "sha224",
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
    "2.16.840.1.101.3.4.2.1": "sha256",  # alone: as a parameter of RSASSA-PSS
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
    "1.3.14.3.2.26": "sha256",
}


class Certificate(msgspec.Struct, frozen=True):
    """One X.509 certificate.  Times are seconds of Unix; names as they stand there, hosts in lower case.

    `common_name`: "" where there is not exactly one.  `alternatives`: there is a subjectAltName, whatever it
    holds, and so nothing of the subject counts.  `binding`: the hash of tls-server-end-point, as hashlib
    calls it; "" where RFC 5929 names none (EdDSA).
    `key`: the SubjectPublicKeyInfo in DER, `subject_name`, `issuer_name`: whose it is and who signed it,
    the same.
    """

    der: bytes
    common_name: str
    alternatives: bool
    hosts: tuple[str, ...]
    mailboxes: tuple[str, ...]
    issuer: str
    not_before: int
    not_after: int
    self_issued: bool
    binding: str
    key: bytes
    subject_name: bytes
    issuer_name: bytes


class Revocations(msgspec.Struct, frozen=True):
    """What one authority has revoked (RFC 5280 section 5), but for the certificates themselves.

    `issuer_name` in DER; `not_after`: until when it is in force, 0 where it does not say."""

    issuer: str
    issuer_name: bytes
    not_before: int
    not_after: int


def read_certificates(pem: bytes) -> tuple[Certificate, ...]:
    """All certificates of a PEM file in their order.  Raises TlsError."""
    return tuple(read_certificate(data) for data in _armoured(_PEM, pem, "certificate"))


def read_revocations(pem: bytes) -> tuple[Revocations, ...]:
    """All revocation lists of a PEM file in their order.  Raises TlsError."""
    try:
        return tuple([_read_list(data) for data in _armoured(_PEM_LIST, pem, "revocation list")])
    except (StopIteration, ValueError, IndexError):
        raise TlsError("a revocation list is not as RFC 5280 has it; fetch it again") from None


def _armoured(armour: re.Pattern[bytes], pem: bytes, kind: str) -> Iterator[bytes]:
    """What is in PEM's base64."""
    for match in armour.finditer(pem):
        try:
            yield base64.b64decode(b"".join(match.group(1).split()), validate=True)
        except binascii.Error:
            raise TlsError(f"a {kind} in it is not base64; fetch it again") from None


def read_certificate(data: bytes) -> Certificate:
    """A certificate in DER.  Raises TlsError."""
    try:
        return _read(data)
    except (StopIteration, ValueError, IndexError):
        raise TlsError("a certificate is not as RFC 5280 has it; fetch it again") from None


def _read(data: bytes) -> Certificate:
    body, algorithm = list(der.element(data, 0, len(data)).children())[:2]
    parts = list(body.children())
    if parts[0].tag == 0xA0:  # the version
        del parts[0]
    _, _, issuer, validity, subject, key = parts[:6]
    began, ends = (_time(one) for one in validity.children())
    alternatives = _alternatives(parts[6:])
    names = list(_names(subject))
    if alternatives is not None:
        hosts, mailboxes = alternatives
    else:
        email = _only(names, _EMAIL_ADDRESS)
        hosts, mailboxes = (), (email,) if email else ()
    return Certificate(
        der=data,
        common_name=_only(names, _COMMON_NAME),
        alternatives=alternatives is not None,
        hosts=hosts,
        mailboxes=mailboxes,
        issuer=_who(issuer),
        not_before=began,
        not_after=ends,
        self_issued=issuer.whole == subject.whole,
        binding=_hash(algorithm),
        key=key.whole,
        subject_name=subject.whole,
        issuer_name=issuer.whole,
    )


def _read_list(data: bytes) -> Revocations:
    parts = list(next(der.element(data, 0, len(data)).children()).children())
    if parts[0].tag == der.INTEGER:  # the version
        del parts[0]
    _, issuer, *times = parts[:4]
    ends = times[1:2] if times[1:] and times[1].tag in (der.UTC_TIME, der.GENERALIZED_TIME) else []
    return Revocations(_who(issuer), issuer.whole, _time(times[0]), _time(ends[0]) if ends else 0)


def _who(name: Element) -> str:
    """A distinguished name for people."""
    found = dict(_names(name))
    return found.get(_COMMON_NAME) or ", ".join(found.values())


def _names(name: Element) -> Iterator[tuple[str, str]]:
    """The attributes of a distinguished name."""
    for one in name.children():
        for pair in one.children():
            kind, text = list(pair.children())[:2]
            yield der.dotted(kind.content), text.text()


def _only(names: list[tuple[str, str]], kind: str) -> str:
    """The attribute of this kind; "" where there is not exactly one, as nobody knows which is meant."""
    found = [text for one, text in names if one == kind]
    return found[0] if len(found) == 1 else ""


def _alternatives(rest: list[Element]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Hosts and mailboxes of subjectAltName; None where there is no such extension."""
    for part in rest:
        if part.tag != 0xA3:
            continue
        for extension in next(part.children()).children():
            fields = list(extension.children())
            if der.dotted(fields[0].content) == _SUBJECT_ALT_NAME:
                inner = fields[-1].content
                names = list(der.element(inner, 0, len(inner)).children())
                hosts = tuple(_plain(one).lower() for one in names if one.tag == _DNS_NAME)
                return hosts, tuple(_plain(one) for one in names if one.tag == _MAILBOX)
    return None


def _plain(one: Element) -> str:
    return one.content.decode("ascii", "replace")


def _time(one: Element) -> int:
    text = one.content.decode("ascii")
    if one.tag == der.UTC_TIME:  # RFC 5280 section 4.1.2.5.1
        text = ("19" if text[:2] >= "50" else "20") + text
    if not re.fullmatch(r"[0-9]{14}Z", text):
        raise ValueError(text)
    month, day, hour, minute, second = (int(text[at : at + 2]) for at in range(4, 14, 2))
    return int(datetime(int(text[:4]), month, day, hour, minute, second, tzinfo=UTC).timestamp())


def _hash(algorithm: Element) -> str:
    kind, *parameters = algorithm.children()
    oid = der.dotted(kind.content)
    if oid != _PSS:
        return _HASHES.get(oid, "")
    for one in parameters[0].children() if parameters else ():
        if one.tag == 0xA0:  # hashAlgorithm; SHA-1 where it is left out
            return _HASHES.get(der.dotted(next(next(one.children()).children()).content), "")
    return "sha256"
