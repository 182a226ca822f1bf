"""How much is too much."""

from openqmail.core.gate.local import Limits, LocalGate, limits_of

__all__ = ["Limits", "LocalGate", "limits_of"]
