"""Only CRLF "." CRLF ends a message: whatever else peers have taken for it never does.

Each form stands between a message and commands that a smuggler would like to see obeyed.
Either the form is text of the message, or the session ends; the commands are never heard.
"""

import pytest

from false_ends import FALSE_ENDS
from openqmail.core.smtp import Offer, ServerSession, events

OFFER = Offer(name=b"mx.test", size=0, max_recipients=100, timeout=300.0)
SMUGGLED = b"MAIL FROM:<evil@x>\r\nRCPT TO:<victim@x>\r\nDATA\r\nforged\r\n.\r\n"

TEXT = [
    b"\r\n..\r\n",
    b"\r\n. \r\n",
    b"\r\n .\r\n",
    b"\r\n.\t\r\n",
    b"\r\n.\xa0\r\n",
    b"\r\n.\x85\r\n",
    b"\r\n...\r\n",
    b"\r\n.x\r\n",
    b"\r\n.=0D=0A\r\n",
    b".\r\n.x",
]


def session(wire: bytes, step: int) -> tuple[list[events.Event], bytes]:
    machine = ServerSession(OFFER)
    machine.accept()
    found: list[events.Event] = []
    for i in range(0, len(wire), step):
        machine.receive_data(wire[i : i + step])
        while not isinstance(event := machine.next_event(), events.NeedData):
            found.append(event)
            machine.accept()
    return found, machine.data_to_send()


def begin(form: bytes) -> bytes:
    return b"EHLO c\r\nMAIL FROM:<s@x>\r\nRCPT TO:<r@x>\r\nDATA\r\nhello" + form + SMUGGLED


@pytest.mark.parametrize("step", [1, 5, 10_000])
@pytest.mark.parametrize("form", FALSE_ENDS)
def test_a_false_end_ends_the_session(form: bytes, step: int) -> None:
    found, said = session(begin(form), step)
    assert isinstance(found[-1], events.Aborted)
    assert [e for e in found if isinstance(e, events.Mail)] == [events.Mail(b"s@x")]
    assert not any(isinstance(e, events.MessageEnd) for e in found)
    assert b"\r\n554 5.6.0 " in said


@pytest.mark.parametrize("step", [1, 5, 10_000])
@pytest.mark.parametrize("form", TEXT)
def test_what_looks_like_an_end_is_text(form: bytes, step: int) -> None:
    found, _ = session(begin(form), step)
    assert [e for e in found if isinstance(e, events.Mail)] == [events.Mail(b"s@x")]
    assert sum(isinstance(e, events.MessageEnd) for e in found) == 1
    body = b"".join([e.data for e in found if isinstance(e, events.Chunk)])
    assert b"MAIL FROM:<evil@x>\n" in body and body.endswith(b"forged\n")


@pytest.mark.parametrize("step", [1, 5, 10_000])
def test_the_true_end_is_an_end(step: int) -> None:
    found, _ = session(begin(b"\r\n.\r\n"), step)
    assert sum(isinstance(e, events.MessageEnd) for e in found) == 2
