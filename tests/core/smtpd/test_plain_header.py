"""A client's message says nothing in a field of ours, nor behind the back of a hook."""

import asyncio
import email
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.control.settings import Settings
from openqmail.core.message.fields import HeaderReader
from openqmail.core.message.fresh import READ, PlainHeader

OURS = b"Received: from a\n  by b; today\n"

lines = st.sampled_from(
    [b"A: b", b"C:", b" goes on", b"\t; x", b"From x", b": x", b"no field", b"x" * 70, b""]
)
messages = st.lists(lines, max_size=7).map(lambda some: b"".join(one + b"\n" for one in some))


def passed_on(message: bytes, read: bool, size: int) -> bytes:
    header = PlainHeader(read)
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join([header.feed(one) for one in pieces]) + header.end()


def names(message: bytes) -> list[bytes]:
    reader = HeaderReader()
    found = reader.feed(message)[0] + reader.finish()[0]
    return [field.name for field in found]


def seen_by_others(message: bytes) -> list[bytes]:
    return [name.encode() for name in email.message_from_bytes(message).keys()]  # noqa: SIM118


@given(messages, st.integers(min_value=1, max_value=20), st.booleans())
def test_a_field_of_ours_ends_where_we_ended_it(message: bytes, size: int, read: bool) -> None:
    kept = OURS + passed_on(message, read, size)
    assert email.message_from_bytes(kept)["Received"] == "from a\n  by b; today"


@given(messages, st.integers(min_value=1, max_value=20))
def test_others_read_the_fields_that_a_hook_has_read(message: bytes, size: int) -> None:
    kept = passed_on(message, True, size)
    assert names(kept) == names(message)
    assert seen_by_others(OURS + kept) == [b"Received", *names(message)]


@given(messages, st.booleans())
def test_no_more_is_added_than_one_empty_line(message: bytes, read: bool) -> None:
    kept = passed_on(message, read, 1000)
    added = [
        at for at in range(len(kept)) if kept[at : at + 1] == b"\n" and kept[:at] + kept[at + 1 :] == message
    ]
    assert kept == message or added


@given(
    st.lists(st.sampled_from([b"A: b\n", b"C:\n", b"D: e\n goes on\n"]), max_size=5), messages, st.booleans()
)
def test_a_header_that_ends_with_an_empty_line_stays_as_it_is(
    header: list[bytes], body: bytes, read: bool
) -> None:
    message = b"".join(header) + b"\n" + body
    assert passed_on(message, read, 7) == message


def test_a_last_line_without_an_end_stays_as_it_is() -> None:
    assert passed_on(b"A: b\nC: d", True, 3) == b"A: b\nC: d"
    assert passed_on(b"A: b\n c", True, 3) == b"A: b\n c"
    assert passed_on(b"A: b\nc", True, 3) == b"A: b\n\nc"


LIE = b" ; dkim=pass header.d=bank.example\nX-Virus: yes\nFrom: ceo@bank.example\n\nhello\n"


class Reads:
    def __init__(self) -> None:
        self.fields: list[bytes] = []
        self.header = lambda session, field: self.fields.append(field.name)

    def message(self, session: Any, envelope: Any, body: Any, edits: Any) -> None:
        self.saw = body.header()
        edits.prepend(b"Authentication-Results: mx.a.example; dkim=none")
        edits.remove(b"X-Virus")


async def sent(server: Any, message: bytes) -> bytes:
    client = await (await server.client()).hello()
    await client.data()
    client.writer.write(message.replace(b"\n", b"\r\n") + b".\r\n")
    assert (await client.reply())[:3] == b"250"
    return bytes(server.queue.messages[-1][1])


@pytest.mark.parametrize("blank", [b" ", b"\t"])
def test_what_begins_with_a_blank_does_not_go_on_in_our_received_field(
    settings: Settings, running: Any, blank: bytes
) -> None:
    async def story() -> None:
        async with running(settings) as server:
            body = await sent(server, blank + LIE[1:])
            assert body.endswith(b"+0000\n\n" + blank + LIE[1:])
            assert email.message_from_bytes(body).keys() == ["Received"]

    asyncio.run(story())


def test_without_hooks_all_else_stays_as_it_came(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            for message in (b"From x\nSubject: y\n\nz\n", b"Subject: y\nno field\nA: b\n\nz\n", b"\nz\n"):
                assert (await sent(server, message)).endswith(b"+0000\n" + message)

    asyncio.run(story())


def test_no_field_is_hidden_behind_more_header_than_a_hook_can_read(settings: Settings, running: Any) -> None:
    padding = b"X-P: " + b"y" * 900 + b"\n"
    message = b"X-Virus: near\n" + padding * (READ // len(padding) + 1) + b"X-Virus: far\n\nhello\n"

    async def story() -> None:
        async with running(settings, [("reads", Reads())]) as server:
            client = await (await server.client()).hello()
            await client.data()
            client.writer.write(message.replace(b"\n", b"\r\n") + b".\r\n")
            assert await client.reply() == b"552 5.3.4 the header of the message is too large\r\n"
            assert server.queue.messages == []
            assert (await sent(server, b"X-Virus: near\n\nhello\n")).endswith(b"dkim=none\n\nhello\n")

    asyncio.run(story())


@pytest.mark.parametrize("first", [b" ; dkim=pass", b"From x", b": x"])
def test_no_line_hides_a_header_from_a_hook(settings: Settings, running: Any, first: bytes) -> None:
    hook = Reads()

    async def story() -> None:
        async with running(settings, [("reads", hook)]) as server:
            body = await sent(server, first + b"\nX-Virus: yes\n\nhello\n")
            assert hook.saw == b"" and hook.fields == []
            shown = email.message_from_bytes(body)
            assert shown.keys() == ["Received", "Authentication-Results"]
            assert shown["Authentication-Results"] == "mx.a.example; dkim=none"

            body = await sent(server, b"Subject: pay\n" + first + b"\nX-Virus: yes\n\nhello\n")
            shown = email.message_from_bytes(body)
            if first.startswith(b" "):
                assert shown.keys() == ["Received", "Authentication-Results", "Subject"]
            else:
                assert hook.saw == b"Subject: pay\n"
                assert shown.keys() == ["Received", "Authentication-Results", "Subject"]
                assert shown.get_payload() == first.decode() + "\nX-Virus: yes\n\nhello\n"

    asyncio.run(story())
