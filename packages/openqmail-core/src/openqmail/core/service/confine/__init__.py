"""What keeps a process from what is not its job: uids, walls of paths, forbidden calls."""

from openqmail.core.service.confine.hardening import forgo_capabilities, harden, leave_terminal, limit_memory
from openqmail.core.service.confine.identity import become
from openqmail.core.service.confine.landlock import wall_in
from openqmail.core.service.confine.seccomp import forbid_calls
from openqmail.core.service.confine.walls import Walls, walls_of

__all__ = [
    "Walls",
    "become",
    "forbid_calls",
    "forgo_capabilities",
    "harden",
    "leave_terminal",
    "limit_memory",
    "wall_in",
    "walls_of",
]
