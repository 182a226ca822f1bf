"""Delivers to the users of this host."""

from openqmail.core.local.deliveries import LocalDeliveries

__all__ = ["LocalDeliveries"]
