"""RFC 3464 reports: what is written is read back by Python's email package and by a strict reader."""

import email
import email.policy
import re
from email.message import Message
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openqmail.core import dsn
from openqmail.core.dsn.fields import fields
from openqmail.core.dsn.status import Action
from openqmail.core.message.lines import unfit
from openqmail.core.smtp import notify

NOW = 1_795_544_247  # 24 Nov 2026 18:17:27 UTC
DATE = "24 Nov 2026 18:17:27 -0000"
BOUNDARY = b"0123456789abcdef0123456789abcdef"
SETTINGS: Any = SimpleNamespace(
    me=b"mail.example.test", bouncefrom=b"MAILER-DAEMON", bouncehost=b"bounces.example.test"
)
ORIGINAL = b"From: alice@example.test\nSubject: hello\n\n--\nbody\n.\n"
NO_MAILBOX = b"Sorry, no mailbox here by that name. (#5.1.1)\n"


def written(report: dsn.Report, original: bytes = ORIGINAL, whole: bool = True) -> bytes:
    copy = original if whole else dsn.header(original)
    head, tail = dsn.enclose(
        SETTINGS,
        report,
        dsn.Copy(whole, not copy.isascii()),
        boundary=BOUNDARY,
        now=NOW + 0.5,
        pid=77,
    )
    return head + copy + tail


def failed(*told: dsn.Told, **facts: Any) -> dsn.Report:
    return dsn.Report(b"alice@example.test", told, NOW - 3600, **facts)


