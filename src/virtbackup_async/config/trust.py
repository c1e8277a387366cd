"""Who else could have written the configuration: its hooks run as this user, often as root.

``loading`` asks. As with sshd's files, the whole way to the file counts: who can write to a
directory can put another file, or another directory, in the place of what is there. A sticky
directory, such as ``/tmp``, lets each user only move what is his.
"""

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

_LINKS_MAX = 40
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Distrust(Struct, frozen=True):
    """Why others can write the file, and what to do about it."""

    message: str
    hint: str


def distrust(path: Path, opened: os.stat_result) -> Distrust | None:
    """Return why others can write a file, or exchange a directory; None if they cannot. Blocks.

    Args:
        path: what it was opened as; symlinks on the way are followed, and looked at.
        opened: the file itself. A pipe, or a file without a name, has no way to it.
    """
    found = _of_place(path, opened)
    has_way = stat.S_ISREG(opened.st_mode) or stat.S_ISDIR(opened.st_mode)
    if found or not has_way or opened.st_nlink == 0:
        return found
    try:
        for place, status in _way_to(path):
            if found := _of_place(place, status):
                return found
    except OSError as error:
        return Distrust(f"the way to {path} cannot be looked at: {error.strerror}", "Look at it.")
    return None


def _of_place(place: Path, status: os.stat_result) -> Distrust | None:
    if status.st_uid not in {0, os.geteuid()}:
        owner = _name_of(status.st_uid)
        return Distrust(
            f"{place} belongs to {owner}", f"Run chown {_name_of(os.geteuid())} {place}."
        )
    is_sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & _OTHERS and not is_sticky and not stat.S_ISLNK(status.st_mode):
        mode = stat.S_IMODE(status.st_mode)
        return Distrust(
            f"others can write to {place} (mode {mode:04o})", f"Run chmod go-w {place}."
        )
    return None


def _way_to(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield each directory and link on the way, and the file, in the kernel's order."""
    ahead = [*reversed(path.absolute().parts)]
    at, links = Path("/"), 0
    while ahead:
        step = ahead.pop()
        place = at.parent if step == ".." else at / step
        status = place.lstat()
        yield place, status
        if not stat.S_ISLNK(status.st_mode):
            at = place
            continue
        links += 1
        if links > _LINKS_MAX:
            raise OSError(0, "too many links")
        ahead += reversed(place.readlink().parts)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
