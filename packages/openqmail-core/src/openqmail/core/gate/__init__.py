"""How much is too much, and who is who."""

from openqmail.core.gate.authentication import Authentication
from openqmail.core.gate.back_ends import BackEnds
from openqmail.core.gate.gatehouse import Gatehouse
from openqmail.core.gate.guard import Guard
from openqmail.core.gate.local import Limits, LocalGate, limits_of

__all__ = ["Authentication", "BackEnds", "Gatehouse", "Guard", "Limits", "LocalGate", "limits_of"]
