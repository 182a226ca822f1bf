"""Certificates for tests: an authority, what it signs and revokes, as PEM."""

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Issued:
    """`key`, `certificate`, and both in one file: `pem`."""

    def __init__(self, key: Any, certificate: x509.Certificate) -> None:
        self.x509 = certificate
        self.key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM)
        self.der = certificate.public_bytes(serialization.Encoding.DER)
        self.pem = self.key + self.certificate

    def encrypted(self) -> bytes:
        key = serialization.load_pem_private_key(self.key, None)
        hidden = serialization.BestAvailableEncryption(b"secret")
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
        return pem + self.certificate


class Authority:
    def __init__(self, name: str = "Test Authority", above: "Authority | None" = None) -> None:
        """`above`: who has signed for it, else itself."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        signer = above or self
        builder = _builder(self._name, signer._name, self._key, 3650)
        builder = builder.add_extension(x509.BasicConstraints(True, None), True).add_extension(usage, True)
        self._certificate = builder.sign(signer._key, hashes.SHA256())
        self.certificate = self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        common_name: str = "",
        hosts: tuple[str, ...] = (),
        mailboxes: tuple[str, ...] = (),
        days: int = 90,
        began: int = 1,
        hash_with: Any = None,
        subject: tuple[tuple[x509.ObjectIdentifier, str], ...] = (),
        uris: tuple[str, ...] = (),
    ) -> Issued:
        """`days` from now it ends, `began` days ago it began.  `subject`: instead of the common name."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(*one) for one in subject]) if subject else _name(common_name)
        builder = _builder(name, self._name, key, days, began)
        names: list[x509.GeneralName] = [x509.DNSName(one) for one in hosts]
        names += [x509.RFC822Name(one) for one in mailboxes]
        names += [x509.UniformResourceIdentifier(one) for one in uris]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(usage, False)
        return Issued(key, builder.sign(self._key, hash_with or hashes.SHA256()))

    def revoked(self, *issued: Issued, days: int = 1, began: int = 1) -> bytes:
        """The revocation list, in PEM, in force from `began` days ago to `days` from now."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now - timedelta(days=began)).next_update(now + timedelta(days=days))
        for one in issued:
            entry = x509.RevokedCertificateBuilder().serial_number(one.x509.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now).build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def _builder(subject: x509.Name, issuer: x509.Name, key: Any, days: int, began: int = 1) -> Any:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=began))
        .not_valid_after(now + timedelta(days=days))
    )
