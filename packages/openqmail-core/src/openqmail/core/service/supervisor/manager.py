"""A service manager's protocols: sd_notify(3), and sockets that were bound before (sd_listen_fds(3)).

Both are systemd's, spoken by others too; without their variables nothing is said or taken.
"""

import os
import socket
import time
from collections.abc import MutableMapping, Sequence
from contextlib import suppress

from openqmail.core.control.extensions import registered
from openqmail.core.control.settings import METRICS, Listener
from openqmail.core.control.text import shown
from openqmail.core.service.sockets import Bound, written
from openqmail.core.values import HomeError

_FIRST = 3


class Manager:
    """Whoever started us, if it told how to be spoken to."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._notify = environ.get("NOTIFY_SOCKET", "")
        self._given: list[tuple[str, socket.socket]] = []
        pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "0")
        names = environ.pop("LISTEN_FDNAMES", "").split(":")
        if pid == str(os.getpid()) and count.isdecimal():
            self._take(int(count), names)

    def sockets(self, wanted: Sequence[Listener]) -> Bound:
        """Those that were given, by the service that their name says (`FileDescriptorName=smtp`).

        One takes the place of a line of `control/listen` or `control/metrics` with its port and address, or
        without address.  Raises HomeError for a name that is no service."""
        bound: Bound = {}
        services = [*registered("openqmail.services"), METRICS]
        for service, given in self._given:
            host, port = given.getsockname()[:2]
            if service not in services:
                raise HomeError(
                    f"the socket {written(host, port)} from systemd is named '{shown(service)}', which is no "
                    f"service; say FileDescriptorName= in its unit, with one of: {', '.join(services)}"
                )
            places = [one for one in wanted if (one.service, one.port) == (service, port)]
            fits = [one for one in places if one.host in (host, "")]
            alone = Listener(service, host, port, kind="metrics" if service == METRICS else "service")
            bound.setdefault(fits[0] if fits else alone, []).append(given)
        return bound

    def tell(self, state: str) -> None:
        """One datagram; a manager that does not listen is none."""
        if not self._notify:
            return
        address = "\0" + self._notify[1:] if self._notify.startswith("@") else self._notify
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(state.encode(), address)

    def reloading(self) -> None:
        self.tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def _take(self, count: int, names: list[str]) -> None:
        for index in range(count):
            os.set_inheritable(_FIRST + index, False)
            given = socket.socket(fileno=_FIRST + index)
            name = names[index] if index < len(names) else ""
            if given.family in (socket.AF_INET, socket.AF_INET6):
                given.setblocking(False)
                self._given.append((name or "smtp", given))
            else:
                given.close()
