"""The `.qmail` interpreter: from an address and what is in a home to a plan.  Pure."""

from openqmail.core.dotqmail.interpreter import interpret
from openqmail.core.dotqmail.plan import Delivery, DotFile, Look, Maildir, Mbox, Plan

__all__ = ["Delivery", "DotFile", "Look", "Maildir", "Mbox", "Plan", "interpret"]
