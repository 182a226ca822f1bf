"""The senders of VERP: who is shown which, and where bounces go."""

import pytest

from openqmail.core.send.routing import bounce_sender, sender_for


@pytest.mark.parametrize(
    ("sender", "recipient", "shown", "bounce"),
    [
        (b"list-@host-@[]", b"user@domain", b"list-user=domain@host", b"list-@host"),
        (b"list-@host-@[]", b"noat", b"list-@host-@[]", b"list-@host"),
        (b"list-@host", b"user@domain", b"list-@host", b"list-@host"),
        (b"noat-@[]", b"user@domain", b"noat-@[]", b"noat"),
        (b"#@[]", b"user@domain", b"#@[]", b"#@[]"),
        (b"", b"user@domain", b"", b""),
    ],
)
def test_senders(sender: bytes, recipient: bytes, shown: bytes, bounce: bytes) -> None:
    assert sender_for(sender, recipient) == shown
    assert bounce_sender(sender) == bounce
