"""A child that does something, for good, and tells what came of it."""

import json
import os
from collections.abc import Callable

Tell = Callable[[dict[str, str]], None]


def told_by_child(live: Callable[[Tell, int], object]) -> dict[str, str]:
    """What `live(tell, descriptor)` tells in a child; the descriptor is what `tell` writes to.  Whatever
    it raises is the test's failure."""
    reader, writer = os.pipe()

    def tell(found: dict[str, str]) -> None:
        os.write(writer, json.dumps(found).encode())

    child = os.fork()
    if not child:
        try:
            live(tell, writer)
        except BaseException as error:
            tell({"raised": repr(error)})
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    found: dict[str, str] = json.loads(said)
    assert "raised" not in found, found
    return found
