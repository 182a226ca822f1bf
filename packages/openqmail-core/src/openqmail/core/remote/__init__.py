"""Mail to other hosts: where it goes, and the way there."""

from openqmail.core.remote.directions import Directions, Pathfinder, find_route
from openqmail.core.remote.keys import Keys
from openqmail.core.remote.lmtp import LmtpTransport
from openqmail.core.remote.own import own_addresses
from openqmail.core.remote.remote import Remote
from openqmail.core.remote.smtp import SmtpTransport
from openqmail.core.remote.tcpto import Timeouts
from openqmail.core.remote.transport import Source, Stop, Transport, TransportFactory

__all__ = [
    "Directions",
    "Keys",
    "LmtpTransport",
    "Pathfinder",
    "Remote",
    "SmtpTransport",
    "Source",
    "Stop",
    "Timeouts",
    "Transport",
    "TransportFactory",
    "find_route",
    "own_addresses",
]
