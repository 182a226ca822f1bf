"""The control files of who logs in and what a login may send: what they say, and what is wrong in them."""

from pathlib import Path

import pytest

from openqmail.core.control import Home
from openqmail.core.control.reader import check, read_settings
from openqmail.core.sasl import make_verifier


@pytest.fixture
def home(tmp_path: Path) -> Home:
    for name in ("control", "users"):
        (tmp_path / name).mkdir()
    for name, text in {
        "me": "a.example",
        "listen": "submission 127.0.0.1:587",
        "rcpthosts": "a.example",
    }.items():
        (tmp_path / "control" / name).write_text(text + "\n")
    return Home(str(tmp_path))


def write(home: Home, name: str, text: str) -> None:
    Path(home.control, name).write_text(text)


def told(home: Home, name: str) -> list[str]:
    found = check(home)
    return [str(one) for one in (*found.errors, *found.warnings) if f"control/{name}" in str(one)]


def test_without_any_nobody_is_asked_and_everybody_may_send(home: Home) -> None:
    settings = read_settings(home)
    assert settings.checkpassword == settings.checkcram == settings.checktoken == ()
    assert (settings.authplain, settings.authfailures, settings.senders) == (False, 10, {})
    assert settings.submissionauth
    assert (settings.loginmessagesperhour, settings.loginrecipientsperhour) == (1000, 5000)


def test_a_command_is_its_words(home: Home) -> None:
    write(home, "checkpassword", "# asks the system\n/bin/true  /bin/false -x\n")
    assert read_settings(home).checkpassword == (b"/bin/true", b"/bin/false", b"-x")
    assert told(home, "checkpassword") == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("checkpw /bin/true\n", "no absolute path"),
        ("/bin/true\n/bin/true\n", "second command"),
        ("/no/such/program\n", "no program that can be run"),
        ("/bin/true\n", "no program behind /bin/true"),
        ("/etc/passwd\n", "no program that can be run"),
    ],
)
def test_what_is_no_command_is_told(home: Home, text: str, why: str) -> None:
    write(home, "checkpassword", text)
    assert any(why in one for one in told(home, "checkpassword"))


def test_senders_of_a_login_add_up_in_lower_case_and_both_spellings(home: Home) -> None:
    Path(home.users, "smtpauth").write_text("alice:secret\nBob@a.example:secret\n")
    write(home, "senders", "alice:Alice@A.example\nalice:@b\u00fccher.example\nBob@a.example:bob@a.example\n")
    senders = read_settings(home).senders
    assert senders[b"alice"] == {
        b"alice@a.example",
        "@b\u00fccher.example".encode(),
        b"@xn--bcher-kva.example",
    }
    assert senders[b"Bob@a.example"] == {b"bob@a.example"}
    assert told(home, "senders") == []


@pytest.mark.parametrize("line", ["alice", ":a@a.example", "alice:", "alice:nobody", "alice:a@-bad-"])
def test_a_line_that_names_no_sender_is_told(home: Home, line: str) -> None:
    write(home, "senders", line + "\n")
    assert any(":1" in one or "line 1" in one for one in told(home, "senders"))


@pytest.mark.parametrize(
    "several",
    [
        "alice@a.example, bob@a.example",
        "alice@a.example,bob@a.example",
        "alice@a.example:bob@a.example",
        "alice@a.example bob@a.example",
        "@a.example:@b.example",
        " alice@a.example",
    ],
)
def test_several_senders_in_a_line_are_told(home: Home, several: str) -> None:
    write(home, "senders", f"alice:{several}\n")
    (mistake,) = [one for one in told(home, "senders") if "line 1" in one]
    assert "is not one address; write a line for each" in mistake


def test_a_quoted_sender_may_have_what_others_may_not(home: Home) -> None:
    write(home, "senders", 'alice:"a, b@c"@a.example\n')
    assert read_settings(home).senders == {b"alice": {b'"a, b@c"@a.example'}}


def test_senders_of_a_login_that_nobody_has_are_warned_of(home: Home) -> None:
    Path(home.users, "smtpauth").write_text("alice:secret\n")
    write(home, "senders", "alice:alice@a.example\nAlice:@a.example\nbob@a.example:bob@a.example\n")
    found = told(home, "senders")
    assert [one.partition("'")[2].partition("'")[0] for one in found] == ["Alice", "bob@a.example"]
    assert all("may send as nobody" in one and "openqmail user add" in one for one in found)
    write(home, "checkpassword", "/bin/true /bin/true\n")
    assert told(home, "senders") == [], "the program may know them"


def test_logins_that_may_send_as_nobody_are_warned_of(home: Home) -> None:
    logins = Path(home.users, "smtpauth")
    logins.write_text("alice:secret\nbob@a.example:secret\n")
    write(home, "senders", "alice:alice@a.example\n")
    (warning,) = told(home, "senders")
    assert "has no line for bob@a.example, who may log in and send as nobody" in warning
    assert warning.endswith("write one like bob@a.example:bob@a.example")
    logins.write_text("".join(f"user{number}:secret\n" for number in range(9)) + "alice:secret\n")
    (warning,) = told(home, "senders")
    assert "for user0, user1, user2, user3, user4 and 4 more, who" in warning
    write(home, "senders", "alice:alice@a.example\nuser1 user1@a.example\n")
    assert not any("as nobody" in one for one in told(home, "senders")), "the wrong line may be his"


