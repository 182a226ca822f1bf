"""What a handshake came to, whose certificate it was, and how little of DER is believed."""

import hashlib
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from certificates import Authority
from openqmail.core.tls import (
    Policy,
    ServerTls,
    TlsError,
    client_context,
    client_names,
    facts_of,
    pin_files,
    read_certificates,
    verified_name,
)
from openqmail.core.tls.certificate import read_certificate
from openqmail.core.tls.facts import end_point, suite
from openqmail.core.values import ControlError

AUTHORITY = Authority()
OURS = AUTHORITY.issue(hosts=("mx.a.example",))


def served(folder: Path) -> ServerTls:
    (folder / "servercert.pem").write_bytes(OURS.pem)
    found = ServerTls.load(str(folder), b"mx.a.example")
    assert found is not None
    return found


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> tuple[ssl.SSLObject, ssl.SSLObject]:
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


def test_both_sides_have_the_same_facts_and_bindings(tmp_path: Path) -> None:
    tls = served(tmp_path)
    ours, theirs = shake(tls.context, client_context(Policy.MAY, str(tmp_path)), "mx.a.example")
    mine, others = facts_of(ours, True, tls.certificate_for("mx.a.example")), facts_of(theirs, False)
    assert (mine.version, mine.cipher, mine.server_name) == (
        "TLSv1.3",
        "TLS_AES_256_GCM_SHA384",
        "mx.a.example",
    )
    assert mine.bindings == others.bindings
    assert mine.bindings["tls-server-end-point"] == hashlib.sha256(OURS.der).digest()
    assert (mine.peer, others.peer) == ("", "")  # nobody has verified anybody


class Exporting:
    """An end of TLS in a Python whose ssl exports keying material, which is none up to 3.14."""

    def __init__(self, peer: ssl.SSLObject) -> None:
        self._peer = peer
        self.asked: list[tuple[bytes, int, bytes | None]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._peer, name)

    def export_keying_material(self, label: bytes, length: int, context: bytes | None = None) -> bytes:
        self.asked.append((label, length, context))
        return b"k" * length


def test_a_python_that_exports_keys_gives_both_sides_the_binding_of_rfc_9266(tmp_path: Path) -> None:
    tls = served(tmp_path)
    for end, server_side in zip(
        shake(tls.context, client_context(Policy.MAY, str(tmp_path)), "mx.a.example"),
        (True, False),
        strict=True,
    ):
        exporting = Exporting(end)
        bindings = facts_of(exporting, server_side, OURS.der).bindings  # type: ignore[arg-type]
        assert bindings == {
            "tls-server-end-point": hashlib.sha256(OURS.der).digest(),
            "tls-exporter": b"k" * 32,
        }
        assert exporting.asked == [
            (b"EXPORTER-Channel-Binding", 32, b"")
        ]  # its section 2, and an empty context


def test_tls_1_2_has_no_exporter_binding(tmp_path: Path) -> None:
    # There it is unique only with an extended master secret (RFC 9266 section 3), which nobody tells us of.
    tls, client = served(tmp_path), client_context(Policy.MAY, str(tmp_path))
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    ours, _ = shake(tls.context, client, "mx.a.example")
    exporting = Exporting(ours)
    assert list(facts_of(exporting, True, OURS.der).bindings) == ["tls-server-end-point"]  # type: ignore[arg-type]
    assert exporting.asked == []


@pytest.mark.parametrize(
    ("hash_with", "bound"),
    [(hashes.SHA256(), "sha256"), (hashes.SHA384(), "sha384"), (hashes.SHA512(), "sha512")],
)
def test_the_end_point_is_bound_by_the_hash_of_its_signature(
    hash_with: hashes.HashAlgorithm, bound: str
) -> None:
    issued = AUTHORITY.issue(hosts=("a.example",), hash_with=hash_with)
    assert end_point(issued.der) == hashlib.new(bound, issued.der).digest()


