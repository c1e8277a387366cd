"""Sizes and lengths of time: as people read them, and ages as an admin types them."""

import re
from datetime import timedelta
from typing import Final

AGE_PATTERN: Final = r"([0-9]{1,6})([mhdw])"
_AGE_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024
_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 24 * _HOUR_S


def size(length_bytes: float) -> str:
    """``1.5 GiB``; bytes below one KiB are exact."""
    value = float(length_bytes)
    for unit in _UNITS[:-1]:
        # What would be printed as 1024.0 belongs to the next unit.
        if round(value, 1) < _STEP:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= _STEP
    return f"{value:.1f} {_UNITS[-1]}"


def length_compared(length_bytes: int, recorded_bytes: int) -> str:
    """``5.0 GiB long, 20 B less than was recorded``: two long numbers would hide what differs."""
    differs_bytes = length_bytes - recorded_bytes
    word = "more" if differs_bytes > 0 else "less"
    return f"{size(length_bytes)} long, {size(abs(differs_bytes))} {word} than was recorded"


def duration(seconds: float) -> str:
    """``4.2 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    if seconds < 10:  # noqa: PLR2004 -- a tenth of a second says something only below ten
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S:02} s"
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02} min"


def age(seconds: float) -> str:
    """``5 hours`` or ``3 days``, rounded down; ``40 minutes`` below one hour."""
    unit_s, noun = (_DAY_S, "day") if seconds >= 2 * _DAY_S else (_HOUR_S, "hour")
    if seconds < _HOUR_S:
        unit_s, noun = _MINUTE_S, "minute"
    number = int(seconds // unit_s)
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def age_of(text: str) -> timedelta | None:
    """Return the time that ``30m``, ``12h``, ``7d`` or ``4w`` stands for, or None."""
    found = re.fullmatch(AGE_PATTERN, text.strip())
    return timedelta(**{_AGE_UNITS[found[2]]: int(found[1])}) if found else None
