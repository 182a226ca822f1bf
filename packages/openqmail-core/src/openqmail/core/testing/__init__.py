"""A real MTA in a test: docs/testing.md shows how it is used.

Names are imported when they are asked for: pytest imports this package in each of its runs, for
the plugin, and most of those make no MTA.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openqmail.core.testing.aio import AsyncMta
    from openqmail.core.testing.errors import NotArrived, TestingError
    from openqmail.core.testing.mail import Mail
    from openqmail.core.testing.mta import Mta
    from openqmail.core.testing.receiver import Accept, Answer, Drop, Receiver, Silence, Unreachable
    from openqmail.core.testing.virtual import VirtualMta

__all__ = [
    "Accept",
    "Answer",
    "AsyncMta",
    "Drop",
    "Mail",
    "Mta",
    "NotArrived",
    "Receiver",
    "Silence",
    "TestingError",
    "Unreachable",
    "VirtualMta",
]

_PLACES = {
    "AsyncMta": "aio",
    "Mail": "mail",
    "Mta": "mta",
    "NotArrived": "errors",
    "TestingError": "errors",
    "VirtualMta": "virtual",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES.get(name, 'receiver')}"), name)
