"""Ages and samples as an admin types them: ``7d``, ``2026-03-01``, ``10%``. Used by ``verify``."""

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from typing import TypeVar

from virtbackup_async.engine.inventory.dates import start_of
from virtbackup_async.errors import ConfigError
from virtbackup_async.model.amounts import age_of

T = TypeVar("T")

_SAMPLE = re.compile(r"(\d{1,9})(%?)")
_ALL_PERCENT = 100


def parse_age(text: str) -> timedelta:
    """Return the length of ``30m``, ``12h``, ``7d`` or ``4w``.

    Raises:
        ConfigError: it is no age.
    """
    age = age_of(text)
    if age is None:
        raise ConfigError(f"age {text!r} cannot be understood", hint="Write it as 12h, 7d or 4w.")
    return age


def parse_since(text: str, now: datetime) -> int:
    """Return the moment that an age before ``now``, or a date, stands for.

    Returns:
        Seconds since the epoch; of a day without a time, its first.

    Raises:
        ConfigError: it is neither.
    """
    age = age_of(text)
    return start_of(text) if age is None else int((now - age).timestamp())


def draw_sample(items: Sequence[T], sample: str, day: date, name: Callable[[T], str]) -> list[T]:
    """Return some of ``items``, in their order; the same ones whenever it is asked for on a day.

    Whether an item is drawn depends on its name, the day, and how many there are. Each day draws
    anew, so that a daily run comes to all of them in time.

    Args:
        items: to draw from.
        sample: how many: ``5``, or a share, ``10%``, rounded up.
        day: of today.
        name: what tells an item from others.

    Raises:
        ConfigError: ``sample`` is no number, or a share over 100 %.
    """
    found = _SAMPLE.fullmatch(sample.strip())
    if found is None or (found[2] and int(found[1]) > _ALL_PERCENT):
        raise ConfigError(
            f"sample {sample!r} cannot be understood",
            hint="Write how many backups, as 5, or which share of them, as 10%.",
        )
    number = int(found[1])
    wanted = math.ceil(len(items) * number / _ALL_PERCENT) if found[2] else number

    def lot(item: T) -> bytes:
        return hashlib.blake2b(f"{day.isoformat()} {name(item)}".encode()).digest()

    drawn = {id(item) for item in sorted(items, key=lot)[:wanted]}
    return [item for item in items if id(item) in drawn]
