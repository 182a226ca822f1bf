"""`openqmail`, whose workers start a program for mail to NAME-program: a double for those of `.qmail` files.

It starts it as they will be started: by the worker, as its user, in the user's home, the message as
descriptor 0, a pipe as 1 and 2.  It closes nothing else, so whatever the worker has left open for
programs is found.  OQT_PROGRAM: the command; what it says is the report.
"""

import json
import os
import pwd
import sys

from openqmail.core.commands.main import main
from openqmail.core.local import deliveries
from openqmail.core.local.plans import Task
from openqmail.core.ports import LocalJob, LocalReport
from openqmail.core.values import Outcome, Result

EXTENSION = b"-program@"
COMMAND: list[str] = json.loads(os.environ.get("OQT_PROGRAM", "[]"))

_carry_out = deliveries.LocalDeliveries._carry_out


def carry_out(self: deliveries.LocalDeliveries, job: LocalJob, task: Task) -> LocalReport:
    if EXTENSION not in job.recipient:
        return _carry_out(self, job, task)
    message = os.memfd_create("message")
    for chunk in job.body.chunks():
        os.write(message, chunk)
    os.lseek(message, 0, os.SEEK_SET)
    said, told = os.pipe()
    child = os.fork()
    if not child:
        os.chdir(pwd.getpwuid(os.getuid()).pw_dir)
        for number, descriptor in enumerate((message, told, told)):
            os.dup2(descriptor, number)
        os.execve(COMMAND[0], COMMAND, {"PATH": "/usr/bin:/bin"})
    os.close(message)
    os.close(told)
    with os.fdopen(said, "rb") as output:
        text = output.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return LocalReport(Result(Outcome.FAILURE if code else Outcome.SUCCESS, text[-500:] or b"did 0+0+1\n"))


if __name__ == "__main__":
    deliveries.LocalDeliveries._carry_out = carry_out  # type: ignore[method-assign]
    sys.exit(main())