def strict_parts(message: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The header, and (header, content) of each part: by RFC 2046's grammar alone."""
    header, _, body = message.partition(b"\n\n")
    pieces = (b"\n" + body).split(b"\n--" + BOUNDARY)
    assert pieces[0] == b"" and pieces[-1] == b"--\n"
    parts = []
    for piece in pieces[1:-1]:
        assert piece.startswith(b"\n")
        if piece.startswith(b"\n\n"):
            parts.append((b"", piece[2:]))
        else:
            head, _, content = piece[1:].partition(b"\n\n")
            parts.append((head, content))
    return header, parts


def strict_fields(part: bytes) -> list[dict[bytes, bytes]]:
    """The groups of a delivery status, each field unfolded; whatever is none is refused."""
    assert part.endswith(b"\n")
    groups = []
    for group in part[:-1].split(b"\n\n"):
        found: dict[bytes, bytes] = {}
        for field in re.split(rb"\n(?![ \t])", group):
            name, colon, value = field.partition(b":")
            assert colon and re.fullmatch(rb"[A-Za-z-]+", name), field
            assert name not in found, name
            assert all(line.strip() for line in value.split(b"\n")), field
            found[name] = re.sub(rb"\n[ \t]", b" ", value).strip()
        groups.append(found)
    return groups


def parts_of(message: bytes) -> list[Message]:
    parsed = email.message_from_bytes(message)
    assert not parsed.defects and parsed.is_multipart()
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "delivery-status"
    return parsed.get_payload()  # type: ignore[return-value]


def test_a_bounce_as_a_whole() -> None:
    said = b"192.0.2.9 does not like recipient.\nRemote host said: 550 5.7.1 no\nGiving up on 192.0.2.9.\n"
    message = written(
        failed(
            dsn.Told("failed", b"bob@example.test", NO_MAILBOX, b"rfc822;Bob+2Bx@example.test"),
            dsn.Told("failed", b"far@there.test", said),
            envid=b"QQ+2B314",
        )
    )
    assert message == (
        b"Received: (qmail 77 invoked for bounce); 24 Nov 2026 18:17:27 -0000\n"
        b"Date: 24 Nov 2026 18:17:27 -0000\n"
        b"From: MAILER-DAEMON@bounces.example.test\n"
        b"To: alice@example.test\n"
        b"Subject: failure notice\n"
        b"Message-ID: <0123456789abcdef0123456789abcdef@bounces.example.test>\n"
        b"Auto-Submitted: auto-replied\n"
        b"MIME-Version: 1.0\n"
        b"Content-Type: multipart/report; report-type=delivery-status;\n"
        b'\tboundary="0123456789abcdef0123456789abcdef"\n'
        b"\n"
        b"--0123456789abcdef0123456789abcdef\n"
        b"Content-Type: text/plain; charset=us-ascii\n"
        b"\n"
        b"Hi. This is the qmail-send program at bounces.example.test.\n"
        b"I'm afraid I wasn't able to deliver your message to the following addresses.\n"
        b"This is a permanent error; I've given up. Sorry it didn't work out.\n"
        b"\n"
        b"<bob@example.test>:\n" + NO_MAILBOX + b"\n"
        b"<far@there.test>:\n" + said + b"\n"
        b"\n--0123456789abcdef0123456789abcdef\n"
        b"Content-Type: message/delivery-status\n"
        b"\n"
        b"Original-Envelope-Id: QQ+314\n"
        b"Reporting-MTA: dns; mail.example.test\n"
        b"Arrival-Date: 24 Nov 2026 17:17:27 -0000\n"
        b"\n"
        b"Original-Recipient: rfc822; Bob+x@example.test\n"
        b"Final-Recipient: rfc822; bob@example.test\n"
        b"Action: failed\n"
        b"Status: 5.1.1\n"
        b"Diagnostic-Code: x-openqmail; Sorry, no mailbox here by that name. (#5.1.1)\n"
        b"\n"
        b"Final-Recipient: rfc822; far@there.test\n"
        b"Action: failed\n"
        b"Status: 5.7.1\n"
        b"Remote-MTA: dns; [192.0.2.9]\n"
        b"Diagnostic-Code: smtp; 550 5.7.1 no\n"
        b"\n--0123456789abcdef0123456789abcdef\n"
        b"Content-Type: message/rfc822\n"
        b"\n" + ORIGINAL + b"\n--0123456789abcdef0123456789abcdef--\n"
    )


def test_python_s_email_reads_it() -> None:
    text, status, copy = parts_of(written(failed(dsn.Told("failed", b"bob@example.test", NO_MAILBOX))))
    assert "<bob@example.test>:\nSorry, no mailbox" in text.get_payload()
    assert status.get_content_type() == "message/delivery-status"
    head, recipient = status.get_payload()  # type: ignore[misc]
    assert head["Reporting-MTA"] == "dns; mail.example.test"  # type: ignore[index]
    assert recipient["Final-Recipient"] == "rfc822; bob@example.test"  # type: ignore[index]
    assert copy.get_content_type() == "message/rfc822"
    assert copy.get_payload(0).as_bytes() == ORIGINAL  # type: ignore[union-attr]


def test_the_header_alone() -> None:
    _, _, copy = parts_of(written(failed(dsn.Told("failed", b"b@c.test", b"no\n")), whole=False))
    assert copy.get_content_type() == "text/rfc822-headers"
    assert copy.get_payload() == "From: alice@example.test\nSubject: hello\n"


def test_a_header_that_smtp_could_not_carry_is_made_fit() -> None:
    original = b"Subject: a\0b\rc\nX: " + b"x" * 3000 + b"\nY: " + "ü".encode() * 1000 + b"\n\nbody"
    header = dsn.header(original)
    assert unfit(header) is None and header.startswith(b"Subject: a?b?c\nX: xxx")
    assert header.replace(b"\n ", b"").splitlines()[1] == b"X: " + b"x" * 3000
    assert header.replace(b"\n ", b"").splitlines()[2].decode() == "Y: " + "ü" * 1000
    endless = b"".join(b"X-%d: y\n" % count for count in range(100_000))
    assert len(dsn.header(endless)) <= 64 * 1024 and endless.startswith(dsn.header(endless))
    assert dsn.header(endless).endswith(b"\n")


@pytest.mark.parametrize(
    ("action", "subject", "words"),
    [
        ("failed", "failure notice", "I've given up"),
        ("delayed", "delay notice", f"I'll go on trying until {DATE}"),
        ("delivered", "success notice", "was delivered"),
        ("relayed", "success notice", "handed on"),
        ("expanded", "success notice", "stand for several others"),
    ],
)
def test_each_action_has_its_words(action: Action, subject: str, words: str) -> None:
    message = written(failed(dsn.Told(action, b"b@c.test", b"so\n"), until=NOW))
    parsed = email.message_from_bytes(message)
    assert parsed["Subject"] == subject and parsed["Auto-Submitted"] == "auto-replied"
    text, status, _ = parts_of(message)
    assert words in text.get_payload().replace("\n", " ").replace("  ", " ")
    _, recipient = status.get_payload()  # type: ignore[misc]
    assert recipient["Action"] == action  # type: ignore[index]
    until = recipient["Will-Retry-Until"]  # type: ignore[index]
    assert until == (DATE if action == "delayed" else None)


def test_a_double_bounce_says_so() -> None:
    text, _, _ = parts_of(written(failed(dsn.Told("failed", b"b@c.test", b"no\n"), double=True)))
    assert "the bounce bounced!" in text.get_payload()


def test_an_original_that_came_by_smtputf8() -> None:
    address, original = "jörg@bücher.test".encode(), "Subject: Grüße\n\nschöne\n".encode()
    told = dsn.Told("failed", address, NO_MAILBOX, b"utf-8;j\\x{F6}rg@old.test")
    message = written(failed(told, smtputf8=True), original)
    assert email.message_from_bytes(message)["Content-Transfer-Encoding"] == "8bit"
    _, (text, status, copy) = strict_parts(message)
    assert b"charset=utf-8" in text[0] and "<jörg@bücher.test>:".encode() in text[1]
    assert b"Content-Type: message/global-delivery-status\n" in status[0] + b"\n"
    _, recipient = strict_fields(status[1])
    assert recipient[b"Final-Recipient"] == "utf-8; jörg@bücher.test".encode()
    assert recipient[b"Original-Recipient"] == "utf-8; jörg@old.test".encode()
    assert b"Content-Type: message/global\n" in copy[0] + b"\n" and copy[1] == original
    header_only = strict_parts(written(failed(told, smtputf8=True), original, whole=False))[1][2]
    assert b"Content-Type: message/global-headers\n" in header_only[0] + b"\n"


def test_an_address_beyond_ascii_of_any_other_original_is_written_in_ascii() -> None:
    told = dsn.Told("failed", "jörg@bücher.test".encode(), NO_MAILBOX)
    _, (_, status, _) = strict_parts(written(failed(told)))
    _, recipient = strict_fields(status[1])
    kind, _, value = recipient[b"Final-Recipient"].partition(b"; ")
    assert (kind, value) == (b"utf-8", b"j\\x{F6}rg@b\\x{FC}cher.test")
    assert notify.decode_utf8(value).decode() == "jörg@bücher.test"


NASTY = [b"\n", b"\n\n", b"\r\n", b"\0", b"Action: delivered\n", b"--" + BOUNDARY[:5], b"a@b", b'"']
NASTY += [b"\xff", b"\xc3\xbc", b";", b" ", b"x" * 950]
octets = st.one_of(st.binary(max_size=80), st.lists(st.sampled_from(NASTY), max_size=8).map(b"".join))
INJECTED = dsn.Told("failed", b"a\nAction: x@b", b"t\n\nStatus: 2.0.0\n", b"rfc822;a+0D+0AX: y")
LONG = dsn.Told("failed", b"x" * 2000 + b"@b", b"y" * 5000, b"z;" + b"w" * 2000)
LONG_UTF8 = dsn.Told("failed", "ü".encode() * 1500, "ä".encode() * 1500, b"")
tolds = st.lists(
    st.builds(
        dsn.Told,
        st.sampled_from(["failed", "delayed", "delivered", "relayed", "expanded"]),
        octets,
        octets,
        octets,
    ),
    min_size=1,
    max_size=4,
)


@given(tolds, octets, st.booleans(), octets, st.booleans())
@example([INJECTED], b"", False, b"\n\n", True)
@example([LONG], b"e" * 3000, True, b"", True)
@example([LONG_UTF8], b"", True, b"", True)
def test_nothing_in_addresses_and_texts_breaks_the_form(
    told: list[dsn.Told], envid: bytes, smtputf8: bool, body: bytes, whole: bool
) -> None:
    report = failed(*told, envid=envid, smtputf8=smtputf8, until=NOW)
    original = b"Subject: x\n\n" + body
    message = written(report, original, whole)
    header, (text, status, copy) = strict_parts(message)
    names = [line.partition(b":")[0] for line in header.split(b"\n") if not line.startswith(b"\t")]
    assert sorted(set(names) - {b"Content-Transfer-Encoding"}) == sorted(
        [b"Received", b"Date", b"From", b"To", b"Subject", b"Message-ID", b"Auto-Submitted", b"MIME-Version",
         b"Content-Type"]
    )  # fmt: skip
    assert len(names) == len(set(names))
    groups = strict_fields(status[1])
    assert len(groups) == 1 + len(told)
    assert set(groups[0]) <= {b"Original-Envelope-Id", b"Reporting-MTA", b"Arrival-Date"}
    for group, one in zip(groups[1:], told, strict=True):
        assert group[b"Action"].decode() == one.action
        assert (
            {b"Final-Recipient", b"Action", b"Status"}
            <= set(group)
            <= {
                b"Original-Recipient",
                b"Final-Recipient",
                b"Action",
                b"Status",
                b"Remote-MTA",
                b"Diagnostic-Code",
                b"Will-Retry-Until",
            }
        )
        kind, semicolon, _ = group[b"Final-Recipient"].partition(b";")
        assert semicolon and kind in (b"rfc822", b"utf-8")
    assert (
        unfit(text[1]) is None and unfit(status[1]) is None and unfit(message.partition(copy[1])[0]) is None
    )
    text[1].decode(), status[1].decode()
    assert status[1].isascii() or (smtputf8 and b"8bit" in status[0])
    assert text[1].isascii() or b"8bit" in text[0]
    assert copy[1] == (original if whole else b"Subject: x\n")
    assert message.isascii() or b"\nContent-Transfer-Encoding: 8bit" in header
    assert len(parts_of(message)) == 3


@given(st.binary(max_size=80), octets)
@example(b"x-other", b"12")
@example(b"x" * 64, b"12")
@example(b"x" * 65, b"12")
@example(b"rfc822\nX-Injected: yes", b"bob@x.test")
def test_the_original_recipient_has_a_type_that_is_an_atom_or_is_not_told(kind: bytes, value: bytes) -> None:
    told = dsn.Told("failed", b"bob@example.test", NO_MAILBOX, kind + b";" + value)
    [_, group] = strict_fields(fields(failed(told), b"mail.example.test"))
    told_as, _, address = group.get(b"Original-Recipient", b"").partition(b"; ")
    if re.fullmatch(rb"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?", kind) and value.isalnum():
        assert (told_as, address[:100]) == (kind, value[:100])
    elif told_as:
        assert re.fullmatch(rb"[A-Za-z0-9-]{1,64}", told_as) and kind.startswith(told_as)


@pytest.mark.parametrize("kind", [b"rfc_822", b"-", b"rfc822-", b"a b", b"", b"rfc822\n", b"x" * 65])
def test_an_original_recipient_of_a_strange_type_is_not_told(kind: bytes) -> None:
    told = dsn.Told("failed", b"bob@example.test", NO_MAILBOX, kind + b";bob@x.test")
    assert b"Original-Recipient" not in fields(failed(told), b"mail.example.test")


plain = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"\\;'), min_size=1)


@given(plain, plain, st.lists(plain, max_size=30).filter(lambda words: sum(map(len, words)) < 900))
def test_what_is_written_is_read_back_equal(local: str, host: str, words: list[str]) -> None:
    local, host = local.replace("@", ""), host.replace("@", "")
    said = " ".join(words).replace("#", "")
    told = dsn.Told("failed", f"{local}@{host}".encode()[:800], said.encode() + b"\n", b"rfc822;who@x.test")
    _, status, _ = parts_of(written(failed(told, envid=b"an+20id")))
    head, recipient = status.get_payload()  # type: ignore[misc]
    assert head["Original-Envelope-Id"] == "an id"  # type: ignore[index]
    kind, _, value = str(recipient["Final-Recipient"]).partition("; ")  # type: ignore[index]
    assert kind == "rfc822"
    assert re.sub(r'^"(.*)"@', r"\1@", value).lstrip("@").encode() == told.address.lstrip(b"@")
    assert recipient["Original-Recipient"] == "rfc822; who@x.test"  # type: ignore[index]
    if not said.startswith("Remote host said"):
        diagnostic = str(recipient["Diagnostic-Code"] or "x-openqmail; ")  # type: ignore[index]
        assert "".join(diagnostic.split()) == "x-openqmail;" + "".join(said.split())


def test_a_report_quotes_so_much_in_all_and_names_every_recipient() -> None:
    said = (
        b"192.0.2.9 does not like recipient.\nRemote host said: 550-" + b"\xff" * 4000 + b"\n550 5.7.1 no\n"
    )
    told = [dsn.Told("failed", b"user%d@there.test" % count, said) for count in range(2000)]
    message = written(failed(*told))
    _, (text, status, _) = strict_parts(message)
    assert len(text[1]) < 140_000 and len(status[1]) < 2000 * 350
    groups = strict_fields(status[1])[1:]
    assert [group[b"Final-Recipient"] for group in groups] == [b"rfc822; " + one.address for one in told]
    assert {group[b"Status"] for group in groups} == {b"5.7.1"}
    assert max(len(group[b"Diagnostic-Code"]) for group in groups) < 1050
    listed = text[1].count(b"@there.test>:\n")
    assert text[1].endswith(b"\nAnd %d more, which the next part of this report names.\n" % (2000 - listed))
    assert 500 < listed < 2000


def test_octets_that_are_no_text_are_one_question_mark_each() -> None:
    message = written(failed(dsn.Told("failed", b"b@c.test", b"no \xff\xfe" + "ü".encode() + b"\x9f\n")))
    assert "\nno ??ü?\n".encode() in strict_parts(message)[1][0][1]
