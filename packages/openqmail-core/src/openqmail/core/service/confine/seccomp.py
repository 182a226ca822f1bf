"""A seccomp filter where pyseccomp is installed (`openqmail-core[seccomp]`): calls that fail with EPERM.

A second wall for the processes that strangers talk to: none of these calls is of any use to them.
Without the library uids and Landlock hold; only `openqmail check` speaks of it.  The library is
looked for when this module is imported, by root: whoever the process becomes may not reach it.
"""

import errno
import importlib
from typing import Any

ROLES = ("smtpd", "gate", "remote", "metrics")

FORBIDDEN = (
    *("execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "userfaultfd", "bpf"),
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module"),
    *("mount", "umount2", "pivot_root", "move_mount", "open_tree", "mount_setattr"),
    *("fsopen", "fsconfig", "fsmount", "unshare", "setns", "chroot"),
    *("perf_event_open", "add_key", "request_key", "keyctl"),
)


def _library() -> Any:
    try:
        return importlib.import_module("pyseccomp")
    except (ImportError, OSError, RuntimeError):  # the last two: it is there, libseccomp is not
        return None


_seccomp = _library()


def forbid_calls(role: str) -> None:
    """Forbid them to this thread and all that it starts, when it has such a role; last of all, as
    nothing can be loaded that needs them.  Raises OSError."""
    if _seccomp is None or role not in ROLES:
        return
    calls = _seccomp.SyscallFilter(_seccomp.ALLOW)
    for name in FORBIDDEN:
        number = _seccomp.resolve_syscall(_seccomp.Arch.NATIVE, name)
        if number >= 0:  # else this machine has no such call, or libseccomp does not know it
            calls.add_rule(_seccomp.ERRNO(errno.EPERM), number)
    calls.load()


def lacking() -> str | None:
    """A sentence where there is no filter."""
    if _seccomp is not None:
        return None
    return "pyseccomp is not there, so no system calls are forbidden: pip install 'openqmail-core[seccomp]'"
