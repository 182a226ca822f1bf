"""Which paths each process may reach, beyond what its uid says: the table, in one place.

Those that talk to strangers or hold everybody's mail have walls.  The supervisor, the spawner
and its workers have none: they start what users have in their .qmail files.  A path that is not
there is passed over; one that is replaced by a rename is found by its folder, so folders stand here.
"""

import os
import sys

import msgspec

from openqmail.core.control.home import Home

SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/dev/null",
    "/dev/urandom",
)
"""What any Python may read: shared libraries, the time, randomness."""

KERNEL = "/proc"
"""Where `remote` finds the addresses of this host, and `send` the kind of its file system.  All of it,
as /proc/net and /proc/self are links to the process, and a rule for what they lead to would not last;
other processes stay closed, since whoever is walled in may trace nobody outside."""

NETWORK = ("/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", KERNEL)
"""What `remote` reads: resolv.conf and where it may point to, hosts, certificates."""

RESOLVING = ("/etc/resolv.conf", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager")
"""What `smtpd` reads to ask about clients: which name servers there are.  It asks them by UDP alone, as it
may open no TCP connection."""


class Walls(msgspec.Struct, frozen=True):
    """Absolute paths.  `read`: below which it may read, and list; `write`: below which it may also
    make, write, rename and remove; `names`: below which it may list folders.  `connect`: whether it
    may open TCP connections, from any address of this host.  It may never bind a port of its choice,
    run a program, or signal anybody outside."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    connect: bool = False
    names: tuple[str, ...] = ()


def walls_of(role: str, home: Home) -> Walls | None:
    """The walls of smtpd, gate, send, remote or metrics; None for a role without."""
    found = {
        "smtpd": Walls(read=(home.control, home.users, *RESOLVING)),
        "gate": Walls(read=(home.control, home.users)),
        # The folder that the queue is in is synced when it is opened, for which it is listed; in /proc
        # stands which file system a folder is on.
        "send": Walls(read=(home.control, home.users, KERNEL), write=(home.queue,), names=(home.path,)),
        "metrics": Walls(),
        "remote": Walls(read=(home.control, *NETWORK), connect=True),
    }.get(role)
    if found is None:
        return None
    return msgspec.structs.replace(found, read=(*found.read, *_python(home), *SYSTEM))


def _python(home: Home) -> tuple[str, ...]:
    """Where this Python and its modules lie; nothing that the home itself is in, as the folder in
    which somebody said `python -m` may be."""
    libraries = {
        os.path.join(prefix, name)
        for prefix in (sys.prefix, sys.base_prefix)
        for name in ("lib", sys.platlibdir)
    }
    inside = os.path.realpath(home.path) + os.sep
    return tuple(
        path
        for path in sorted({*filter(None, sys.path), *libraries})
        if not inside.startswith(os.path.join(os.path.realpath(path), ""))
    )
