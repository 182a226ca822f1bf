"""The recorded queues of a notqmail, unpacked for the user who runs the tests."""

import os
import tarfile

STATES = (
    "empty",
    "todo-one",
    "todo-three",
    "s1-pid-only",
    "s2-mess-no-intd",
    "s2-mess-half",
    "s3-intd-no-todo",
    "s3-intd-empty",
    "s4-crash-in-preprocessing",
    "preprocessed",
    "bounce-pending",
    "stopped",
    "double-bounce",
    "tcpto-one",
    "tcpto-two",
)
AT = 1_795_544_090
"""About when they were recorded, seconds UTC."""


def unpack(vectors, state, home):
    """The queue's folder, in `home`."""

    def ours(member, _):
        return member.replace(uid=os.getuid(), gid=os.getgid(), uname="", gname="", deep=False)

    with tarfile.open(vectors / "notqmail" / "queue" / f"{state}.tar.gz") as archive:
        archive.extractall(home, filter=ours)
    return os.fsencode(home / "queue")


def recorded_route(address):
    """As the control files of the recordings have it."""
    here = address.endswith((b"@example.test", b"@mail.example.test"))
    return ("local" if here else "remote"), address
