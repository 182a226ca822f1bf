"""What the store keeps to, in bytes and seconds."""

import msgspec

_MIB = 1024 * 1024


class Limits(msgspec.Struct, frozen=True):
    """What the store keeps to.  `segment`, `reserve` and `journal` in bytes; smaller on a small disk."""

    segment: int = 64 * _MIB
    reserve: int = 4 * _MIB
    journal: int = 1024 * _MIB
    memory: int = 32 * _MIB
    watermark: float = 0.10
    room_every: float = 1.0
    look_every: float = 30.0
    sweep_every: float = 86_400.0
