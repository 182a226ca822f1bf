"""`simulate.py --seeds N [--first S] [--seed S] [--failing SHARE]`: many histories, each from its own seed.

A seed that fails, or takes longer than a minute, is printed with its history, and with the command
that plays it again.
"""

import argparse
import signal
import sys
import time
import traceback

from story import tell

from progress import Progress

LIMIT = 60.0
"""Seconds that a history may take; they take a tenth of one."""
AGAIN = 10.0
"""Seconds after which it is said again, should somebody have caught it."""


class Hung(BaseException):
    """No Exception: what is played handles those."""


def hung(*_):
    raise Hung(f"it hung, and was stopped after {LIMIT:.0f} s")


def within_the_limit(seed, failing):
    """Raises AssertionError, Hung; both have the story."""
    signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, LIMIT, AGAIN)
    try:
        return tell(seed, failing)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def said(error):
    """What went wrong, in which story, and where in the code."""
    where = traceback.extract_tb((error.__cause__ or error).__traceback__)[-1]
    return "\n".join((str(error), *getattr(error, "__notes__", ()), str(where)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one, with its history")
    parser.add_argument("--failing", type=float, default=0.0, help="share of steps with a failing sync")
    args = parser.parse_args()
    if args.seed is not None:
        print(*within_the_limit(args.seed, args.failing).ledger.events, sep="\n")
        return 0
    begun, crashes, failed = time.monotonic(), 0, 0
    bar = Progress("histories", args.seeds)
    for done, seed in enumerate(range(args.first, args.first + args.seeds)):
        bar.to(done)
        try:
            crashes += within_the_limit(seed, args.failing).ledger.crashes
        except (AssertionError, Hung) as error:
            failed += 1
            print(said(error), file=sys.stderr)
    bar.done(args.seeds)
    took = time.monotonic() - begun
    print(f"{args.seeds} histories, {crashes} crashes, {failed} broken promises, {took:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
