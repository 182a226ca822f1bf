"""The end of a simulated process."""


class PowerCut(BaseException):
    """From now on nothing of this process happens any more.

    No Exception: nothing that handles errors may handle this one."""
