"""The systemd timers that start this program."""

from typing import Final

import msgspec
from anyio import move_on_after

from virtbackup_async.events import Timer
from virtbackup_async.processes import run_program

_ASK: Final = ("systemctl", "list-timers", "--all", "--output=json", "--no-pager", "virtbackup*")
_TIMEOUT_S: Final = 5.0
_MICROSECONDS: Final = 1_000_000


async def read_timers() -> tuple[Timer, ...]:
    """Return the timers that will elapse, the next first; none if systemd does not answer."""
    try:
        with move_on_after(_TIMEOUT_S):
            ended = await run_program(_ASK)
            return parse_timers(ended.stdout) if ended.returncode == 0 else ()
    except OSError:
        pass
    return ()


def parse_timers(output: bytes) -> tuple[Timer, ...]:
    """Return the timers in the output of systemctl; other entries are ignored."""
    try:
        rows = msgspec.json.decode(output, type=list[dict[str, object]])
    except msgspec.MsgspecError:
        return ()
    timers = []
    for row in rows:
        unit, elapses = row.get("unit"), row.get("next")
        if isinstance(unit, str) and isinstance(elapses, int) and 0 < elapses < 2**62:
            timers.append(Timer(unit, elapses / _MICROSECONDS))
    return tuple(sorted(timers, key=lambda timer: timer.next_unix))
