"""What a start costs: of `sendmail` beside a bare interpreter, a line, and exit 1 over the limit; of an MTA
in a test, a line to be read.

    ./nox -s startup
    python bench/startup.py [SENDMAIL]

Compared are `python -c pass` and `sendmail` up to its refusal of a message without recipients, with
everything imported and the control files read, by the interpreter that the script names.  30
rounds of both, interleaved; the ratio of the medians.  SENDMAIL: an installed console script,
else the one beside this interpreter.  The MTAs are those of `openqmail.core.testing`, by the same
interpreter: the first of a process from before its imports, the next one, and five days of retries
in virtual time, each the median of 5 processes.
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
PROCESSES = 5

MTAS = """
import time
clock = time.perf_counter
began = clock()
from openqmail.core.testing import Mta
with Mta():
    first = clock() - began
began = clock()
with Mta():
    again = clock() - began
from openqmail.core.testing import Answer, Receiver, VirtualMta
down = Receiver(then=Answer(450))
with VirtualMta(receivers={"far.example": down}) as mta:
    mta.submit("alice@a.example", "bob@far.example", "Subject: hi")
    began = clock()
    mta.advance(days=5)
    print(first, again, clock() - began, len(down.attempts))
"""


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


def mtas(python: str) -> str:
    """What the MTAs of tests take, in a sentence."""
    ran = [subprocess.run([python, "-c", MTAS], capture_output=True, check=True) for _ in range(PROCESSES)]
    rows = [map(float, one.stdout.split()) for one in ran]
    first, again, days, attempts = (statistics.median(column) for column in zip(*rows, strict=True))
    return (
        f"an MTA in a test is ready after {first * 1000:.0f} ms with its imports, the next one after "
        f"{again * 1000:.0f} ms; five virtual days, {attempts:.0f} attempts at one message, take "
        f"{days * 1000:.0f} ms"
    )


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
    print(mtas(python))
    return int(ratio > ASKED)


if __name__ == "__main__":
    sys.exit(main())
