"""Who gets a message, what becomes of it, and what the report says."""

import asyncio
import fcntl
import os
import stat
from typing import Any

import pytest

from openqmail.core.local import LocalDeliveries
from openqmail.core.local.mbox import awaited
from openqmail.core.values import Outcome

HEAD = b"Return-Path: <bob@example.test>\nDelivered-To: alice@example.test\n"
BODY = b"Subject: x\n\nHello.\n"


def test_a_message_becomes_one_private_file_in_new(rig: Any) -> None:
    report = rig.deliver(rig.job())
    assert report.result.outcome is Outcome.SUCCESS
    assert report.result.text == b"did 1+0+0\n"
    assert rig.new() == [HEAD + BODY]
    (name,) = rig.names("new")
    birth, digest, rest = name.split(".", 2)
    assert birth == "1700000000"
    assert digest.startswith("Q")
    assert rest == f"mx.example.test,S={len(HEAD + BODY)}"
    assert stat.S_IMODE(os.stat(rig.maildir / "new" / name).st_mode) == 0o600
    assert rig.names("tmp") == []
    (written,) = report.written
    assert (written.path, written.size) == (os.fsencode(rig.maildir / "new" / name), len(HEAD + BODY))


def test_a_small_message_is_there_when_deliver_returns(rig: Any) -> None:
    async def story(local: LocalDeliveries) -> bool:
        future = local.deliver(rig.job())
        return future.done() and len(rig.new()) == 1

    assert rig.run(story)


def test_a_large_message_is_streamed_and_whole(rig: Any) -> None:
    text = b"Subject: x\n\n" + b"0123456789\n" * 50_000
    report = rig.deliver(rig.job(body=rig.streamed(text)))
    assert report.result.text == b"did 1+0+0\n"
    assert rig.new() == [HEAD + text]


def test_a_body_that_ends_early_leaves_nothing_and_defers(rig: Any) -> None:
    report = rig.deliver(rig.job(body=rig.streamed(BODY, says=len(BODY) + 1)))
    assert report.result.outcome is Outcome.DEFERRAL
    assert report.written == ()
    assert rig.names("new") == rig.names("tmp") == []


def test_the_host_in_a_file_name_is_escaped(rig: Any) -> None:
    async def story(local: LocalDeliveries) -> Any:
        import msgspec

        local.reconfigure(msgspec.structs.replace(rig.settings, me=b"a/b:c"))
        return await local.deliver(rig.job())

    rig.run(story)
    (name,) = rig.names("new")
    assert r".a\057b\072c,S=" in name


def test_who_is_not_here_bounces(rig: Any) -> None:
    for recipient in (b"nobody@example.test", b"alice-x@example.test", b"@example.test", b"a\nb/../c@x"):
        result = rig.deliver(rig.job(recipient)).result
        assert result.outcome is Outcome.FAILURE
        assert result.text == b"Sorry, no mailbox here by that name. (#5.1.1)\n"


def test_alias_gets_what_no_user_has(rig: Any) -> None:
    (rig.root / "alias" / ".qmail-postmaster").write_bytes(b"&alice@example.test\n")
    report = rig.deliver(rig.job(b"PostMaster@example.test"))
    assert report.forward is not None
    assert report.forward.recipients == (b"alice@example.test",)
    assert report.forward.header.endswith(b"\nDelivered-To: PostMaster@example.test\n")


def test_files_and_a_forward_come_in_one_report(rig: Any) -> None:
    (rig.alice / ".qmail").write_bytes(b"&a@x.test\n./Maildir/\nb@y.test\n")
    report = rig.deliver(rig.job())
    assert report.result.outcome is Outcome.SUCCESS
    assert report.result.text == b"did 1+2+0\nqp %d\n" % os.getpid()
    assert len(report.written) == 1
    assert report.forward is not None
    assert report.forward.sender == b"bob@example.test"
    assert report.forward.recipients == (b"a@x.test", b"b@y.test")
    trace, delivered, nothing = report.forward.header.split(b"\n")
    assert trace == b"Received: (qmail %d invoked by uid %d); 14 Nov 2023 22:13:20 -0000" % (
        os.getpid(),
        os.getuid(),
    )
    assert (delivered, nothing) == (b"Delivered-To: alice@example.test", b"")


def test_two_lines_for_one_maildir_are_two_files(rig: Any) -> None:
    (rig.alice / ".qmail").write_bytes(b"./Maildir/\n./Maildir/\n")
    assert len(rig.deliver(rig.job()).written) == 2
    assert rig.new() == [HEAD + BODY] * 2


@pytest.mark.parametrize("streamed", [False, True])
def test_a_message_that_was_here_already_is_looping(rig: Any, streamed: bool) -> None:
    text = b"A: b\nDelivered-To: alice@example.test\n\nx\n"
    result = rig.deliver(rig.job(body=rig.streamed(text) if streamed else text)).result
    assert result.outcome is Outcome.FAILURE
    assert result.text == b"This message is looping: it already has my Delivered-To line. (#5.4.6)\n"
    assert rig.new() == []


def test_a_changed_dot_qmail_counts_at_once(rig: Any) -> None:
    async def story(local: LocalDeliveries) -> tuple[bytes, bytes]:
        first = await local.deliver(rig.job())
        (rig.alice / ".qmail").write_bytes(b"# nobody reads this\n")
        second = await local.deliver(rig.job())
        return first.result.text, second.result.text

    assert rig.run(story) == (b"did 1+0+0\n", b"did 0+0+0\n")


