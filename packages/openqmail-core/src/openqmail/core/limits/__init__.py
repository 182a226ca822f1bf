"""How often is too often: token buckets, lock-outs, and the network that a client belongs to.  Pure."""

from openqmail.core.limits.buckets import HOUR, Buckets
from openqmail.core.limits.lockouts import LOCK, WINDOW, Lockouts, pause
from openqmail.core.limits.network import network_of

__all__ = ["HOUR", "LOCK", "WINDOW", "Buckets", "Lockouts", "network_of", "pause"]
