"""A program of a user who wants to know: everything that it can reach, as JSON in its home.

`hostile_program.py look|kill ROOM HOME PID...`: looks at all below ROOM, at the sockets of the home
and at these processes, or kills whoever started it.  Runs under any Python 3, and needs nothing.
"""

import ctypes
import errno
import json
import os
import signal
import socket
import sys

_libc = ctypes.CDLL(None, use_errno=True)


def tried(act, *given):
    try:
        act(*given)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"


def opened(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags | os.O_NONBLOCK))


def connect(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)


def trace(pid):
    if _libc.ptrace(ctypes.c_long(0x4206), ctypes.c_long(pid), None, None) < 0:  # PTRACE_SEIZE
        raise OSError(ctypes.get_errno(), "")


def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink("/proc/self/fd/" + name)
        except OSError:  # that of the listing
            continue
    return found


def paths(room):
    """What can be read, and what can be changed."""
    readable, writable = [], []
    for folder, _, files in os.walk(room):
        if tried(opened, folder) == "done":
            readable.append(folder)
        if os.access(folder, os.W_OK):
            writable.append(folder)
        for path in (os.path.join(folder, name) for name in files):
            if tried(opened, path) == "done":
                readable.append(path)
            if tried(opened, path, os.O_WRONLY) == "done":
                writable.append(path)
    return {"readable": readable, "writable": writable}


def process(pid):
    at = f"/proc/{pid}/"
    return {
        "signal": tried(os.kill, pid, 0),
        "trace": tried(trace, pid),
        "memory": tried(opened, at + "mem"),
        "environment": tried(opened, at + "environ"),
        "maps": tried(lambda: open(at + "maps").read()),
        "descriptors": tried(os.listdir, at + "fd"),
        "root": tried(os.readlink, at + "root"),
    }


def look(room, home, pids):
    found = {"descriptors": descriptors(), "message": os.fstat(0).st_size, "parent": os.getppid()}
    found["ids"] = [os.getresuid(), os.getresgid(), os.getgroups()]
    found["paths"] = paths(room)
    found["sockets"] = {name: tried(connect, os.path.join(home, "run", name)) for name in ("admin", "submit")}
    found["processes"] = {pid: process(pid) for pid in {*pids, os.getppid()}}
    with open("report.new", "w") as report:
        json.dump(found, report)
    os.rename("report.new", "report")


def main(verb, room, home, *pids):
    if verb == "kill":
        os.kill(os.getppid(), signal.SIGKILL)
    else:
        look(room, home, [int(pid) for pid in pids])


if __name__ == "__main__":
    main(*sys.argv[1:])
