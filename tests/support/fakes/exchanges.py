"""Somebody who exchanges a directory of a target while a command works in it.

The code under test knows of nothing: functions of ``os`` are wrapped, and right before the one call
that was asked for, the exchange is made.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_CALLS = (
    "open", "stat", "scandir", "write", "fsync", "fdatasync", "rename", "link", "unlink", "mkdir",
)  # fmt: skip


class Counted:
    """How many calls there were."""

    calls = 0


@contextmanager
def before_call(number: int, act: Callable[[], None]) -> Iterator[Counted]:
    """Do something right before the file operation of that number."""
    counted = Counted()
    real = {name: getattr(os, name) for name in _CALLS}

    def wrap(call: Callable) -> Callable:
        def wrapped(*args: object, **options: object) -> object:
            counted.calls += 1
            if counted.calls == number:
                act()
            return call(*args, **options)

        return wrapped

    for name, call in real.items():
        setattr(os, name, wrap(call))
    try:
        yield counted
    finally:
        for name, call in real.items():
            setattr(os, name, call)


def put_link_there(path: Path, beside: Path, aside: Path) -> None:
    """Let a link to somebody else's directory take the place of a directory."""
    path.rename(aside)
    path.symlink_to(beside)


def put_another_there(path: Path, _beside: Path, aside: Path) -> None:
    """Let an empty directory take its place."""
    path.rename(aside)
    path.mkdir(mode=0o700)
