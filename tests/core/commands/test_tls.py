"""`openqmail tls`, what `init` makes, and what the two checks say of certificates."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from certificates import Authority
from openqmail.core.tls import read_certificates

Run = Callable[..., Any]

AUTHORITY = Authority()


def put(home: Path, name: str, content: bytes, mode: int = 0o400) -> None:
    path = home / "control" / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    for one in (path, path.parent):
        os.chown(one, home.stat().st_uid, home.stat().st_gid)


def test_a_new_home_has_one_that_it_says_to_be_self_signed(made: Path, run: Run) -> None:
    path = made / "control" / "servercert.pem"
    assert (path.stat().st_mode & 0o777, path.stat().st_uid) == (0o400, made.stat().st_uid)
    [found] = read_certificates(path.read_bytes())
    assert found.hosts == ("a.example",) and found.self_issued
    shown = run("--home", made, "tls", "show")
    assert shown.code == 0 and "self-signed" in shown.out and "a.example" in shown.out
    assert "PRIVATE" not in shown.out
    assert run("--home", made, "control", "check").code == 0
    assert "note: control/servercert.pem: is self-signed" in run("--home", made, "check").out


def test_it_is_never_written_over_unasked(made: Path, run: Run) -> None:
    path = made / "control" / "servercert.pem"
    before = path.read_bytes()
    ran = run("--home", made, "tls", "selfsign")
    assert ran.code == 100 and "--replace" in ran.err and path.read_bytes() == before
    ran = run("--home", made, "tls", "selfsign", "--replace", "--name", "mx.a.example", "--days", "30")
    assert ran.code == 0 and "nobody can verify" in ran.out
    [found] = read_certificates(path.read_bytes())
    assert found.hosts == ("a.example", "mx.a.example")
    assert (path.stat().st_mode & 0o777, path.stat().st_uid) == (0o400, made.stat().st_uid)


def test_a_name_that_is_an_address_is_one_in_the_certificate(made: Path, run: Run) -> None:
    words = [word for name in ("192.0.2.1", "[2001:db8::1]", "mx.a.example") for word in ("--name", name)]
    ran = run("--home", made, "tls", "selfsign", "--replace", *words)
    assert ran.code == 0 and "for a.example, 192.0.2.1, 2001:db8::1, mx.a.example, " in ran.out
    pem = (made / "control" / "servercert.pem").read_bytes()
    names = x509.load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERT") :]).extensions
    found = names.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one) for one in found.get_values_for_type(x509.IPAddress)] == ["192.0.2.1", "2001:db8::1"]
    assert found.get_values_for_type(x509.DNSName) == ["a.example", "mx.a.example"]


def test_a_home_without_gets_one(made: Path, run: Run) -> None:
    (made / "control" / "servercert.pem").unlink()
    assert "no certificate" in run("--home", made, "tls", "show").out
    assert run("--home", made, "tls", "selfsign").code == 0
    assert run("--home", made, "tls", "show").code == 0


@pytest.mark.parametrize("words", [["--days", "0"], ["--days", "x"], ["--name", "no host"]])
def test_what_cannot_be_made_is_said(made: Path, run: Run, words: list[str]) -> None:
    ran = run("--home", made, "tls", "selfsign", "--replace", *words)
    assert ran.code == 100 and words[0].strip("-") in ran.err


def test_all_that_is_there_is_shown_as_json(made: Path, run: Run) -> None:
    put(made, "servercert.pem", AUTHORITY.issue(hosts=("a.example",)).pem)
    put(made, "certs/b.example.pem", AUTHORITY.issue(hosts=("c.example",), days=-1, began=9).pem)
    ran = run("--home", made, "tls", "show", "--json")
    first, second = (json.loads(line) for line in ran.out.splitlines())
    assert (first["file"], first["names"], first["issuer"]) == (
        "control/servercert.pem", ["a.example"], "Test Authority",
    )  # fmt: skip
    assert first["problems"] == first["warnings"] == [] and not first["self_signed"]
    assert second["file"] == "control/certs/b.example.pem" and ran.code == 0
    assert ["has expired" in second["warnings"][0], "not for b.example" in second["warnings"][1]] == [
        True
    ] * 2
    found = run("--home", made, "check")
    assert found.code == 100 and "control/certs/b.example.pem: has expired; get a new one" in found.out


def test_what_is_shown_to_others_and_believed_of_them_is_told_too(made: Path, run: Run) -> None:
    old = AUTHORITY.issue(mailboxes=("relay@a.example",), days=-1, began=9)
    put(made, "clientcert.pem", old.pem)
    put(made, "clientca.pem", AUTHORITY.certificate, 0o644)
    put(made, "clientcrl.pem", AUTHORITY.revoked(days=-1, began=3), 0o644)
    put(made, "tlshosts/mx.b.example.pem", AUTHORITY.certificate + old.certificate, 0o644)
    shown = run("--home", made, "tls", "show")
    assert shown.code == 0 and "PRIVATE" not in shown.out
    for said in (
        "control/clientcert.pem\n  is      what other hosts are shown\n  for     relay@a.example\n",
        "control/clientca.pem\n  is      an authority of clients\n  for     Test Authority\n  by      itself",
        "control/clientcrl.pem\n  is      what an authority of clients has revoked\n  for     Test Authority",
        "  warning is out of date, so no certificate of Test Authority passes; fetch the one that is in",
        "control/tlshosts/mx.b.example.pem\n  is      what is believed of this host\n",
    ):
        assert said in shown.out
    rows = [json.loads(line) for line in run("--home", made, "tls", "show", "--json").out.splitlines()]
    assert [row["kind"] for row in rows] == ["server", "authority", "revocations", "client", "pin", "pin"]
    found = run("--home", made, "check")
    assert found.code == 100
    for said in (
        "control/clientcert.pem: has expired; get a new one",
        "control/clientcrl.pem: is out of date, so no certificate of Test Authority passes; fetch the one",
        "control/tlshosts/mx.b.example.pem: its certificate of relay@a.example has expired; get a new one",
    ):
        assert said in found.out
    for name in ("clientcert.pem", "tlshosts/NAME.pem"):
        assert "openqmail tls show" in run("--home", made, "control", "show", name).err
    (made / "control" / "clientcert.pem").chmod(0o600)
    put(made, "clientcert.pem", AUTHORITY.issue().key + old.certificate)
    shown = run("--home", made, "tls", "show")
    assert shown.code == 100 and "problem its key is not that of its first certificate" in shown.out


def test_one_that_cannot_be_served_is_a_problem_for_all_who_look(made: Path, run: Run) -> None:
    issued = AUTHORITY.issue(hosts=("a.example",))
    put(made, "servercert.pem", AUTHORITY.issue().key + issued.certificate)
    shown = run("--home", made, "tls", "show")
    assert shown.code == 100 and "problem its key is not that of its first certificate" in shown.out
    checked = run("--home", made, "control", "check")
    assert checked.code == 100 and "error: control/servercert.pem: its key" in checked.out


def test_all_that_is_wrong_with_tls_is_named_at_once(made: Path, run: Run) -> None:
    for name in ("clientcert", "clientca", "certs/b.example", "certs/B.example", "certs/c_d.example"):
        put(made, f"{name}.pem", b"nothing\n")
    for name in ("tlshosts/b.example.pem", "tlshosts/c.example.pem", "tlshosts/D.example.pem"):
        put(made, name, b"nothing\n", 0o644)
    for name in ("tlsserverciphers", "tlsclientciphers"):
        put(made, name, b"NOSUCHCIPHER\n", 0o644)
    put(made, "credentials", b"c.example joe\nd.example ann\n", 0o600)
    ran = run("--home", made, "control", "check")
    errors = [line.removeprefix("error: control/") for line in ran.out.splitlines() if "error: " in line]
    places = [line.partition(": ")[0] for line in errors]
    assert ran.code == 100 and sorted(places) == [
        *("certs/B.example.pem", "certs/b.example.pem", "certs/c_d.example.pem"),
        *("clientca.pem", "clientcert.pem", "credentials, line 1", "credentials, line 2"),
        *("tlsclientciphers, line 1", "tlshosts/D.example.pem", "tlshosts/b.example.pem"),
        *("tlshosts/c.example.pem", "tlsserverciphers, line 1"),
    ]


def test_a_folder_of_certificates_without_one_for_all_others_is_an_error(made: Path, run: Run) -> None:
    (made / "control" / "servercert.pem").unlink()
    put(made, "certs/b.example.pem", AUTHORITY.issue(hosts=("b.example",)).pem)
    put(made, "certs/c.example.pem", b"nothing\n")
    ran = run("--home", made, "control", "check")
    assert "error: control/servercert.pem: is missing, for who asks for no name in control/certs" in ran.out
    assert "error: control/certs/c.example.pem: has no certificate" in ran.out and ran.code == 100


def test_a_service_with_tls_at_once_needs_one(made: Path, run: Run) -> None:
    (made / "control" / "listen").write_text("submissions 127.0.0.1:4650\n")
    assert run("--home", made, "control", "check").code == 0
    (made / "control" / "servercert.pem").unlink()
    ran = run("--home", made, "control", "check")
    assert ran.code == 100 and "submissions needs control/servercert.pem; 'openqmail tls selfsign'" in ran.out


def test_clients_that_nobody_asks_for_a_certificate_are_warned_of(made: Path, run: Run) -> None:
    put(made, "tlsclients", b"alice@a.example\n", 0o644)
    ran = run("--home", made, "control", "check")
    assert ran.code == 0
    assert "warning: control/tlsclients: lets nobody in without control/clientca.pem; add that" in ran.out
    put(made, "clientca.pem", AUTHORITY.certificate, 0o644)
    assert "warning" not in run("--home", made, "control", "check").out
    (made / "control" / "servercert.pem").unlink()
    ran = run("--home", made, "control", "check")
    assert "warning: control/tlsclients: lets nobody in without control/servercert.pem" in ran.out


def test_a_key_for_all_to_read_is_found(made: Path, run: Run) -> None:
    put(made, "certs/b.example.pem", AUTHORITY.issue(hosts=("b.example",)).pem, 0o644)
    ran = run("--home", made, "check")
    place = made / "control" / "certs" / "b.example.pem"
    assert (
        ran.code == 100
        and f"{place}: anybody, its group may read it, and must not; chmod 600 {place}" in ran.out
    )


def test_the_files_are_explained_and_never_shown(made: Path, run: Run) -> None:
    for name in ("servercert.pem", "certs/NAME.pem", "clientca.pem", "clientcrl.pem", "tlsclients"):
        assert f"control/{name}: " in run("control", "explain", name).out
    ran = run("--home", made, "control", "show", "servercert.pem")
    assert ran.code == 100 and "openqmail tls show" in ran.err and "PRIVATE" not in ran.out
    assert "PRIVATE" not in run("--home", made, "control", "list").out