@pytest.mark.parametrize(
    ("arguments", "bound"),
    [
        (["rsa:2048", "-sha1"], "sha256"),
        (["rsa:2048", "-sha256", "-sigopt", "rsa_padding_mode:pss"], "sha256"),
        (["rsa:2048", "-sha512", "-sigopt", "rsa_padding_mode:pss"], "sha512"),
        (["ed25519"], ""),
    ],
)
def test_certificates_of_openssl_are_bound_as_well(tmp_path: Path, arguments: list[str], bound: str) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl on this machine; as root, .ci/run installs it")
    files = ["-keyout", tmp_path / "key", "-out", tmp_path / "certificate"]
    command = [openssl, "req", "-x509", "-nodes", "-subj", "/CN=a", "-newkey", *arguments, *files]
    subprocess.run(command, check=True, capture_output=True)
    [found] = read_certificates((tmp_path / "certificate").read_bytes())
    assert found.binding == bound
    assert bool(end_point(found.der)) == bool(bound)


def test_suites_have_the_names_of_iana() -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl on this machine; as root, .ci/run installs it")
    listed = subprocess.run(
        [openssl, "ciphers", "-stdname", "ALL:!aNULL:!PSK:!SRP"], capture_output=True, text=True
    )
    lines = [line.split() for line in listed.stdout.splitlines()]
    assert len(lines) > 30
    assert {line[2]: suite(line[2]) for line in lines} == {line[2]: line[0] for line in lines}


# --- names -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "wanted", "good"),
    [
        ("mx.a.example", "mx.a.example", True),
        ("MX.a.example", "mx.A.example.", True),
        ("*.a.example", "mx.a.example", True),
        ("*.a.example", "a.example", False),
        ("*.a.example", "x.mx.a.example", False),
        ("m*.a.example", "mx.a.example", False),
        ("*.example", "a.example", False),
        ("*", "a", False),
        ("mx.a.example", ".a.example", True),
        ("*.a.example", ".a.example", True),
        ("a.example", ".a.example", False),
        ("x.mx.a.example", ".a.example", False),
        ("evil.example\x00.a.example", "evil.example", False),
        ("b.example", "a.example", False),
        ("b.example", "", False),
    ],
)
def test_a_certificate_is_for_a_host_or_not(host: str, wanted: str, good: bool) -> None:
    [found] = read_certificates(AUTHORITY.issue(hosts=("other.example",)).certificate)
    import msgspec

    found = msgspec.structs.replace(found, hosts=(host.lower(),))
    assert bool(verified_name(found, [wanted])) is good


def test_a_common_name_is_no_host() -> None:
    assert verified_name(AUTHORITY.issue("mx.a.example").der, ["mx.a.example"]) == ""


CN, EMAIL = NameOID.COMMON_NAME, NameOID.EMAIL_ADDRESS


@pytest.mark.parametrize(
    ("issue", "names"),
    [
        ({"common_name": "Admin"}, ("admin",)),
        ({"subject": ((CN, "z"), (EMAIL, "admin@a.example"))}, ("admin@a.example",)),
        ({"common_name": "admin", "mailboxes": ("bob@a.example",)}, ("bob@a.example",)),
        (
            {"subject": ((CN, "z"), (EMAIL, "admin@a.example")), "hosts": ("printer.example",)},
            ("printer.example",),
        ),
        ({"common_name": "admin", "uris": ("urn:x",)}, ()),
        ({"subject": ((EMAIL, "admin@a.example"),), "uris": ("urn:x",)}, ()),
        ({"subject": ((CN, "bob"), (CN, "admin"))}, ()),
        ({"subject": ((EMAIL, "bob@a.example"), (EMAIL, "admin@a.example"))}, ()),
    ],
)
def test_whose_a_clients_certificate_is(tmp_path: Path, issue: Any, names: tuple[str, ...]) -> None:
    (tmp_path / "clientca.pem").write_bytes(AUTHORITY.certificate)
    (tmp_path / "client.pem").write_bytes(AUTHORITY.issue(**issue).pem)
    client = client_context(Policy.MAY, str(tmp_path))
    client.load_cert_chain(tmp_path / "client.pem")
    ours, _ = shake(served(tmp_path).context, client, "mx.a.example")
    assert client_names(ours) == names


