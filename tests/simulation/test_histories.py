"""A thousand histories, and some broken queues that they would notice."""

import re

import pytest
from ledger import Ledger
from story import tell

from openqmail.core.queue.journal import Journal
from openqmail.core.queue.layout.mover import Mover
from openqmail.core.queue.layout.results import Results
from openqmail.core.queue.layout.syncing import Syncer
from openqmail.core.send import Sender
from openqmail.core.send.events import Reported
from openqmail.core.send.notices import Notices
from openqmail.core.values import Outcome, Result

SEEDS = 1000
FAILING = 100
BLOCK = 25


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_promise_is_kept_from_seed(first):
    for seed in range(first, first + BLOCK):
        tell(seed)


@pytest.mark.parametrize("first", range(50_000, 50_000 + FAILING, BLOCK))
def test_every_promise_is_kept_while_syncs_of_qmails_files_fail_from_seed(first):
    for seed in range(first, first + BLOCK):
        tell(seed, 0.12)


def test_a_seed_plays_the_same_history_again_in_another_process(monkeypatch):
    first = tell(77)
    monkeypatch.setattr("os.getpid", lambda: 1_234_567)
    second = tell(77)
    assert first.ledger.events == second.ledger.events
    assert first.machine.disk.faults.calls == second.machine.disk.faults.calls


def journal_without_syncs(patch):
    patch.setattr(Journal, "_sync", Journal._facts)


def layout_without_syncs(patch):
    patch.setattr(Syncer, "sync", lambda self, paths, folders: None)


def results_that_never_reach_the_files(patch):
    patch.setattr(Results, "apply", lambda self, batch, again=False: [None] * len(batch))


def moves_that_lose_the_text(patch):
    patch.setattr(Mover, "_rewrite", lambda self, path, body: self._disk.open(path).close())


def holding_that_forgets_a_file(patch):
    patch.setattr("openqmail.core.queue.layout.held._REST", ("mess", "local", "bounce"))


def opening_that_keeps_moves_that_were_not_finished(patch):
    patch.setattr(Mover, "withdraw", lambda self, number, *, large, touched=None: False)


def opening_that_forgets_results(patch):
    patch.setattr("openqmail.core.queue.journal.recovery.apply_changes", lambda progress, record: None)


def successes_that_are_forgotten(patch):
    """Of every second delivery, in histories that had a crash."""
    sent = Sender._sent

    def forget(self, delivery, recipients, done):
        if delivery % 2 and self._store.ledger.crashes:
            self._tell(Reported(delivery, (Result(Outcome.DEFERRAL, b"Later."),) * recipients))
        else:
            sent(self, delivery, recipients, done)

    patch.setattr(Sender, "_sent", forget)


def damage_that_is_not_looked_for(patch):
    patch.setattr("openqmail.core.queue.journal.recovery.holds", lambda *_: True)


def damage_that_is_cut_in_silence(patch):
    patch.setattr("openqmail.core.queue.journal.recovery._attested", lambda *_: 0)


def notices_apart_from_what_they_tell_of(patch):
    async def apart(self, action):
        new = await self._notify(action.number, action.told, (), action.routed)
        await self._store.record(action.number, action.changes, (0, 0), False, action.routed)
        return new

    patch.setattr(Notices, "notify", apart)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (journal_without_syncs, "(came back after its end was on the disk|is damaged at byte|is lost)"),
        (layout_without_syncs, "(something is in the journal only|cannot be read: it )"),
        (
            results_that_never_reach_the_files,
            "(came back for .* after its result|a message without a name|in the journal only)",
        ),
        (moves_that_lose_the_text, "(a message without a name|has 0 bytes in place of)"),
        (holding_that_forgets_a_file, "(is lost|of that number are missing)"),
        (opening_that_keeps_moves_that_were_not_finished, "/home/queue/.* (has|cannot be read: it) "),
        (opening_that_forgets_results, "came back for .* after its result was on the disk"),
        (damage_that_is_not_looked_for, "is another one: (more is lost|was known to be synced)"),
        (damage_that_is_cut_in_silence, "is another one: was known to be synced, and nothing is said"),
        (
            notices_apart_from_what_they_tell_of,
            "(message notice to .* has (two results|ended twice)|the sender of m[0-9]+ was told of)",
        ),
        (successes_that_are_forgotten, "twice without a crash in between"),
    ],
)
def test_the_histories_notice(broken, promise, monkeypatch):
    """What breaks a promise is seen within some seeds, as what it is; other seeds may see first what
    follows from it."""
    broken(monkeypatch)
    seen = []
    for seed in range(600):
        try:
            tell(seed)
        except AssertionError as error:
            seen.append(str(error).partition("; the story:")[0])
            if re.match(rf"seed \d+: .*{promise}", seen[-1]):
                return
    pytest.fail("not seen as what it is, but as: " + "; ".join(seen))


def test_what_a_callback_raises_and_nobody_handles_fails_the_seed(monkeypatch):
    took, first = Ledger.took, []

    def once(self, *arguments):
        took(self, *arguments)
        first.append(arguments)
        if len(first) == 1:
            raise AssertionError("the first that is sent")

    monkeypatch.setattr(Ledger, "took", once)
    with pytest.raises(AssertionError, match=r"^seed 3: AssertionError\('the first that is sent"):
        tell(3)


def test_a_seed_that_fails_says_how_the_same_history_is_played_again(monkeypatch):
    """With `--seed` alone another one would be, when syncs failed in it."""

    def broken(*_):
        raise AssertionError("broken")

    monkeypatch.setattr(Ledger, "took", broken)
    with pytest.raises(
        AssertionError, match=r"; again: \./nox -s simulate -- --seed 3 --failing 0\.12; the story"
    ):
        tell(3, 0.12)


def test_who_interrupts_a_history_is_not_taken_for_a_broken_promise(monkeypatch):
    class Interrupt(BaseException):
        pass

    def interrupt(*_):
        raise Interrupt

    monkeypatch.setattr(Ledger, "took", interrupt)
    with pytest.raises(Interrupt) as caught:
        tell(3)
    assert (
        "while seed 3 was played; again: ./nox -s simulate -- --seed 3; the story:"
        in caught.value.__notes__[0]
    )
