"""A thousand histories, and some broken queues that they would notice."""

import pytest
from story import tell

from openqmail.core.queue.journal import Journal
from openqmail.core.queue.layout.mover import Mover
from openqmail.core.queue.layout.results import Results
from openqmail.core.queue.layout.syncing import Syncer

SEEDS = 1000
BLOCK = 25


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_promise_is_kept_from_seed(first):
    for seed in range(first, first + BLOCK):
        tell(seed)


def test_a_seed_plays_the_same_history_again():
    first, second = tell(77), tell(77)
    assert first.ledger.events == second.ledger.events
    assert first.machine.disk.faults.calls == second.machine.disk.faults.calls


def journal_without_syncs(patch):
    patch.setattr(Journal, "_sync", Journal._facts)


def layout_without_syncs(patch):
    patch.setattr(Syncer, "sync", lambda self, paths, folders: None)


def results_that_never_reach_the_files(patch):
    patch.setattr(Results, "apply", lambda self, batch, again=False: None)


def moves_that_lose_the_text(patch):
    patch.setattr(Mover, "_rewrite", lambda self, path, body: self._disk.open(path).close())


def holding_that_forgets_a_file(patch):
    patch.setattr("openqmail.core.queue.layout.held._REST", ("mess", "local", "bounce"))


def opening_that_keeps_moves_that_were_not_finished(patch):
    patch.setattr(Mover, "withdraw", lambda self, number, *, large, touched=None: False)


@pytest.mark.parametrize(
    "broken",
    [
        journal_without_syncs,
        layout_without_syncs,
        results_that_never_reach_the_files,
        moves_that_lose_the_text,
        holding_that_forgets_a_file,
        opening_that_keeps_moves_that_were_not_finished,
    ],
)
def test_the_histories_notice(broken, monkeypatch):
    """What breaks a promise is seen within some seeds."""
    broken(monkeypatch)
    with pytest.raises(Exception, match="seed"):
        for seed in range(300):
            tell(seed)
