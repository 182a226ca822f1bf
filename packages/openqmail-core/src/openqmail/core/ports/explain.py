"""How it comes that mail goes where it goes: steps that a person can follow, and how it ends."""

import msgspec

from openqmail.core.values import Result


class Step(msgspec.Struct, frozen=True):
    """`what`: the place that was looked at (`control/locals line 3`); `text`: what it says.

    Bytes beyond UTF-8 as \\xNN."""

    what: str
    text: str


Trail = tuple[Step, ...]


class Explanation(msgspec.Struct, frozen=True):
    """`result`: what a delivery would be told now, as far as it can be known beforehand: a SUCCESS is
    that it would be tried.  None: nobody can tell.  `forwards`: to whom it would go on.  `late`: only
    the delivery itself meets the trouble of the result, a check of the recipient does not."""

    trail: Trail
    result: Result | None = None
    forwards: tuple[bytes, ...] = ()
    late: bool = False
