"""What a sender asked to be told of (RFC 3461) stays with its recipient, wherever the message goes."""

import pytest
from stage import DONE, LATER, NOW, Stage, deferred, failed, succeeded, until_moved

from openqmail.core.queue import Closes
from openqmail.core.queue.layout.forms import decode_info
from openqmail.core.values import Envelope, Origin, Recipient

ENVID, RET = b"QQ+2B314\x5c", b"HDRS"
MIXED = (
    Recipient(b"far@remote", b"SUCCESS,FAILURE,DELAY", b"rfc822;first+2B@old.test"),
    Recipient(b"a@here", b"NEVER"),
    Recipient(b"plain@remote"),
    Recipient(b"b@here", b"", "utf-8;jörg@old.test".encode()),
)
ASKED = Envelope(b"s@example", MIXED, Origin(7, 8), True, RET, ENVID)
DUE = (NOW + 100, NOW + 200)


def asked(envelope):
    """Who asked for what, by the end of the address: a local one is routed on its way."""
    facts = {
        recipient.address.removeprefix(b"user-"): (recipient.notify, recipient.orcpt)
        for recipient in envelope.recipients
    }
    return facts, envelope.ret, envelope.envid, envelope.smtputf8


async def accepted(store, _):
    return (await store.submit(ASKED, b"x\n")).id.number


async def moved_at_a_clean_stop(store, found):
    number = await accepted(store, found)
    assert await store.settle() == 0
    return number


@pytest.mark.parametrize("power", [None, 1], ids=["kill", "power cut"])
def test_in_the_journal(power):
    stage = Stage()
    number = stage.run(accepted, close=False)
    stage.crash(power)
    stored, _ = stage.look()[number]
    assert stored.envelope == ASKED


@pytest.mark.parametrize("power", [None, 1], ids=["kill", "power cut"])
def test_after_a_move(power):
    async def story(store, found):
        number = await accepted(store, found)
        await store.record(number, tuple(deferred(place) for place in range(4)), DUE, False)
        await until_moved(store)
        stored = store.load(number)
        assert stored.channels == ("local", "local", "remote", "remote")
        assert asked(stored.envelope) == asked(ASKED)
        return number

    stage = Stage()
    number = stage.run(story, close=False)
    stage.crash(power)
    stored, _ = stage.look()[number]
    assert asked(stored.envelope) == asked(ASKED)


def test_after_a_clean_stop_and_while_held_and_after():
    async def held(store, found):
        (number,) = store.numbers()
        assert asked(store.load(number).envelope) == asked(ASKED)
        await store.hold(number, "why not")
        return asked(store.load(number).envelope)

    async def released(store, found):
        (number,) = store.numbers()
        assert asked(store.load(number).envelope) == asked(ASKED)
        await store.release(number)
        return asked(store.load(number).envelope)

    stage = Stage()
    stage.run(moved_at_a_clean_stop)
    assert stage.run(held) == asked(ASKED)
    assert stage.run(released) == asked(ASKED)


def test_results_of_later_attempts_change_nothing_of_it():
    async def later(store, found):
        (number,) = store.numbers()
        places = {one.address: place for place, one in enumerate(store.load(number).envelope.recipients)}
        changes = (
            succeeded(places[b"far@remote"]),
            failed(places[b"plain@remote"], b"plain@remote"),
            deferred(places[b"user-a@here"]),
        )
        await store.record(number, changes, DUE, False, True)
        return number

    stage = Stage()
    stage.run(moved_at_a_clean_stop)
    number = stage.run(later)
    stored, _ = stage.look()[number]
    assert asked(stored.envelope) == asked(ASKED)
    assert stored.bounce == b"<plain@remote>:\nno\n\n"


def test_qmail_reads_the_sender_and_no_more():
    stage = Stage()
    number = stage.run(moved_at_a_clean_stop)
    data = next(content for path, (content, _) in stage.files().items() if path.startswith(b"info/"))
    assert data.startswith(b"Fs@example\0X")
    sender, extra = decode_info(data)
    assert sender == b"s@example" and extra is not None and extra.ret == "HDRS"
    assert number in stage.look()


@pytest.mark.parametrize("moved", [False, True], ids=["journal", "layout"])
@pytest.mark.parametrize("power", [None, 1], ids=["kill", "power cut"])
def test_a_notice_and_the_result_that_it_tells_of_are_one(moved, power):
    async def prepare(store, found):
        one = Envelope(b"s@example", (MIXED[0], MIXED[2]))
        number = (await store.submit(one, b"x\n")).id.number
        if moved:
            await store.record(number, LATER, DUE, False)
            await until_moved(store)
        return number

    async def story(store, number, told):
        stored = store.load(number)
        closes = Closes(number, DONE, False, bool(stored.channels))
        notice = Envelope(b"", (Recipient(b"s@example"),))
        new = await store.submit(notice, b"notice\n", closes)
        told.append(new.id.number)

    call, cut = 0, True
    while cut:
        call += 1
        stage = Stage(call)
        number = stage.run(prepare)
        told = []
        stage.cut_at(call)
        stage.run(lambda store, found, number=number, told=told: story(store, number, told))
        cut = stage.is_cut
        stage.crash(power and call)
        seen = stage.look()
        done = seen[number][0].progress[0].outcome is not None
        notices = [there for _, there in seen.values() if there == b"notice\n"]
        assert len(notices) == done, f"cut in call {call}"
        assert done or not told
        assert seen[number][1] == b"x\n"
    assert call > 3
