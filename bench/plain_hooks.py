"""Hooks that have a say and no opinion, so that only being asked is measured; an add-on that needs no build.

`install` puts this very file and its entry points into a folder, for the `PYTHONPATH` of a service.
"""

import shutil
from pathlib import Path

COUNT = 10
_ABOUT = "Metadata-Version: 2.1\nName: plain-hooks\nVersion: 1\n"


class Plain:
    """Every step but the two that see a message as it comes.  What it is given nobody looks at."""

    def __init__(self, context: object) -> None: ...

    def connect(self, session: object) -> None: ...

    def helo(self, session: object, name: object) -> None: ...

    def auth(self, session: object, identity: object) -> None: ...

    def mail(self, session: object, sender: object) -> None: ...

    def rcpt(self, session: object, recipient: object) -> None: ...

    def data(self, session: object, envelope: object) -> None: ...

    def message(self, session: object, envelope: object, body: object, edits: object) -> None: ...

    def reset(self, session: object, why: object) -> None: ...


class Listening(Plain):
    """And those two."""

    def header(self, session: object, field: object) -> None: ...

    def chunk(self, session: object, data: object) -> None: ...


def names(kind: type[Plain]) -> list[str]:
    """What `control/hooks` names for so many of a kind."""
    return [f"{kind.__name__.lower()}-{number}" for number in range(COUNT)]


def install(folder: Path) -> None:
    about = folder / "plain_hooks-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(_ABOUT)
    points = [
        f"{name} = plain_hooks:{kind.__name__}\n" for kind in (Plain, Listening) for name in names(kind)
    ]
    (about / "entry_points.txt").write_text("[openqmail.hooks]\n" + "".join(points))
    shutil.copy(__file__, folder / "plain_hooks.py")
