r"""Which file system a path is on, by the kernel's ``/proc/self/mountinfo``.

::

    36 35 98:0 /root /mnt rw,noatime master:1 - ext4 /dev/sdb1 rw,errors=continue
                     ^mount point             ^type ^source

Source: proc(5). Blanks and the like in a path are written as ``\040``.
"""

import re
from pathlib import Path

from msgspec import Struct

_POINT, _TYPE, _SOURCE = 4, 0, 1
_ESCAPE = re.compile(r"\\([0-7]{3})")
MOUNTINFO = Path("/proc/self/mountinfo")


class Mount(Struct, frozen=True):
    """A mounted file system; ``source`` is mostly a device or a server's export."""

    point: Path
    type: str
    source: str


def mount_of(path: Path, mountinfo: str) -> Mount | None:
    """Return the mount that an absolute path without symlinks lies on; the last one wins."""
    found: Mount | None = None
    for line in mountinfo.splitlines():
        mount = _parsed(line)
        if mount is None or not path.is_relative_to(mount.point):
            continue
        if found is None or len(mount.point.parts) >= len(found.point.parts):
            found = mount
    return found


def _parsed(line: str) -> Mount | None:
    head, dash, tail = line.partition(" - ")
    fields, after = head.split(" "), tail.split(" ")
    if not dash or len(fields) <= _POINT or len(after) <= _SOURCE:
        return None
    return Mount(Path(_plain(fields[_POINT])), after[_TYPE], _plain(after[_SOURCE]))


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)
