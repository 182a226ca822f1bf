"""What a delivery to a user of this host would do, step by step: nothing is carried out.

The steps are the interpreter's trail, and whether what it names could be written to.  To be called as
that user: whatever belongs to him is looked at with his own rights.
"""

import errno
import fcntl
import os
import stat

from openqmail.core.dotqmail import Mbox
from openqmail.core.local.deliveries import NO_MAILDIR, NOT_WRITTEN
from openqmail.core.local.home import check_home, word_of
from openqmail.core.local.mbox import LOCKED, PATIENCE, not_regular, unable
from openqmail.core.local.plans import absolute, plan_in
from openqmail.core.log.escaping import readable
from openqmail.core.ports import Explanation, Step
from openqmail.core.values import Outcome, Result
from openqmail.core.world import Disk

_NOT_HIS = "this user cannot write to it"
_AT_ITS_END = "a message is put at the end of this mbox"
_DENIED = PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def explain(disk: Disk, home: bytes, dash: bytes, ext: bytes, default: bytes) -> Explanation:
    """For an address that a user has as `dash` and `ext`; `default`: control/defaultdelivery."""
    checked = check_home(disk, home)
    if isinstance(checked, bytes):
        refusal = Result(Outcome.DEFERRAL, checked)
        return Explanation((Step(readable(home), "nothing may be delivered there now"),), refusal)
    plan = plan_in(disk, home, dash, ext, default)
    trail = [Step(readable(home), readable(each)) for each in plan.trail]
    if plan.refusal is not None:
        return Explanation(tuple(trail), plan.refusal)
    result = Result(Outcome.SUCCESS, b"did %d+%d+0\n" % (len(plan.deliveries), len(plan.forwards)))
    late = False
    for delivery in plan.deliveries:
        path = absolute(home, delivery.path)
        if isinstance(delivery, Mbox):
            text, trouble = _at_mbox(path, delivery.path)
        else:
            text, trouble = _at_maildir(path)
        if trouble is not None and result.outcome is Outcome.SUCCESS:
            result, late = trouble, True
        trail.append(Step(readable(path), text))
    if not plan.deliveries and not plan.forwards:
        trail.append(Step(readable(home), "mail is accepted and thrown away: the file asks for nothing"))
    return Explanation(tuple(trail), result, plan.forwards, late)


def _at_mbox(path: bytes, shown: bytes) -> tuple[str, Result | None]:
    """What is to be said of it, and what its delivery would say, when that cannot be made."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return _at_new_mbox(path, shown)
    except OSError as error:
        return _no_way(error), unable(b"open", shown, error)
    if not stat.S_ISREG(mode):
        slash = "; only with a / at its end a line names a Maildir" if stat.S_ISDIR(mode) else ""
        return f"it is not a regular file{slash}", not_regular(shown)
    if not _may(path, os.R_OK | os.W_OK):
        return _NOT_HIS, unable(b"open", shown, _DENIED)
    if _is_locked(path):
        return f"another program has it locked just now: mail waits for that, {PATIENCE:.0f} seconds", LOCKED
    return _AT_ITS_END, None


def _at_new_mbox(path: bytes, shown: bytes) -> tuple[str, Result | None]:
    """It is made where a symbolic link leads to."""
    folder = os.path.dirname(os.path.realpath(path))
    try:
        os.stat(folder + b"/.")
    except OSError as error:
        return f"it is not there, and {readable(folder)}: {_no_way(error)}", unable(b"open", shown, error)
    if not _may(folder, os.W_OK | os.X_OK):
        return f"it is not there, and this user cannot write to {readable(folder)}", unable(
            b"open", shown, _DENIED
        )
    return _AT_ITS_END, None


def _at_maildir(path: bytes) -> tuple[str, Result | None]:
    """The same of a Maildir."""
    for name in (b"", b"tmp", b"new"):
        try:
            os.stat(path + name + b"/.")
        except OSError as error:
            where = f"{readable(name)}/ in it: " if name else ""
            return where + _no_way(error), NOT_WRITTEN if name else NO_MAILDIR
        if name and not _may(path + name, os.W_OK | os.X_OK):
            return f"this user cannot write to {readable(name)}/ in it", NOT_WRITTEN
    return "a message is put into this Maildir", None


def _no_way(error: OSError) -> str:
    """Why a path leads nowhere."""
    if error.errno == errno.ENOENT:
        return "it is not there"
    if error.errno == errno.ENOTDIR:
        return "it is not a folder, or is in none"
    return f"this user cannot get there: {word_of(error).decode()}"


def _is_locked(path: bytes) -> bool:
    """By another; a shared lock that is had for a moment keeps no reader out."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _may(path: bytes, what: int) -> bool:
    """As whoever this process acts as just now."""
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)
