"""Sizes and spans in the words of findings."""

GIB = 1024**3
MIB = 1024**2
HOUR_S = 3600
DAY_S = 24 * HOUR_S


def gib(length_bytes: int) -> str:
    """``1.5 GiB``, or MiB below one."""
    if length_bytes < GIB:
        return f"{length_bytes / MIB:.0f} MiB"
    return f"{length_bytes / GIB:.1f} GiB"


def span(seconds: float) -> str:
    """``5 hours`` or ``3 days``; less than an hour is told in minutes."""
    unit_s, noun = (DAY_S, "day") if seconds >= 2 * DAY_S else (HOUR_S, "hour")
    if seconds < HOUR_S:
        unit_s, noun = 60, "minute"
    number = int(seconds // unit_s)
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
