"""What starting `sendmail` costs beside a bare interpreter: a line, and exit 1 over the limit.

    ./nox -s startup
    python bench/startup.py [SENDMAIL]

Compared are `python -c pass` and `sendmail` up to its refusal of a message without recipients, with
everything imported and the control files read, by the interpreter that the script names.  30
rounds of both, interleaved; the ratio of the medians.  SENDMAIL: an installed console script,
else the one beside this interpreter.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 30
ASKED = 2.5


def took(command: list[str], code: int) -> float:
    """Seconds that one run takes, start to end."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    found = process.wait()
    passed = time.perf_counter() - began
    if found != code:
        raise SystemExit(f"{' '.join(command)}: exit {found}, expected {code}")
    return passed


def main() -> int:
    script = Path(sys.argv[1] if len(sys.argv) > 1 else Path(sys.executable).with_name("sendmail"))
    python = script.read_text().partition("\n")[0].removeprefix("#!")
    with tempfile.TemporaryDirectory() as home:
        os.mkdir(os.path.join(home, "control"))
        Path(home, "control", "me").write_text("a.example\n")
        bare, ours = [python, "-c", "pass"], [str(script), "--home", home]
        took(bare, 0), took(ours, 100)  # what is read for the first time is cached
        rounds = [(took(bare, 0), took(ours, 100)) for _ in range(ROUNDS)]
    bare_median, our_median = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = our_median / bare_median
    print(
        f"sendmail starts in {our_median * 1000:.1f} ms, python -c pass in {bare_median * 1000:.1f} ms: "
        f"ratio {ratio:.2f}, asked: at most {ASKED:g}"
    )
    return int(ratio > ASKED)


if __name__ == "__main__":
    sys.exit(main())