def test_an_unsupported_line_defers_and_is_named(rig: Any) -> None:
    (rig.alice / ".qmail-x").write_bytes(b"./Maildir/\n|cat\n")
    result = rig.deliver(rig.job(b"alice-x@example.test")).result
    assert result.outcome is Outcome.DEFERRAL
    assert result.text == b".qmail-x, line 2: delivery to a program is not supported yet. (#4.3.0)\n"
    assert rig.new() == []


def test_what_is_missing_from_a_maildir_defers(rig: Any) -> None:
    async def story(local: LocalDeliveries) -> list[bytes]:
        texts = []
        for part in ("cur", "tmp", "new"):
            (rig.maildir / part).rmdir()
            texts.append((await local.deliver(rig.job())).result.text)
            (rig.maildir / part).mkdir()
        return texts

    assert rig.run(story) == [b"Temporary error on maildir delivery. (#4.3.0)\n"] * 3
    os.rename(rig.maildir, rig.alice / "Moved")
    result = rig.deliver(rig.job()).result
    assert result.outcome is Outcome.DEFERRAL
    assert result.text == b"Unable to chdir to maildir. (#4.2.1)\n"


def test_a_maildir_that_comes_back_is_used_again(rig: Any) -> None:
    async def story(local: LocalDeliveries) -> list[Outcome]:
        first = await local.deliver(rig.job())
        os.rename(rig.maildir, rig.alice / "Old")
        second = await local.deliver(rig.job())
        rig.make_maildir(rig.maildir)
        third = await local.deliver(rig.job())
        return [report.result.outcome for report in (first, second, third)]

    assert rig.run(story) == [Outcome.SUCCESS, Outcome.DEFERRAL, Outcome.SUCCESS]


def test_a_full_disk_defers_and_leaves_nothing(rig: Any) -> None:
    rig.disk.full = True
    result = rig.deliver(rig.job()).result
    assert result.outcome is Outcome.DEFERRAL
    assert result.text == b"Temporary error on maildir delivery. (#4.3.0)\n"
    assert result.why == f"{rig.maildir}/ cannot be written to: no space left on device"
    assert rig.names("tmp") == rig.names("new") == []


def test_unsafe_homes_and_files_defer(rig: Any) -> None:
    def text() -> bytes:
        result = rig.deliver(rig.job()).result
        assert result.outcome is Outcome.DEFERRAL
        return result.text

    rig.alice.chmod(0o757)
    assert text() == b"Uh-oh: home directory is writable. (#4.7.0)\n"
    rig.alice.chmod(0o1755)
    assert text() == b"Home directory is sticky: user is editing his .qmail file. (#4.2.1)\n"
    rig.alice.chmod(0o755)
    file = rig.alice / ".qmail"
    file.write_bytes(b"./Maildir/\n")
    file.chmod(0o646)
    assert text() == b"Uh-oh: .qmail file is writable. (#4.7.0)\n"
    file.chmod(0o744)
    assert text() == b"Uh-oh: .qmail has file delivery but has x bit set. (#4.7.0)\n"
    os.truncate(file, 2 << 20)
    file.chmod(0o644)
    assert text() == b".qmail is longer than 1048576 bytes. (#4.3.0)\n"


def test_a_fifo_or_folder_by_the_name_is_not_a_dot_qmail_file(rig: Any) -> None:
    os.mkfifo(rig.alice / ".qmail-x")
    (rig.alice / ".qmail-default").mkdir()
    assert rig.deliver(rig.job(b"alice-x@example.test")).result.outcome is Outcome.FAILURE


def test_a_damaged_users_cdb_defers(rig: Any) -> None:
    (rig.root / "users" / "cdb").write_bytes(b"\xff" * 4000)
    result = rig.deliver(rig.job()).result
    assert result.outcome is Outcome.DEFERRAL
    assert result.text == b"Trouble reading users/cdb. (#4.3.0)\n"


def test_many_large_ones_for_one_recipient_at_once(rig: Any) -> None:
    text = b"Subject: x\n\n" + b"y" * 5000 + b"\n"

    async def story(local: LocalDeliveries) -> None:
        import msgspec

        jobs = [
            msgspec.structs.replace(rig.job(body=rig.streamed(text)), delivery=number) for number in range(20)
        ]
        reports = await asyncio.gather(*map(local.deliver, jobs))
        assert {report.result.outcome for report in reports} == {Outcome.SUCCESS}

    rig.run(story)
    assert rig.new() == [HEAD + text]
    assert rig.names("tmp") == []


def test_a_locked_mbox_holds_up_nobody_elses_mail(rig: Any) -> None:
    rig.alice.joinpath(".qmail-box").write_bytes(b"./box\n")
    rig.alice.joinpath(".qmail-other").write_bytes(b"./other\n")
    (rig.alice / "box").touch()

    async def story(local: LocalDeliveries) -> None:
        with (rig.alice / "box").open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            waiting = {local.deliver(rig.job(b"alice-box@example.test")) for _ in range(30)}
            other = await local.deliver(rig.job(b"alice-other@example.test"))
            assert other.result.outcome is Outcome.SUCCESS
            told, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            while len(waiting) > 1:
                more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                told |= more
            assert {each.result().result for each in told} == {awaited(b"./box")}
        (last,) = waiting
        assert (await last).result.outcome is Outcome.SUCCESS

    rig.run(story)
