"""The certificates of this host: which are served, what is wrong with them, when they are others."""

import os
import ssl
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from certificates import Authority, Issued
from openqmail.core.tls import ServerTls, read_certificates, self_signed, stamp
from openqmail.core.values import ControlError

AUTHORITY = Authority()
OURS, OTHER = AUTHORITY.issue(hosts=("a.example",)), AUTHORITY.issue(hosts=("*.b.example",))
NOW = time.time()


def load(folder: Path, ciphers: str = "") -> ServerTls | None:
    return ServerTls.load(str(folder), b"a.example", ciphers)


def with_certificate(folder: Path, content: bytes = OURS.pem) -> ServerTls:
    (folder / "servercert.pem").write_bytes(content)
    found = load(folder)
    assert found is not None
    return found


def shake(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str | None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends after a handshake in memory."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(there, back, server_side=True)
    theirs = client.wrap_bio(back, there, server_hostname=name)
    for _ in range(4):
        for one in (theirs, ours):
            try:
                one.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours, theirs


def believer() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=AUTHORITY.certificate.decode())
    return context


def test_a_home_without_certificate_has_no_tls(tmp_path: Path) -> None:
    assert load(tmp_path) is None


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("mail.b.example", OTHER),
        ("MAIL.B.example", OTHER),
        ("b.example", OURS),
        ("x.mail.b.example", OURS),
        ("a.example", OURS),
        ("nobody.example", OURS),
        (None, OURS),
    ],
)
def test_a_wildcard_is_served_one_label_deep(tmp_path: Path, asked: str | None, served: Issued) -> None:
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "_.b.example.pem").write_bytes(OTHER.pem)
    tls = with_certificate(tmp_path)
    assert tls.certificate_for(asked or "") == served.der
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    ours, theirs = shake(tls.context, client, asked)
    assert theirs.getpeercert(binary_form=True) == served.der
    assert ours.certificate == served.der and ours.server_name == (asked or "").lower()  # type: ignore[attr-defined]


OF_RSA, OF_EDWARDS = (
    key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for key in (rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate())
)
WRONG: dict[str, tuple[bytes, str]] = {
    "another key": (OTHER.key + OURS.certificate, "its key is not that of its first certificate"),
    "a key of another kind": (OF_RSA + OURS.certificate, "its key is not that of its first certificate"),
    "another key of another kind": (OF_EDWARDS + OURS.certificate, "is not that of its first certificate"),
    "the chain first": (OURS.key + AUTHORITY.certificate + OURS.certificate, "before the others"),
    "an encrypted key": (OURS.encrypted(), "is encrypted"),
    "no key": (OURS.certificate, "has no private key"),
    "no certificate": (OURS.key, "has no certificate"),
    "nothing": (b"", "has no certificate"),
    "no PEM": (b"\x30\x82" * 100, "has no certificate"),
    "broken base64": (OURS.pem.replace(b"MII", b"M*I"), "not base64"),
    "broken DER": (
        OURS.key + b"-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n",
        "RFC 5280",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_cannot_be_served_is_named_with_its_fault(tmp_path: Path, name: str) -> None:
    content, fault = WRONG[name]
    with pytest.raises(ControlError) as told:
        with_certificate(tmp_path, content)
    assert told.value.file == "control/servercert.pem" and fault in told.value.why
    assert ";" in told.value.why or "," in told.value.why  # and the remedy


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "servercert.pem").symlink_to(tmp_path / "nowhere.pem")
    with pytest.raises(ControlError, match=r"control/servercert.pem: cannot be read: No such file"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["A.example.pem", "a b.pem", "*.example.pem", "a..b.pem", "-.pem"])
def test_a_file_in_certs_that_no_client_could_ask_for_is_named(tmp_path: Path, name: str) -> None:
    with_certificate(tmp_path)
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / name).write_bytes(OURS.pem)
    with pytest.raises(ControlError, match="not named after a host"):
        load(tmp_path)


def test_what_is_no_certificate_in_certs_is_passed_over(tmp_path: Path) -> None:
    with_certificate(tmp_path)
    (tmp_path / "certs").mkdir()
    for name in ("README", ".hidden.pem", "old.pem~"):
        (tmp_path / "certs" / name).write_text("x")
    assert load(tmp_path) is not None


