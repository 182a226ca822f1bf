"""Who may send what to whom: what a real notqmail answered to RCPT, beside ours to the same files."""

import json
from asyncio import run
from pathlib import Path

import pytest

from openqmail.core.control.home import Home
from openqmail.core.control.reader import read_settings
from openqmail.core.control.rules import Rule, Rules

RECORDED = Path(__file__).parents[4] / "shared" / "vectors" / "notqmail" / "smtpd" / "smtpd.json"
OTHERWISE = {
    "rcpthosts-missing": "without the file nobody may relay here",
    "badmailfrom-rset": "MAIL within a transaction is refused (RFC 5321 section 4.1.4)",
}


def cases():
    if not RECORDED.is_file():
        return []
    files = {"badmailfrom", "rcpthosts", "localiphost"}
    found = [one for one in json.loads(RECORDED.read_text()) if one["program"] == "qmail-smtpd"]
    found = [one for one in found if files & set(one["control"]) or one["case"].startswith("relayclient")]
    found = [one for one in found if "RCPT TO" in one["input"] and one["case"] not in OTHERWISE]
    return [pytest.param(one, id=one["case"]) for one in found]


def envelope(text):
    """The commands before the message."""
    return [line for line in text.partition("DATA\r\n")[0].split("\r\n") if line[:4] in ("MAIL", "RCPT")]


@pytest.mark.skipif(not RECORDED.is_file(), reason="the recordings are not beside this checkout")
@pytest.mark.parametrize("recorded", cases())
def test_each_recipient_is_answered_as_notqmail_did(recorded, running, tmp_path):
    control = tmp_path / "control"
    control.mkdir()
    files = {"me": "mail.example.test", "rcpthosts": "example.test", "listen": "smtp 127.0.0.1:2525"}
    for name, text in (files | recorded["control"]).items():
        # A blank in front counts for qmail and is a mistake here.
        (control / name).write_text("\n".join(line for line in text.split("\n") if line[:1] != " "))
    settings = read_settings(Home(str(tmp_path)))
    suffix = recorded["env"].get("RELAYCLIENT")
    rules = Rules({} if suffix is None else {"127.": Rule(True, {"RELAYCLIENT": suffix})})
    said = [line for line in recorded["output"].splitlines() if line[:3] in ("250", "553")]

    async def story():
        async with running(settings, rules=rules) as server:
            client = await (await server.client()).hello()
            return [(await client.say(line.encode()))[:3].decode() for line in envelope(recorded["input"])]

    ours = run(story())
    assert len(ours) > 1
    assert ours == [line[:3] for line in said[: len(ours)]]
