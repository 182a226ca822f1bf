"""What the interpreter is handed, and what it hands back."""

from collections.abc import Callable

import msgspec

from openqmail.core.values import Result


class DotFile(msgspec.Struct, frozen=True):
    """A `.qmail` file that is there.

    `executable`: its owner's x bit is set, so it may hold forwards only.  `problem`: why it
    may not be believed or could not be read, as the text of a deferral; else empty.
    """

    content: bytes
    executable: bool = False
    problem: bytes = b""


Look = Callable[[bytes], DotFile | None]
"""Answers for a name in the user's home (`.qmail-list-default`); None: no such regular file."""


class Maildir(msgspec.Struct, frozen=True):
    """`path` as the user wrote it, with its final slash: absolute, or relative to the home."""

    path: bytes


class Mbox(msgspec.Struct, frozen=True):
    """`path` of the file, as the user wrote it: absolute, or relative to the home (mbox(5))."""

    path: bytes


Delivery = Maildir | Mbox
"""The kinds of delivery that are carried out in the user's home."""


class Plan(msgspec.Struct, frozen=True):
    """What is to be done with a message, in this order: deliveries, then one forward to all of
    `forwards`.  A `refusal` stands instead of both.  `trail`: what was looked for and what
    decided, a sentence a step.
    """

    deliveries: tuple[Delivery, ...] = ()
    forwards: tuple[bytes, ...] = ()
    refusal: Result | None = None
    trail: tuple[bytes, ...] = ()
