"""The identity of a queued message."""

import msgspec


class MessageId(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`number` is what logs and people use; `key` (24 bytes) never occurs twice, even
    when a number does, and is what file names of a delivery are derived from."""

    number: int
    key: bytes
