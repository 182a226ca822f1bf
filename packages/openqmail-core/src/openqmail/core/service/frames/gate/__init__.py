"""The port Gate as frames: leases of counters, rates that are spent, logins.

Near a limit the gate gives less ahead, and before it refuses anybody it calls back what others keep
(recalls.py).  Rates are spent ahead as well (purses.py), far from their limit.  A connection that is lost
gives back all its leases on the side of the gate; the client tells the next one what it holds, and asks
again what was unanswered.  Logins under way end with it (exchanges.py).
"""

from openqmail.core.service.frames.gate.client import GateClient
from openqmail.core.service.frames.gate.server import GateServer

__all__ = ["GateClient", "GateServer"]
