"""Lengths of time as an admin types them: ``30m``, ``12h``, ``7d`` or ``4w``."""

import re
from datetime import timedelta
from typing import Final

AGE_PATTERN: Final = r"([0-9]{1,6})([mhdw])"
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def age_of(text: str) -> timedelta | None:
    """Return the length of time that a text stands for; None if it is none."""
    found = re.fullmatch(AGE_PATTERN, text.strip())
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None
