"""Networks of a test's own: two hosts with a cable between them, made of network namespaces.

`Cable` makes "here", where the test and all that it starts are while it is entered, and "there",
where sockets are made by `with cable.there():`.  A socket stays in the network in which it was
made, so one thread may serve in both.  Nothing of the machine's own network is seen or changed,
and all of it is gone with the last descriptor.  Linux, root, and iproute2.
"""

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from types import TracebackType

_CLONE_NEWNET = 0x40000000
_CURRENT = "/proc/thread-self/ns/net"

HERE4, HERE6 = ("10.77.0.1", "10.77.0.2", "10.77.0.3"), ("fd77::1", "fd77::2", "fd77::3")
THERE4, THERE6 = "10.77.0.10", "fd77::10"
SILENT4, SILENT6 = "10.88.0.1", "fd88::1"
"""The way there leads over the other host, which passes nothing on and says nothing."""

_libc = ctypes.CDLL(None, use_errno=True)


def why_not() -> str | None:
    """The reason why there can be no such network here, if there is one."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root of a Linux makes network namespaces"
    try:
        with Cable():
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network can be made here: {error}"


class Cable:
    """Enter it in the thread that starts what is to be "here"; leave it in the same."""

    def __enter__(self) -> "Cable":
        with contextlib.ExitStack() as undone:
            self._before = os.open(_CURRENT, os.O_RDONLY | os.O_CLOEXEC)
            undone.callback(self.__exit__, None, None, None)
            self._there = self._here = -1
            self._there = _made()
            self._here = _made()
            other = f"/proc/{os.getpid()}/fd/{self._there}"
            _ip("link set lo up")
            _ip(f"link add one type veth peer name two netns {other}")
            for address in HERE4:
                _ip(f"addr add {address}/24 dev one")
            for address in HERE6:
                _ip(f"addr add {address}/64 dev one nodad")
            _ip("link set one up")
            with self.there():
                _ip("link set lo up")
                _ip(f"addr add {THERE4}/24 dev two")
                _ip(f"addr add {THERE6}/64 dev two nodad")
                _ip("link set two up")
                # What is not for it goes nowhere, and nobody is told.
                _ip(f"route add blackhole {SILENT4}/32")
                _ip(f"-6 route add blackhole {SILENT6}/128")
            _ip(f"route add {SILENT4}/32 via {THERE4}")
            _ip(f"-6 route add {SILENT6}/128 via {THERE6}")
            undone.pop_all()
        return self

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        """This thread is in the other network meanwhile."""
        _enter(self._there)
        try:
            yield
        finally:
            _enter(self._here)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        _enter(self._before)
        for descriptor in (self._before, self._there, self._here):
            if descriptor >= 0:
                os.close(descriptor)


def _made() -> int:
    """This thread is in a new network; its descriptor."""
    if _libc.unshare(_CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")
    return os.open(_CURRENT, os.O_RDONLY | os.O_CLOEXEC)


def _enter(network: int) -> None:
    if _libc.setns(network, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)
