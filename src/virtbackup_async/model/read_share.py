"""How much of the data ``verify`` reads: all, a share of it, or so many bytes. Pure."""

import re
from collections.abc import Callable
from random import SystemRandom
from typing import Final

from msgspec import Struct

_SHARE: Final = (
    r"all|(100|[0-9]{1,2}(?:\.[0-9]{1,4})?)%|([0-9]{1,15}(?:\.[0-9]{1,4})?)\s*([KMGT])(i?B)?"
)
SHARE_PATTERN: Final = rf"^\s*(?:{_SHARE})\s*$"
USUAL_ELSEWHERE: Final = "2%"
"""Of a target that is no directory of this machine: to read it costs time, and often money."""
LEAST_BYTES: Final = 64 << 20
"""A percentage means at least so much: small targets are read completely."""
_ALL_PERCENT: Final = 100


class ReadShare(Struct, frozen=True):
    """How much of the data is read; all of it, unless one of both is given.

    Attributes:
        percent: of the bytes.
        length_bytes: the number of bytes.
    """

    percent: float | None = None
    length_bytes: int | None = None

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return self.percent is None and self.length_bytes is None

    def budget(self, total_bytes: int) -> int:
        """Return how many of the bytes are to be read."""
        if self.percent is not None:
            wanted = max(int(total_bytes * self.percent / _ALL_PERCENT), LEAST_BYTES)
        else:
            wanted = total_bytes if self.length_bytes is None else self.length_bytes
        return min(wanted, total_bytes)


ALL: Final = ReadShare()


def read_share_of(text: str) -> ReadShare | None:
    """Return what ``2%``, ``10GiB`` or ``all`` stands for; None for anything else.

    Units are as in rates: ``K`` and ``KiB`` are 1024 bytes, ``KB`` are 1000.
    """
    found = re.fullmatch(_SHARE, text.strip())
    if found is None:
        return None
    percent, number, prefix, suffix = found.groups()
    if percent is not None:
        return ReadShare(percent=float(percent))
    if number is None:
        return ALL
    unit = (1000 if suffix == "B" else 1024) ** " KMGT".index(prefix)
    return ReadShare(length_bytes=int(float(number) * unit))


class Drawing:
    """Draws pieces of known lengths, one after the other, until a budget is used up.

    Each byte is as likely to be read as any other. The choice is random, so that nobody who can
    change the data knows which part is read next.
    """

    def __init__(
        self,
        share: ReadShare,
        total_bytes: int,
        random: Callable[[], float] | None = None,
    ) -> None:
        self._left_bytes = total_bytes
        self._budget_bytes = share.budget(total_bytes)
        self._random = random or SystemRandom().random

    def draws(self, length_bytes: int) -> bool:
        """Return whether the next piece is to be read."""
        is_drawn = self._random() * self._left_bytes < self._budget_bytes
        self._left_bytes -= length_bytes
        if is_drawn:
            self._budget_bytes -= length_bytes
        return is_drawn
