"""`simulate.py --seeds N [--first S] [--seed S]`: many histories, each from its own seed.

A seed that fails is printed with its history, and `--seed S` plays it again.
"""

import argparse
import sys
import time
import traceback

from story import tell

from progress import Progress


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one, with its history")
    args = parser.parse_args()
    if args.seed is not None:
        print(*tell(args.seed).ledger.events, sep="\n")
        return 0
    begun, crashes, failed = time.monotonic(), 0, 0
    bar = Progress("histories", args.seeds)
    for done, seed in enumerate(range(args.first, args.first + args.seeds)):
        bar.to(done)
        try:
            crashes += tell(seed).ledger.crashes
        except AssertionError as error:
            failed += 1
            cause = error.__cause__
            where = traceback.extract_tb(cause.__traceback__)[-1] if cause else ""
            print(f"{error}\n{where}", file=sys.stderr)
    bar.done(args.seeds)
    took = time.monotonic() - begun
    print(f"{args.seeds} histories, {crashes} crashes, {failed} broken promises, {took:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
