"""The processes: introduces the jobs to each other and runs them for one home."""

from openqmail.core.service.run import run

__all__ = ["run"]
