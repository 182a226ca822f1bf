"""The port by which hooks run programs: who asks is confined and may start none by itself."""

from asyncio import Future
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from openqmail.core.values import Body

OUTPUT = 256 * 1024
"""Bytes that a program may print on each of its two descriptors; what is more is thrown away."""


class ProgramResult(msgspec.Struct, frozen=True):
    """`code`: its exit code, negative for the signal that ended it; None when it has none, and then `why`
    says what happened: it could not be started, took too long, or nobody knows."""

    code: int | None
    output: bytes = b""
    errors: bytes = b""
    why: str = ""


class Programs(Protocol):
    """Served by local: programs run as the user of the process that asks, outside of its walls."""

    def run(
        self,
        argv: Sequence[bytes],
        stdin: "bytes | Body" = b"",
        env: Mapping[bytes, bytes] | None = None,
        timeout: float = 30.0,
    ) -> "Future[ProgramResult]":
        """Run `argv` (a path, then arguments) in the home, with this environment (none: PATH alone), its
        input from a pipe, and kill it after `timeout` seconds.  Never raises; the result says what went
        wrong."""
        ...
