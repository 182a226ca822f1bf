"""What a delivery to a user of this host would do, step by step: nothing is carried out.

The steps are the interpreter's trail, and whether what it names could be written to.  To be called as
that user: whatever belongs to him is looked at with his own rights.
"""

import os

from openqmail.core.dotqmail import Mbox
from openqmail.core.local.deliveries import NO_MAILDIR, NOT_WRITTEN
from openqmail.core.local.home import check_home
from openqmail.core.local.mbox import not_regular
from openqmail.core.local.plans import absolute, plan_in
from openqmail.core.ports import Explanation, Step
from openqmail.core.values import Outcome, Result
from openqmail.core.world import Disk

_NOT_HIS = "this user cannot write to it"


def explain(disk: Disk, home: bytes, dash: bytes, ext: bytes, default: bytes) -> Explanation:
    """For an address that a user has as `dash` and `ext`; `default`: control/defaultdelivery."""
    checked = check_home(disk, home)
    if isinstance(checked, bytes):
        refusal = Result(Outcome.DEFERRAL, checked)
        return Explanation((Step(_shown(home), "nothing may be delivered there now"),), refusal)
    plan = plan_in(disk, home, dash, ext, default)
    trail = [Step(_shown(home), _shown(each)) for each in plan.trail]
    if plan.refusal is not None:
        return Explanation(tuple(trail), plan.refusal)
    result = Result(Outcome.SUCCESS, b"did %d+%d+0\n" % (len(plan.deliveries), len(plan.forwards)))
    for delivery in plan.deliveries:
        path = absolute(home, delivery.path)
        if isinstance(delivery, Mbox):
            text, trouble = _at_mbox(path, delivery.path)
        else:
            text, trouble = _at_maildir(path)
        if trouble is not None and result.outcome is Outcome.SUCCESS:
            result = trouble
        trail.append(Step(_shown(path), text))
    if not plan.deliveries and not plan.forwards:
        trail.append(Step(_shown(home), "mail is accepted and thrown away: the file asks for nothing"))
    return Explanation(tuple(trail), result, plan.forwards)


def _at_mbox(path: bytes, shown: bytes) -> tuple[str, Result | None]:
    """What is to be said of it, and what its delivery would say, when that cannot be made."""
    if os.path.exists(path) and not os.path.isfile(path):
        return "it is not a regular file", not_regular(shown)
    if os.path.exists(path):
        writable = _may(path, os.R_OK | os.W_OK)
    else:  # it is made where a symbolic link leads to
        writable = _may(os.path.dirname(os.path.realpath(path)), os.W_OK | os.X_OK)
    if writable:
        return "a message is put at the end of this mbox", None
    return _NOT_HIS, Result(Outcome.DEFERRAL, b"Unable to open %s. (#4.2.1)\n" % shown)


def _at_maildir(path: bytes) -> tuple[str, Result | None]:
    """The same of a Maildir."""
    if not os.path.isdir(path):
        return _NOT_HIS, NO_MAILDIR
    if not all(_may(path + name, os.W_OK | os.X_OK) for name in (b"tmp", b"new")):
        return _NOT_HIS, NOT_WRITTEN
    return "a message is put into this Maildir", None


def _may(path: bytes, what: int) -> bool:
    """As whoever this process acts as just now."""
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)


def _shown(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
