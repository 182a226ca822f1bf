"""What a client of the gate and the gate say to each other: frames of leases and of rates that are spent.

Those of logins are in exchanges.py.
"""

from typing import Annotated

import msgspec

from openqmail.core.service.frames.codec import understand
from openqmail.core.service.frames.gate.exchanges import FromGate, ToGate

Some = Annotated[int, msgspec.Meta(ge=1)]


class Lease(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """`count`: what somebody waits for, of which as much is given as there is; `ahead`: as many more are
    welcome, and nobody is asked to give them back for it."""

    id: int
    counter: bytes
    count: Annotated[int, msgspec.Meta(ge=0)]
    ahead: Annotated[int, msgspec.Meta(ge=0)]


class Release(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    counter: bytes
    count: Some


class Held(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """So much was leased from a gate that is gone: it counts here, also beyond the limit."""

    counter: bytes
    count: Some


class Spend(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """`ahead`: so many more are welcome."""

    id: int
    rate: bytes
    key: bytes
    count: Some
    ahead: Annotated[int, msgspec.Meta(ge=0)] = 0


class Recalled(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """What was not in use has been given back."""

    counter: bytes


class Refund(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """So many of what was spent ahead will not be wanted."""

    rate: bytes
    key: bytes
    count: Some


ToServer = Lease | Release | Held | Spend | Recalled | Refund | ToGate


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """`ahead`: so many more were spent."""

    id: int
    yes: bool
    ahead: int = 0


class Leased(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """So many; what is beyond those that were waited for may be kept at hand."""

    id: int
    count: int


class Recall(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Give back what is not in use, and keep nothing until something is given ahead again."""

    counter: bytes


ToClient = Answer | Leased | Recall | FromGate

understand(ToServer, ToClient)
