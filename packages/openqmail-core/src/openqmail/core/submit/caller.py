"""Who is at the other end of a Unix socket."""

import socket
import struct
from typing import Any

from openqmail.core.values import Origin

_NO_UID = 0xFFFFFFFF


def caller(connection: Any) -> Origin | None:
    """Who is at the other end of a Unix socket, by the kernel's word; None when it gives none.

    The BSDs tell no process id by this call: it is 0 then.  `connection`: anything with `getsockopt`.
    """
    try:
        if hasattr(socket, "SO_PEERCRED"):  # Linux: pid, uid, gid (unix(7))
            told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            pid, uid, _ = struct.unpack("iII", told)
            return Origin(uid, pid) if uid != _NO_UID else None
        if hasattr(socket, "LOCAL_PEERCRED"):  # BSD, macOS: a struct xucred, its version 0 and uid first
            version, uid = struct.unpack_from("II", connection.getsockopt(0, socket.LOCAL_PEERCRED, 128))
            return Origin(uid, 0) if version == 0 and uid != _NO_UID else None
    except (OSError, AttributeError, struct.error):
        return None
    return None
