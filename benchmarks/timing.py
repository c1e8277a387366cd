"""Times a program as a whole process; the benchmarks beside it call it."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def program() -> list[str]:
    """Return the installed command of the Python that runs this."""
    return [str(Path(sys.executable).with_name("virtbackup"))]


def print_runs(argv: Sequence[str], runs: int) -> None:
    """Run a program, its output thrown away, and print the least and the median times."""
    clock, cpu = [], []
    for _ in range(runs):
        before, start_s = os.times(), time.monotonic()
        subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
        clock.append(time.monotonic() - start_s)
        after = os.times()
        used = after.children_user + after.children_system
        cpu.append(used - before.children_user - before.children_system)
    words = " ".join(word for word in argv[1:] if not word.startswith(("/", "-c")))
    times = [min(clock), statistics.median(clock), min(cpu)]
    print("{:<16} least {:.3f} s, median {:.3f} s, CPU {:.3f} s".format(words, *times))
