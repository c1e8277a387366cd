"""Standard input, output and error, if some of them were closed when the program started.

The next file that is opened gets the number of a closed one: an image would *be* descriptor 1, and
libvirt or QEMU would write their messages into it. Python has no ``sys.stdout`` then, either.
"""

import os
import sys
from typing import TextIO

_NAMES = ("stdin", "stdout", "stderr")
_closed: set[int] = set()


def open_closed() -> None:
    """Open /dev/null in place of each closed stream; call it before anything else is opened."""
    for fd, name in enumerate(_NAMES):
        if not _is_open(fd):
            # The kernel takes the lowest free number: this one.
            os.dup2(os.open(os.devnull, os.O_RDWR), fd, inheritable=True)
            _closed.add(fd)
        if getattr(sys, name) is None:
            stream = _text(fd, writes=name != "stdin")
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def stdout_was_closed() -> bool:
    """Return whether standard output was closed, so that nobody can read it."""
    return 1 in _closed


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _text(fd: int, *, writes: bool) -> TextIO:
    return open(fd, "w" if writes else "r", encoding="utf-8", closefd=False)
