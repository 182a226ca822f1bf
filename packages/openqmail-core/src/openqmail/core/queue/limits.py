"""What the store keeps to, in bytes, seconds and numbers of messages."""

import msgspec

_MIB = 1024 * 1024


class Limits(msgspec.Struct, frozen=True):
    """What the store keeps to.  `segment`, `reserve` and `journal` in bytes; smaller on a small disk.
    `numbers`: free ones that there should be at any time."""

    segment: int = 64 * _MIB
    reserve: int = 4 * _MIB
    journal: int = 1024 * _MIB
    memory: int = 32 * _MIB
    watermark: float = 0.10
    room_every: float = 1.0
    look_every: float = 30.0
    sweep_every: float = 86_400.0
    numbers: int = 256
