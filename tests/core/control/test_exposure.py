"""What the control files let everybody do is warned of: open relays, and passwords that can be heard."""

from pathlib import Path

import pytest

from openqmail.core.control import Home
from openqmail.core.control.reader import check


@pytest.fixture
def home(tmp_path: Path) -> Home:
    for name in ("control", "users"):
        (tmp_path / name).mkdir()
    (tmp_path / "control" / "me").write_text("a.example\n")
    return Home(str(tmp_path))


def warned(home: Home, name: str) -> list[str]:
    return [one.why for one in check(home).warnings if one.file == f"control/{name}"]


@pytest.mark.parametrize(
    ("lines", "whom"),
    [
        ('127.:allow,RELAYCLIENT=""\n:allow,RELAYCLIENT=""', "everybody who has no rule"),
        ('=:allow,RELAYCLIENT=""', "the pattern '='"),
        ('0.0.0.0/0:allow,RELAYCLIENT=""', "0.0.0.0/0"),
        ('[::]/0:allow,RELAYCLIENT=""', "::/0"),
        ('[2000::]/3:allow,RELAYCLIENT=""', "2000::/3"),
        ('0.0.0.0/1:allow,RELAYCLIENT=""\n128.0.0.0/1:allow,RELAYCLIENT=""', "all of 0.0.0.0/0"),
        ('128-191.:allow,RELAYCLIENT=""', "128.0.0.0/2"),
        (':allow,DATABYTES="5",RELAYCLIENT=".old.example"', "everybody who has no rule"),
    ],
)
def test_an_open_relay_is_warned_of(home: Home, lines: str, whom: str) -> None:
    Path(home.control, "rules").write_text(lines + "\n")
    (why,) = warned(home, "rules")
    assert "gives RELAYCLIENT to" in why and whom in why and "open relay" in why and "; give it to" in why


@pytest.mark.parametrize(
    "lines",
    [
        '127.:allow,RELAYCLIENT=""\n[::1]:allow,RELAYCLIENT=""\n10.:allow,RELAYCLIENT=""\n:allow',
        '[fc00::]/7:allow,RELAYCLIENT=""\n172.16.0.0/12:allow,RELAYCLIENT=""\n192.168.:allow,RELAYCLIENT=""',
        '=.lan.example:allow,RELAYCLIENT=""\n:allow,DATABYTES="1000"\n=:allow,RBLSMTPD=""',
        ':allow,RELAYCLIENT="@inside.example"',
        ':deny,RELAYCLIENT=""',
    ],
)
def test_who_relays_for_some_or_to_one_place_is_let_alone(home: Home, lines: str) -> None:
    Path(home.control, "rules").write_text(lines + "\n")
    assert warned(home, "rules") == []


def test_passwords_without_tls_are_warned_of_where_others_could_hear_them(home: Home) -> None:
    control = Path(home.control)
    (control / "authplain").write_text("1\n")
    for lines, heard in (
        ("smtp 127.0.0.1:25\nsubmission [::1]:587\n", False),
        ("smtp 127.0.0.1:25\nsubmission 192.0.2.1:587\n", True),
        ("smtp :25\n", True),
        ("submissions 192.0.2.1:465\n", False),
    ):
        (control / "listen").write_text(lines)
        assert bool(warned(home, "authplain")) is heard, lines
    (control / "listen").write_text("smtp 127.0.0.1:25\nsubmission 192.0.2.1:587\n")
    (why,) = warned(home, "authplain")
    assert "submission of control/listen takes passwords" in why and "remove the file" in why
    (control / "authplain").write_text("0\n")
    assert warned(home, "authplain") == []
