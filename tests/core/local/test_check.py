"""What is told of a recipient is what a delivery would come to, and nothing is done for it."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from openqmail.core.dotqmail.interpreter import NO_MAILBOX
from openqmail.core.local import LocalDeliveries
from openqmail.core.ports import Told
from openqmail.core.values import Outcome, Result
from openqmail.core.world import Facts


def check(rig: Any, *recipients: bytes) -> list[Result | None]:
    async def story(local: LocalDeliveries) -> list[Result | None]:
        return [(await local.check((recipient,)))[recipient] for recipient in recipients]

    found: list[Result | None] = rig.run(story)
    return found


def everything(rig: Any) -> list[tuple[str, int, int]]:
    """Each file and folder of the home, with its inode and when it was last changed."""
    return [
        (path, os.stat(path).st_ino, os.stat(path).st_mtime_ns)
        for folder, folders, files in os.walk(rig.root)
        for path in (os.path.join(folder, name) for name in (*folders, *files))
    ]


def test_who_has_a_mailbox_is_known_and_who_has_none_is_refused_as_a_delivery_is(rig: Any) -> None:
    (rig.alice / ".qmail-list").write_text("&far@else.test\n")
    (rig.alice / ".qmail-shop-default").write_text("./Maildir/\n")
    (rig.root / "alias" / ".qmail-root").write_text("&alice\n")
    taken = [b"alice@h", b"ALICE@h", b"alice", b"alice-list@h", b"alice-shop-eggs@h", b"root@h"]
    assert check(rig, *taken) == [None] * len(taken)
    refused = [b"bob@h", b"alice-nothing@h", b"alice-shop@h", b"", b"@h"]
    assert check(rig, *refused) == [NO_MAILBOX] * len(refused)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rig: (rig.root / "users" / "cdb").unlink(),
        lambda rig: rig.alice.chmod(0o1755),
        lambda rig: rig.alice.chmod(0o757),
        lambda rig: (rig.alice / ".qmail").write_text("\n"),
        lambda rig: (rig.alice / ".qmail").write_text("| program\n"),
        lambda rig: rig.alice.rename(rig.root / "elsewhere"),
    ],
)
def test_what_would_be_deferred_is_told_in_the_words_of_the_delivery(
    rig: Any, spoil: Callable[[Any], object]
) -> None:
    spoil(rig)

    async def story(local: LocalDeliveries) -> tuple[Result | None, Result]:
        return (await local.check((b"alice@h",)))[b"alice@h"], (await local.deliver(rig.job())).result

    told, delivered = rig.run(story)
    assert told == delivered
    assert told.outcome is Outcome.DEFERRAL


def test_several_are_told_of_together_as_long_as_that_takes_no_time(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (b"alice@h", b"bob@h", b"alice-nothing@h", b"alice@h")

    async def story(local: LocalDeliveries) -> Told:
        return await local.check(asked)

    assert rig.run(story) == {b"alice@h": None, b"bob@h": NO_MAILBOX, b"alice-nothing@h": NO_MAILBOX}
    look = rig.disk.stat

    def slow(path: bytes) -> Facts:
        rig.clock.advance(1.0)
        return look(path)

    monkeypatch.setattr(rig.disk, "stat", slow)
    assert rig.run(story) == {b"alice@h": None}


def test_nothing_is_delivered_or_written(rig: Any) -> None:
    (rig.alice / ".qmail-list").write_text("./Maildir/\n./New/\n&far@else.test\n")
    before = everything(rig)
    check(rig, b"alice@h", b"alice-list@h", b"bob@h")
    assert everything(rig) == before


def test_a_mailbox_that_comes_or_goes_is_seen_at_once(rig: Any) -> None:
    async def story(local: LocalDeliveries) -> list[Result | None]:
        found = []
        changes: tuple[Callable[[], object], ...] = (
            lambda: None,
            lambda: (rig.alice / ".qmail-new").write_text("./Maildir/\n"),
            (rig.alice / ".qmail-new").unlink,
        )
        for change in changes:
            change()
            found.append((await local.check((b"alice-new@h",)))[b"alice-new@h"])
        return found

    wanted: Callable[[LocalDeliveries], Awaitable[list[Result | None]]] = story
    assert rig.run(wanted) == [NO_MAILBOX, None, NO_MAILBOX]