def test_certs_alone_are_not_enough(tmp_path: Path) -> None:
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "a.example.pem").write_bytes(OURS.pem)
    with pytest.raises(ControlError, match=r"control/servercert.pem: is missing"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "why"), [("clientca.pem", "certificate"), ("clientcrl.pem", "revocation list")]
)
def test_what_clients_are_measured_by_has_to_be_readable(tmp_path: Path, name: str, why: str) -> None:
    with_certificate(tmp_path)
    (tmp_path / "clientca.pem").write_bytes(AUTHORITY.certificate)
    (tmp_path / name).write_text("nonsense")
    with pytest.raises(ControlError, match=f"control/{name}: has no {why}"):
        load(tmp_path)


def test_a_revocation_list_alone_is_an_error(tmp_path: Path) -> None:
    with_certificate(tmp_path)
    (tmp_path / "clientcrl.pem").write_bytes(AUTHORITY.revoked())
    with pytest.raises(ControlError, match=r"control/clientcrl.pem: has no effect"):
        load(tmp_path)


def test_ciphers_that_nobody_knows_are_an_error_with_a_line(tmp_path: Path) -> None:
    with_certificate(tmp_path)
    with pytest.raises(ControlError, match="control/tlsserverciphers, line 1: names no cipher"):
        load(tmp_path, "NOSUCHCIPHER")


def test_the_ciphers_of_the_file_are_those_that_are_spoken(tmp_path: Path) -> None:
    with_certificate(tmp_path)
    tls = load(tmp_path, "ECDHE-ECDSA-AES256-GCM-SHA384")
    assert tls is not None
    client = believer()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    ours, _ = shake(tls.context, client, "a.example")
    assert (ours.cipher() or ("",))[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"


def test_by_default_every_cipher_is_forward_secret_and_authenticated(tmp_path: Path) -> None:
    for cipher in with_certificate(tmp_path).context.get_ciphers():
        assert cipher["name"].startswith(("TLS_", "ECDHE-")) and "NULL" not in cipher["name"]


def test_the_stamp_changes_when_a_file_is_replaced_comes_or_goes(tmp_path: Path) -> None:
    stamps = [stamp(str(tmp_path))]
    with_certificate(tmp_path)
    stamps.append(stamp(str(tmp_path)))
    (tmp_path / "new").write_bytes(OURS.pem)
    os.utime(tmp_path / "new", ns=(0, 0))
    (tmp_path / "new").rename(tmp_path / "servercert.pem")
    stamps.append(stamp(str(tmp_path)))
    (tmp_path / "certs").mkdir()
    stamps.append(stamp(str(tmp_path)))
    (tmp_path / "certs" / "b.example.pem").write_bytes(OTHER.pem)
    stamps.append(stamp(str(tmp_path)))
    (tmp_path / "certs" / "b.example.pem").unlink()
    stamps.append(stamp(str(tmp_path)))
    assert len(set(stamps)) == len(stamps) and stamp(str(tmp_path)) == stamps[-1]


def test_the_stamp_changes_when_what_others_are_shown_or_believed_for_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "tlshosts").mkdir()
    stamps = [stamp(str(tmp_path))]
    for name in ("clientcert.pem", "tlshosts/mx.a.example.pem"):
        for content in (OURS.pem, OTHER.pem + b"\n"):
            (tmp_path / name).write_bytes(content)  # in place
            stamps.append(stamp(str(tmp_path)))
    (tmp_path / "tlshosts" / "No.Host.pem").touch()  # what is wrong there is told by who reads it
    stamps.append(stamp(str(tmp_path)))
    assert len(set(stamps)) == len(stamps) and stamp(str(tmp_path)) == stamps[-1]


def test_a_self_signed_certificate_is_what_it_says(tmp_path: Path) -> None:
    pem = self_signed("a.example", NOW, ("mx.a.example",), 30)
    [found] = read_certificates(pem)
    assert (
        found.hosts == ("a.example", "mx.a.example")
        and found.self_issued
        and found.common_name == "a.example"
    )
    assert found.not_before < NOW and 29 < (found.not_after - NOW) / 86_400 < 30.1
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=pem[pem.index(b"-----BEGIN CERT") :].decode())
    _, theirs = shake(
        with_certificate(tmp_path, pem).context, client, "mx.a.example"
    )  # who pins it, verifies
    assert theirs.version() == "TLSv1.3"


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_a_self_signed_certificate_for_an_address_is_believed_there(tmp_path: Path, address: str) -> None:
    pem = self_signed("a.example", NOW, (address,), 30)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=pem[pem.index(b"-----BEGIN CERT") :].decode())
    _, theirs = shake(with_certificate(tmp_path, pem).context, client, address)
    assert theirs.version() == "TLSv1.3"
