"""How much is too much."""

from openqmail.core.gate.local import LocalGate

__all__ = ["LocalGate"]
