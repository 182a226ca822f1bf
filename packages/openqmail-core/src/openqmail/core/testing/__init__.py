"""A real MTA in a test: docs/testing.md shows how it is used."""

from openqmail.core.testing.errors import NotArrived, TestingError
from openqmail.core.testing.mail import Mail
from openqmail.core.testing.mta import Mta
from openqmail.core.testing.receiver import Accept, Answer, Drop, Receiver, Silence, Unreachable
from openqmail.core.testing.virtual import VirtualMta

__all__ = [
    "Accept",
    "Answer",
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