def test_references_of_a_policy() -> None:
    assert Policy.VERIFY.references("a.example", "mx.b.example") == ("mx.b.example",)
    assert Policy.SECURE.references("a.example", "mx.b.example") == ("a.example", ".a.example")


# --- towards others ---------------------------------------------------------------------


def test_a_pin_is_believed_for_its_host_alone(tmp_path: Path) -> None:
    tls = served(tmp_path)
    (tmp_path / "tlshosts").mkdir()
    (tmp_path / "tlshosts" / "mx.a.example.pem").write_bytes(OURS.certificate)  # the leaf itself
    [(host, pin)] = pin_files(str(tmp_path)).items()
    assert (host, pin.name) == ("mx.a.example", "control/tlshosts/mx.a.example.pem")
    _, theirs = shake(tls.context, client_context(Policy.MAY, str(tmp_path), pin), "mx.a.example")
    assert facts_of(theirs, False, references=["mx.a.example"]).peer == "mx.a.example"
    (tmp_path / "tlshosts" / "mx.a.example.pem").write_bytes(
        AUTHORITY.issue(hosts=("x.example",)).certificate
    )
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(tls.context, client_context(Policy.MAY, str(tmp_path), pin), "mx.a.example")


def test_who_verifies_does_not_take_a_stranger(tmp_path: Path) -> None:
    tls = served(tmp_path)
    for policy in (Policy.VERIFY, Policy.SECURE):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake(tls.context, client_context(policy, str(tmp_path)), "mx.a.example")


def test_a_client_shows_its_certificate_to_who_asks(tmp_path: Path) -> None:
    (tmp_path / "clientca.pem").write_bytes(AUTHORITY.certificate)
    (tmp_path / "clientcert.pem").write_bytes(AUTHORITY.issue(mailboxes=("Relay@b.example",)).pem)
    ours, _ = shake(served(tmp_path).context, client_context(Policy.MAY, str(tmp_path)), "mx.a.example")
    assert facts_of(ours, True, OURS.der).peer == "relay@b.example"


def test_what_is_wrong_with_a_client_certificate_or_a_pin_is_named(tmp_path: Path) -> None:
    (tmp_path / "clientcert.pem").write_bytes(OURS.certificate)
    with pytest.raises(ControlError, match=r"control/clientcert.pem: has no private key"):
        client_context(Policy.MAY, str(tmp_path))
    (tmp_path / "clientcert.pem").unlink()
    (tmp_path / "tlshosts").mkdir()
    (tmp_path / "tlshosts" / "mx.a.example.pem").write_text("nonsense")
    with pytest.raises(ControlError, match=r"control/tlshosts/mx.a.example.pem: has no certificate"):
        client_context(Policy.MAY, str(tmp_path), pin_files(str(tmp_path))["mx.a.example"])
    with pytest.raises(ControlError, match="control/tlsclientciphers"):
        client_context(Policy.MAY, str(tmp_path), ciphers="NOSUCH")


@pytest.mark.parametrize("name", ["MX.a.example.pem", "mx.a.example..pem"])
def test_a_pin_that_no_host_could_have_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "tlshosts").mkdir()
    (tmp_path / "tlshosts" / name).write_bytes(OURS.certificate)
    with pytest.raises(ControlError, match=f"control/tlshosts/{name}: is not named after a host"):
        pin_files(str(tmp_path))


# --- DER that strangers made ------------------------------------------------------------


@given(st.binary(max_size=200))
def test_what_is_no_certificate_is_an_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises(TlsError):
        read_certificate(data)


@given(st.integers(0, len(OURS.der) - 1), st.integers(0, 255))
def test_a_damaged_certificate_is_read_or_refused(at: int, byte: int) -> None:
    data = OURS.der[:at] + bytes([byte]) + OURS.der[at + 1 :]
    try:
        found = read_certificate(data)
    except TlsError:
        return
    assert found.der == data


@given(st.integers(0, len(OURS.der) - 1))
def test_a_certificate_that_breaks_off_is_refused(at: int) -> None:
    with pytest.raises(TlsError):
        read_certificate(OURS.der[:at])
