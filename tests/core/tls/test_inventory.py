"""What is told of certificates and revocation lists: whose, until when, and what is wrong with them."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from certificates import Authority
from openqmail.core.tls import TlsError, self_signed
from openqmail.core.tls.certificate import read_revocations
from openqmail.core.tls.inventory import Entry, inventory

AUTHORITY = Authority()
OURS, OTHER = AUTHORITY.issue(hosts=("a.example",)), AUTHORITY.issue(hosts=("*.b.example",))
NOW = time.time()


def told(folder: Path, files: dict[str, bytes]) -> list[Entry]:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return inventory(str(folder), "a.example", "", NOW)


def _expired() -> bytes:
    return AUTHORITY.issue(hosts=("a.example",), days=-1, began=30).pem


WARNED: dict[str, tuple[Callable[[], bytes], str]] = {
    "expired": (_expired, "has expired"),
    "soon": (lambda: AUTHORITY.issue(hosts=("a.example",), days=3).pem, "expires in "),
    "not yet": (lambda: AUTHORITY.issue(hosts=("a.example",), began=-2).pem, "not valid yet"),
    "another's": (lambda: AUTHORITY.issue(hosts=("c.example",)).pem, "is for c.example, not for a.example"),
    "a name that hosts do not have": (lambda: AUTHORITY.issue("a.example").pem, "is for a.example, not for"),
    "self-signed": (lambda: self_signed("a.example", NOW), "is self-signed"),
}


@pytest.mark.parametrize("name", WARNED)
def test_what_others_may_dislike_is_said_with_its_remedy(tmp_path: Path, name: str) -> None:
    made, why = WARNED[name]
    [one] = told(tmp_path, {"servercert.pem": made()})
    [warning] = one.warnings
    assert why in warning and "; " in warning
    assert (one.file, one.kind, one.problems) == ("control/servercert.pem", "server", ())


def test_what_is_good_is_told_whole_and_not_warned_of(tmp_path: Path) -> None:
    files = {
        "servercert.pem": OURS.pem,
        "certs/_.b.example.pem": OTHER.pem,
        "clientca.pem": AUTHORITY.certificate,
        "clientcrl.pem": AUTHORITY.revoked(OTHER),
        "clientcert.pem": AUTHORITY.issue(mailboxes=("relay@a.example",)).pem,
        "tlshosts/mx.c.example.pem": AUTHORITY.issue(hosts=("mx.c.example",)).certificate + OTHER.certificate,
    }
    found = told(tmp_path, files)
    assert [(one.file.removeprefix("control/"), one.kind, one.names) for one in found] == [
        ("servercert.pem", "server", ("a.example",)),
        ("certs/_.b.example.pem", "server", ("*.b.example",)),
        ("clientca.pem", "authority", ("Test Authority",)),
        ("clientcrl.pem", "revocations", ("Test Authority",)),
        ("clientcert.pem", "client", ("relay@a.example",)),
        ("tlshosts/mx.c.example.pem", "pin", ("mx.c.example",)),
        ("tlshosts/mx.c.example.pem", "pin", ("*.b.example",)),
    ]
    assert all(one.warnings == one.problems == () for one in found)
    assert all(one.not_before < NOW < one.not_after for one in found)


OUTDATED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "our own for others": ("clientcert.pem", _expired, "has expired"),
    "our own for others, soon": (
        "clientcert.pem",
        lambda: AUTHORITY.issue(mailboxes=("a@a.example",), days=3).pem,
        "expires in",
    ),
    "a pin": ("tlshosts/a.example.pem", _expired, "has expired"),
    "an authority": ("clientca.pem", _expired, "has expired"),
    "a list": (
        "clientcrl.pem",
        lambda: AUTHORITY.revoked(days=-1, began=3),
        "is out of date, so no certificate of Test Authority passes",
    ),
    "a list to come": ("clientcrl.pem", lambda: AUTHORITY.revoked(days=3, began=-2), "is not in force yet"),
    "no list of the authority": (
        "clientcrl.pem",
        lambda: Authority("Another").revoked(),
        "is missing for Test Authority, so no certificate of Test Authority passes",
    ),
}


@pytest.mark.parametrize("name", OUTDATED)
def test_what_has_had_its_time_is_warned_of(tmp_path: Path, name: str) -> None:
    file, made, why = OUTDATED[name]
    files = {"servercert.pem": OURS.pem, "clientca.pem": AUTHORITY.certificate, file: made()}
    [(where, warning)] = [(one.file, text) for one in told(tmp_path, files) for text in one.warnings]
    assert where == f"control/{file}" and why in warning and "; " in warning


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("clientcert.pem", OTHER.key + OURS.certificate, "its key is not that of its first certificate"),
        ("clientcert.pem", OURS.certificate, "has no private key"),
        ("clientca.pem", b"nonsense", "has no certificate"),
        ("clientcrl.pem", AUTHORITY.revoked(), "has no effect without control/clientca.pem"),
        ("tlshosts/a.example.pem", b"nonsense", "has no certificate"),
        ("tlshosts/A.example.pem", OURS.certificate, "is not named after a host"),
        ("certs/A.example.pem", OURS.pem, "is not named after a host"),
    ],
)
def test_what_is_of_no_use_is_a_problem_of_its_file(
    tmp_path: Path, file: str, content: bytes, why: str
) -> None:
    found = told(tmp_path, {"servercert.pem": OURS.pem, file: content})
    [(where, problem)] = [(one.file, text) for one in found for text in one.problems]
    assert where == f"control/{file}" and why in problem


@pytest.mark.parametrize("content", [b"", b"MAMCAQE=", b"M*I", b"MIIB", b"MAA="])
def test_a_list_that_is_none_is_a_problem_and_no_accident(tmp_path: Path, content: bytes) -> None:
    pem = b"-----BEGIN X509 CRL-----\n%b\n-----END X509 CRL-----\n" % content
    with pytest.raises(TlsError):
        read_revocations(pem)
    found = told(tmp_path, {"clientca.pem": AUTHORITY.certificate, "clientcrl.pem": pem})
    assert [one.file for one in found if one.problems] == ["control/clientcrl.pem"]


def test_an_authority_that_signs_for_no_client_needs_no_list(tmp_path: Path) -> None:
    below = Authority("Below", AUTHORITY)
    files = {
        "clientca.pem": AUTHORITY.certificate + below.certificate,
        "clientcrl.pem": below.revoked(),
    }
    assert [one.warnings for one in told(tmp_path, files)] == [()] * 3