def test_a_service_for_people_is_warned_of_where_nobody_can_log_in(home: Home) -> None:
    (warning,) = told(home, "listen")
    assert "has submission, for who has logged in, and nobody can" in warning
    assert "openqmail user add" in warning and "control/checkpassword" in warning
    write(home, "checkpassword", "/bin/true /bin/true\n")
    (warning,) = told(home, "listen")
    assert "without control/servercert.pem" in warning and "openqmail tls selfsign" in warning
    write(home, "authplain", "1\n")
    assert told(home, "listen") == []
    (Path(home.control) / "checkpassword").unlink()
    Path(home.users, "smtpauth").write_text("alice:secret\n")
    assert told(home, "listen") == []


def test_a_service_for_people_that_others_may_use_too_is_not_warned_of(home: Home) -> None:
    write(home, "submissionauth", "0\n")
    assert told(home, "listen") == []


def test_without_a_service_for_people_nobody_need_have_a_login(home: Home) -> None:
    write(home, "listen", "smtp 127.0.0.1:25\n")
    assert told(home, "listen") == []


@pytest.mark.parametrize("folder", ["certs", "tlshosts"])
def test_certificates_of_a_name_that_is_not_read_are_warned_of(home: Home, folder: str) -> None:
    (Path(home.control) / folder).mkdir()
    for name in ("mail.a.example.crt", "b.example.key", ".hidden", "c.example.pem~"):
        write(home, f"{folder}/{name}", "")
    warned = [one.file for one in check(home).warnings if one.file.startswith(f"control/{folder}/")]
    assert warned == [f"control/{folder}/b.example.key", f"control/{folder}/mail.a.example.crt"]


def test_submission_without_senders_is_warned_of(home: Home) -> None:
    assert any("send as anybody" in one for one in told(home, "senders"))
    write(home, "senders", "# nobody yet\n")
    assert any("has no line, so whoever logs in may send as anybody" in one for one in told(home, "senders"))
    write(home, "senders", "alice@a.example\n")
    (mistake,) = told(home, "senders")
    assert "line 1" in mistake and "anybody" not in mistake
    (Path(home.control) / "senders").unlink()
    write(home, "listen", "smtp 127.0.0.1:25\n")
    assert told(home, "senders") == []


VERIFIER = make_verifier(b"pw", b"a salt", 4096).written()
"""As another program may have made it."""


def test_mechanisms_that_are_named_are_taken_in_any_case(home: Home) -> None:
    assert read_settings(home).authmechanisms == frozenset()
    Path(home.users, "smtpauth").write_text(f"alice:{VERIFIER}\n")
    write(home, "authmechanisms", "# no -PLUS\nscram-sha-256\nPLAIN\n")
    assert read_settings(home).authmechanisms == {b"SCRAM-SHA-256", b"PLAIN"}
    assert told(home, "authmechanisms") == []


@pytest.mark.parametrize("line", ["DIGEST-MD5", "PLAIN LOGIN", "PLIAN"])
def test_a_mechanism_that_nobody_knows_is_told(home: Home, line: str) -> None:
    write(home, "authmechanisms", f"LOGIN\n{line}\n")
    found = [one for one in told(home, "authmechanisms") if "line 2" in one]
    assert len(found) == 1 and f"'{line}' is no mechanism" in found[0] and "SCRAM-SHA-256 PLAIN" in found[0]


def test_a_mechanism_that_nobody_can_use_is_warned_of(home: Home) -> None:
    Path(home.users, "smtpauth").write_text(f"alice:{VERIFIER}\nbob:secret\n")
    write(home, "authmechanisms", "SCRAM-SHA-256\nCRAM-MD5\nPLAIN\nXOAUTH2\n")
    (warning,) = told(home, "authmechanisms")
    assert "XOAUTH2" in warning and "nobody can use it" in warning
    write(home, "checktoken", "/bin/true /bin/true\n")
    assert told(home, "authmechanisms") == []


def test_a_password_kept_plain_for_a_mechanism_that_is_not_offered_is_warned_of(home: Home) -> None:
    smtpauth = Path(home.users, "smtpauth")

    def warned() -> list[str]:
        return [str(one) for one in check(home).warnings if "kept plain" in str(one)]

    smtpauth.write_text("alice:secret\nbob:secret\n")
    assert warned() == []
    smtpauth.write_text(f"alice:{VERIFIER}\nbob:secret\n")
    (warning,) = warned()
    assert "users/smtpauth" in warning and "control/authmechanisms" in warning
    write(home, "authmechanisms", "CRAM-MD5\nPLAIN\n")
    assert warned() == []


def test_verifiers_that_clients_of_cyrus_sasl_refuse_are_warned_of(home: Home) -> None:
    """They compute 65,536 iterations, and not one more."""
    good, bad = (make_verifier(b"pw", b"a salt", count).written() for count in (65_536, 65_537))
    smtpauth = Path(home.users, "smtpauth")
    smtpauth.write_text(f"alice:{good}\n")
    assert not [one for one in check(home).warnings if "Cyrus" in str(one)]
    smtpauth.write_text(f"alice:{good}\nbob:{bad}\ncarol:{bad}\n")
    (warning,) = [str(one) for one in check(home).warnings if "Cyrus" in str(one)]
    assert "'bob' and 1 more" in warning and "openqmail user passwd" in warning
