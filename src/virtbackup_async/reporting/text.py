"""Words and numbers for people; the text renderers share them.

Names of domains, disks and files come from outside. All text for a terminal goes through
``printable``, so that no name can move the cursor, recolour the terminal or reverse the text.
"""

import logging
import shlex
import unicodedata
from collections.abc import Iterable

_MINUTE_S = 60
_HOUR_S = 3600
# Control, format (bidi overrides), surrogate, private, unassigned; line and paragraph separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""Return the text with its control and format characters escaped, as in ``\x1b``."""
    if text.isprintable():
        return text  # the common case, and many thousands of them in a list
    return "".join(_escaped(c) if unicodedata.category(c) in _UNSAFE else c for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def command_line(argv: Iterable[str]) -> str:
    """Return a line for the shell; empty if a name in it cannot be typed."""
    argv = [*argv]
    return shlex.join(argv) if all(word == printable(word) for word in argv) else ""


def clock(seconds: float) -> str:
    """Return ``0:07`` or ``1:02:03``: it changes all the time, and keeps its width."""
    minutes, rest = divmod(max(0, round(seconds)), _MINUTE_S)
    hours, minutes = divmod(minutes, _HOUR_S // _MINUTE_S)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def percent(done_bytes: int, total_bytes: int) -> int:
    """Return 0 to 100, rounded down: 100 only if all bytes are moved, or there are none."""
    if total_bytes <= 0:
        return 100
    return min(100, max(0, done_bytes * 100 // total_bytes))


def count(number: int, noun: str) -> str:
    """Return ``1 disk``, ``2 disks``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def level_name(level: int) -> str:
    """Return ``warning`` for ``logging.WARNING``."""
    return logging.getLevelName(level).lower()
