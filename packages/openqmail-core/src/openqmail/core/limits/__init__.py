"""How often is too often: token buckets, and the network that a client belongs to.  Pure."""

from openqmail.core.limits.buckets import HOUR, Buckets
from openqmail.core.limits.network import network_of

__all__ = ["HOUR", "Buckets", "network_of"]
