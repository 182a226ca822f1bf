"""Makes a self-signed certificate: encryption against who only listens, proof of nothing.

ECDSA on P-256, for `days` days from a moment before now.  `cryptography` is imported here alone.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address

from openqmail.core.tls.der import TlsError

DAYS = 3650
_HOUR = 3600


def address_of(name: str) -> IPv4Address | IPv6Address | None:
    """The address that a name is, with brackets or without; None for a host's."""
    try:
        return ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def self_signed(me: str, now: float, names: tuple[str, ...] = (), days: int = DAYS) -> bytes:
    """Key and certificate for the host `me` (and these other names, or addresses) in one PEM.  Raises
    TlsError."""
    try:
        from datetime import UTC, datetime, timedelta  # noqa: PLC0415  # only here

        from cryptography import x509  # noqa: PLC0415
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
        from cryptography.x509 import oid  # noqa: PLC0415
    except ImportError as error:
        raise TlsError(
            f"no certificate can be made: {error}; install the Python package cryptography"
        ) from None
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(oid.NameOID.COMMON_NAME, me[:64])])
    began = datetime.fromtimestamp(int(now) - _HOUR, UTC)  # for clocks that are behind
    known = [
        x509.DNSName(one) if (address := address_of(one)) is None else x509.IPAddress(address)
        for one in dict.fromkeys((me, *names))
    ]
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after(began + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(known), False)
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(usage, True)
        .add_extension(x509.ExtendedKeyUsage([oid.ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + signed.public_bytes(serialization.Encoding.PEM)
