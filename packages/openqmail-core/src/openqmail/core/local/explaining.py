"""What a delivery to a user of this host would do, step by step: nothing is carried out.

The steps are the interpreter's trail, and whether what it names could be written to.  To be called as
that user: whatever belongs to him is looked at with his own rights.
"""

import os

from openqmail.core.dotqmail import Mbox, Plan
from openqmail.core.local.deliveries import NO_MAILDIR, NOT_WRITTEN
from openqmail.core.local.home import check_home
from openqmail.core.local.plans import absolute, plan_in
from openqmail.core.ports import Explanation, Step
from openqmail.core.values import Outcome, Result
from openqmail.core.world import Disk


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
    for place, mbox, trouble in _boxes(home, plan):
        text = "a message is put at the end of this mbox" if mbox else "a message is put into this Maildir"
        if trouble is not None and result.outcome is Outcome.SUCCESS:
            result = trouble
        trail.append(Step(_shown(place), text if trouble is None else "this user cannot write to it"))
    if not plan.deliveries and not plan.forwards:
        trail.append(Step(_shown(home), "mail is accepted and thrown away: the file asks for nothing"))
    return Explanation(tuple(trail), result, plan.forwards)


def _boxes(home: bytes, plan: Plan) -> "list[tuple[bytes, bool, Result | None]]":
    """Each place, whether it is an mbox, and what its delivery would say, when that cannot be made."""
    found: list[tuple[bytes, bool, Result | None]] = []
    for delivery in plan.deliveries:
        path = absolute(home, delivery.path)
        if isinstance(delivery, Mbox):
            place = path if os.path.lexists(path) else os.path.dirname(path)
            refused = Result(Outcome.DEFERRAL, b"Unable to open %s. (#4.2.1)\n" % delivery.path)
            found.append((path, True, None if _may(place, os.W_OK) else refused))
            continue
        there = os.path.isdir(path)
        writable = all(_may(path + name, os.W_OK | os.X_OK) for name in (b"tmp", b"new"))
        trouble = None if there and writable else NOT_WRITTEN if there else NO_MAILDIR
        found.append((path, False, trouble))
    return found


def _may(path: bytes, what: int) -> bool:
    """As whoever this process acts as just now."""
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)


def _shown(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
