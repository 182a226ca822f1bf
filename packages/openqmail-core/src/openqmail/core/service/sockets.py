"""The sockets of a home that listen: bound by whoever starts the others, used by them.

TCP by `control/listen`, and two in `run/`: `admin` for the owner, `submit` for programs of this
host.  A socket that was there before the start (systemd's LISTEN_FDS) takes the place of one.
"""

import os
import socket
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from errno import EACCES, EDQUOT, ENOSPC
from typing import Any

from openqmail.core.control.home import Home
from openqmail.core.control.settings import Listener
from openqmail.core.values import ControlError, HomeError, TemporaryFailure

BACKLOG = 1024
"""Connections that may wait to be accepted; the kernel has a limit of its own."""

KEPT: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""For asyncio's servers on Unix sockets: who serves an inherited one does not unlink it at his end,
as Python does of itself since 3.13; others serve it too, or will."""

Bound = dict[Listener, list[socket.socket]]


def bind(wanted: Iterable[Listener], have: Bound) -> Bound:
    """What is wanted, taken from what there is or made; all or nothing.  Raises ControlError.

    A socket is the same whatever the options of its line."""
    bound: Bound = {}
    fresh: list[socket.socket] = []
    there = {one.place: some for one, some in have.items()}
    for listener in wanted:
        if listener.place in there:
            bound[listener] = there[listener.place]
            continue
        try:
            bound[listener] = _listening(listener)
        except OSError as error:
            for one in fresh:
                one.close()
            where = written(listener.host, listener.port)
            file = "control/metrics" if listener.kind == "metrics" else "control/listen"
            where = where if listener.kind == "metrics" else f"{listener.service} {where}"
            why = f"cannot listen on `{where}`: {os.strerror(error.errno or 0)}"
            remedy = "change the line, or stop what has the port"
            if error.errno == EACCES:
                remedy = "ports below 1024 are root's: docs/running.md has three ways to one"
            raise ControlError(file, 0, f"{why}; {remedy}") from None
        fresh += bound[listener]
    return bound


def with_given(bound: Bound, given: Bound) -> Bound:
    """With those of `given` that no line names."""
    named = {one.place for one in bound}
    return bound | {one: some for one, some in given.items() if one.place not in named}


def addresses(bound: Bound) -> list[tuple[str, str]]:
    """(service, address:port) of each socket, with the port that the kernel chose for 0."""
    found = [(listener.service, one.getsockname()) for listener, some in bound.items() for one in some]
    return [(service, written(*name[:2])) for service, name in found]


def written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind_local(home: Home, name: str, mode: int) -> socket.socket:
    """A Unix socket in `run/`; what an earlier process left there is replaced.  Raises HomeError,
    TemporaryFailure where the disk is full.

    The lock of the home must be held."""
    path = os.path.join(home.run, name)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~mode)
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise HomeError(f"{path}: is not a socket of ours; remove it")
            os.unlink(path)
        opened.setblocking(False)
        opened.bind(path)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        why = f"{home.run}: cannot listen there for commands: {error.strerror or error}"
        if error.errno in (ENOSPC, EDQUOT):
            raise TemporaryFailure(f"{why}; make room there, and try again") from None
        raise HomeError(f"{why}; mend its mode") from None
    except HomeError:
        opened.close()
        raise
    finally:
        os.umask(before)
    return opened


def unlink_local(home: Home, *names: str) -> None:
    for name in names:
        with suppress(OSError):
            os.unlink(os.path.join(home.run, name))


def _listening(listener: Listener) -> list[socket.socket]:
    """One, or one a family where no host is named.  Raises OSError."""
    hosts = (
        [listener.host]
        if listener.host
        else ["0.0.0.0", "::"]
        if socket.has_dualstack_ipv6()
        else ["0.0.0.0"]
    )
    opened: list[socket.socket] = []
    try:
        for host in hosts:
            opened.append(_listening_socket(host, listener.port))
    except OSError:
        for one in opened:
            one.close()
        raise
    return opened


def _listening_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.setblocking(False)
        opened.bind((host, port))
        opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened
