"""A message of qmail's layout: each file is durable by itself before the report."""

import os
from typing import Any

import pytest

from openqmail.core.local import LocalDeliveries
from openqmail.core.ports import LocalReport
from openqmail.core.values import Outcome

WHOLE = b"Return-Path: <bob@example.test>\nDelivered-To: alice@example.test\nSubject: x\n\nHello.\n"


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_synced_file_is_a_fact_when_it_is_reported(rig: Any, again: bool, streamed: bool) -> None:
    text = b"Subject: x\n\nHello.\n"
    body = rig.streamed(text) if streamed else text
    report = rig.deliver(rig.job(body=body, again=again, synced=True))
    assert (report.result.outcome, report.written) == (Outcome.SUCCESS, ())
    assert rig.new() == [WHOLE]
    assert len(rig.disk.files) == 1
    assert rig.disk.folders == [os.fsencode(rig.maildir / "new")]
    assert rig.disk.whole == 0


def test_each_of_several_files_is_synced(rig: Any) -> None:
    (rig.alice / ".qmail").write_bytes(b"./Maildir/\n./Maildir/\n")
    assert rig.deliver(rig.job(synced=True)).written == ()
    assert len(rig.disk.files) == len(rig.disk.folders) == len(rig.new()) == 2


def test_a_file_that_cannot_be_synced_defers_and_leaves_nothing(rig: Any) -> None:
    rig.disk.file_fails = True
    report = rig.deliver(rig.job(synced=True))
    assert report.result.outcome is Outcome.DEFERRAL
    assert rig.names("new") == rig.names("tmp") == []


@pytest.mark.parametrize("what", ["file_fails", "folder_fails"])
@pytest.mark.parametrize("first", [False, True])
def test_after_one_failed_sync_the_file_is_written_anew(rig: Any, what: str, first: bool) -> None:
    """Linux reports an error once; the next sync of the same file succeeds and means nothing."""

    async def story(local: LocalDeliveries) -> LocalReport:
        if first:
            await local.deliver(rig.job())
        setattr(rig.disk, what, True)
        report = await local.deliver(rig.job(again=first, synced=True))
        assert report.result.outcome is Outcome.DEFERRAL
        setattr(rig.disk, what, False)
        before = [os.stat(rig.maildir / "new" / name).st_ino for name in rig.names("new")]
        report = await local.deliver(rig.job(again=True, synced=True))
        (name,) = rig.names("new")
        assert os.stat(rig.maildir / "new" / name).st_ino not in before
        return report

    report = rig.run(story)
    assert (report.result.outcome, report.written) == (Outcome.SUCCESS, ())
    assert rig.new() == [WHOLE]
