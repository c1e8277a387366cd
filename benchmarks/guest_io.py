"""What a guest feels of its backup: it writes and reads all the time, and writes down each turn.

In the guest, a shell loop: 1 MiB written and synced, 1 MiB read from where nothing is cached, then
the time since boot as a line. The host asks the guest's clock before and after each backup, and so
knows which lines belong to it. A freeze shows as the longest gap between two lines.
"""

import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from benchmarks.measure import run
from benchmarks.race import Contender, Start, prepare, say
from benchmarks.results import GuestIo
from lab.domains import LabDomain

MIB_PER_TURN = 2
_CALM_S = 6
_LOG = "/run/io.log"
_STOP = "/run/io.stop"
_JOB = f"""\
rm -f {_STOP}
(n=0
while [ ! -e {_STOP} ]; do
    dd if=/dev/zero of=/mnt/vda/io bs=1M count=1 seek=$((n % 64)) conv=notrunc,fsync
    dd if=/dev/vda of=/dev/null bs=1M count=1 skip=$((n * 7 % 768))
    n=$((n + 1))
    read since_boot _ </proc/uptime
    echo $since_boot >&3
done) 3>{_LOG} >/dev/null 2>&1 </dev/null &
"""


def feel(guest: LabDomain, contenders: Sequence[Contender], rounds: int) -> list[GuestIo]:
    """Run each contender's backup while the guest works; a calm time before each."""
    guest.guest_exec(_JOB)
    windows = []
    try:
        for _ in range(rounds):
            for contender in contenders:
                prepare(contender, Start(list(guest.images().values())))
                calm = _clock(guest)
                time.sleep(_CALM_S)
                begin = _clock(guest)
                _run(contender)
                windows.append((contender.name, calm, begin, _clock(guest)))
                say(f"guest i/o: {contender.name}")
    finally:
        guest.guest_exec(f"touch {_STOP}")
    turns = [float(line) for line in guest.guest_exec(f"cat {_LOG}").split()]
    return [judge(turns, *window) for window in windows]


def _run(contender: Contender) -> None:
    try:
        run(contender.argv, contender.env)
    finally:
        if contender.undo:
            contender.undo()


def _clock(guest: LabDomain) -> float:
    return float(guest.guest_exec("cat /proc/uptime").split()[0])


def judge(turns: Sequence[float], contender: str, calm: float, begin: float, end: float) -> GuestIo:
    """What the guest's lines say of one backup: from ``begin`` to ``end``, calm before it."""
    before, during = partial(_between, turns, calm, begin), partial(_between, turns, begin, end)
    return GuestIo(
        contender,
        len(before()) * MIB_PER_TURN / (begin - calm),
        len(during()) * MIB_PER_TURN / (end - begin),
        1000 * longest_gap([begin, *during(), end]),
        1000 * longest_gap([calm, *before(), begin]),
    )


def _between(turns: Sequence[float], begin: float, end: float) -> list[float]:
    return [turn for turn in turns if begin <= turn < end]


def longest_gap(times: Sequence[float]) -> float:
    """The longest time between two of them."""
    return max((later - earlier for earlier, later in pairwise(times)), default=0)
