"""An add-on's hooks in the MTAs of others' tests, real and virtual: mail comes in and goes out by them."""

import asyncio
import threading

import msgspec
import pytest

from openqmail.core.control import extensions
from openqmail.core.control.extensions import Entry
from openqmail.core.testing import Answer, Mta, Receiver, VirtualMta
from openqmail.core.values import ControlError

TEXT = "Subject: hello\n\nhow are you?\n"

told: list[str] = []


class Both:
    """Has something to say at each end."""

    def __init__(self, context):
        if context.place == "smtpd":
            self.run = context.programs.run

    def message(self, session, envelope, body, edits):
        edits.prepend(b"X-In: yes")

    def prepare(self, delivery, body, edits):
        edits.prepend(b"X-Out: %d bytes" % len(b"".join(body.chunks())))

    def finished(self, delivery, results):
        for recipient, result in zip(delivery.recipients, results, strict=True):
            told.append(f"{recipient.decode()} {result.outcome.name}")

    def forward(self, envelope, via):
        return msgspec.structs.replace(envelope, sender=b"forwarded-by-" + via)


class Asking:
    """Refuses what its program does not like."""

    def __init__(self, context):
        self.programs = context.programs

    async def message(self, session, envelope, body, edits):
        result = await self.programs.run([b"/bin/echo", b"fine"], body)
        edits.prepend(b"X-Said: %b" % (result.output.strip() or result.why.encode()))


class Slow:
    """Takes a while for what it is told."""

    def __init__(self, context):
        pass

    async def finished(self, delivery, results):
        await asyncio.sleep(0.2)
        told.append("finished")

    async def reset(self, session, why):
        await asyncio.sleep(0.2)
        told.append(why)


class Hangs:
    """Hands a thread what does not return."""

    returns = threading.Event()

    def __init__(self, context):
        pass

    async def forward(self, envelope, via):
        asyncio.get_running_loop().run_in_executor(None, self.returns.wait)


class Unwilling:
    prepare = Both.prepare

    def __init__(self, context):
        raise ValueError(f"not in {context.place}")


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    found = {
        name.lower(): Entry("openqmail.hooks", name.lower(), f"{__name__}:{name}")
        for name in ("Both", "Asking", "Slow", "Hangs", "Unwilling")
    }
    registered = extensions.registered
    monkeypatch.setattr(
        extensions, "registered", lambda group: found if group == "openqmail.hooks" else registered(group)
    )
    told.clear()


@pytest.fixture(params=[Mta, VirtualMta])
def make(request):
    return request.param


def test_hooks_are_asked_of_mail_that_comes_in_and_of_mail_that_goes_out(make):
    with make(control={"hooks": "both"}) as mta:
        mta.submit("alice@a.example", ["alice@a.example", "bob@far.example"], TEXT)
        [inside], [outside] = mta.wait_for("alice"), mta.wait_for("bob@far.example")
        assert (inside["X-In"], inside["X-Out"]) == ("yes", None)
        assert outside["X-In"] == "yes"
        before, _, signed = outside.raw.partition(b"\n")
        assert before == b"X-Out: %d bytes" % len(signed.replace(b"\n", b"\r\n"))
        mta.stop()  # what became of it has been told by then
    assert told == ["bob@far.example SUCCESS"]


def test_what_became_of_each_recipient_is_told(make):
    full = Receiver(then=Answer(552, "5.2.2 no room"))
    with make(control={"hooks": "both"}, receivers={"far.example": full}) as mta:
        mta.submit("alice@a.example", "bob@far.example", TEXT)
        mta.wait_for("alice")
        assert told == ["bob@far.example FAILURE"]


def test_what_hooks_are_told_they_do_to_the_end(make):
    with make(control={"hooks": "slow"}) as mta:
        mta.submit("alice@a.example", "bob@far.example", TEXT)
        mta.wait_for("bob@far.example")
        mta.stop()
    assert sorted(told) == ["done", "end", "finished"]


def test_a_forward_is_the_hooks_to_rewrite(make):
    with make(control={"hooks": "both"}) as mta:
        forward(mta, "&bob@far.example\n")
        mta.submit("x@y.example", "away@a.example", TEXT)
        [mail] = mta.wait_for("bob@far.example")
        assert mail.sender == "forwarded-by-away@a.example"


def test_an_mta_ends_although_a_hook_does_not():
    try:
        with Mta(control={"hooks": "hangs"}) as mta:
            forward(mta, "&bob@far.example\n")
            mta.submit("x@y.example", "away@a.example", TEXT)
            mta.wait_for("bob@far.example")
            mta.stop()
            assert not Hangs.returns.is_set()
    finally:
        Hangs.returns.set()


def forward(mta, text):
    """What the address `away` does."""
    path = f"{mta.home}/alias/.qmail-away"
    if isinstance(mta, VirtualMta):
        mta.disk.make(path.encode(), text.encode())
    else:
        with open(path, "w") as file:
            file.write(text)


def test_a_hook_that_is_named_later_is_asked_from_then_on(make):
    with make() as mta:
        mta.submit("alice@a.example", "one@far.example", TEXT)
        [mail] = mta.wait_for("one@far.example")
        assert mail["X-Out"] is None
        mta.control("hooks", "both")
        mta.submit("alice@a.example", "two@far.example", TEXT)
        [mail] = mta.wait_for("two@far.example")
        assert mail["X-Out"]
        with pytest.raises(
            ControlError, match=r"the hook 'unwilling' .* cannot be made in remote: ValueError"
        ):
            mta.control("hooks", "unwilling")
        mta.submit("alice@a.example", "three@far.example", TEXT)
        [mail] = mta.wait_for("three@far.example")
        assert mail["X-Out"]


def test_a_program_of_a_hook_is_run_and_in_virtual_time_said_not_to_be(make):
    with make(control={"hooks": "asking"}) as mta:
        mta.submit("x@y.example", "alice@a.example", TEXT)
        [mail] = mta.wait_for("alice")
        virtual = "is not run: there are no programs in virtual time"
        assert mail["X-Said"] == (virtual if make is VirtualMta else "fine")
