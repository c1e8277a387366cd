"""A pull-mode backup job: QEMU serves the disks as they were at one moment, over NBD.

::

    guest ──writes──> image                    it stays on its image
                      │ old data is copied before it is overwritten
                      v
                      scratch image            removed when the job ends
    reader <──NBD──── image below scratch      the disk as it was when the job began
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from msgspec import Struct, field

_SOCKET = re.compile(r"vbk-[0-9a-f]{8}\.sock")
SOCKET_MAX_BYTES = 107


class Method(StrEnum):
    """How the disks of a running domain are held at a point in time, by the configuration.

    ``AUTO`` is ``PULL`` into a repository, and if a wanted disk cannot have a snapshot; else it is
    ``SNAPSHOT``.
    """

    SNAPSHOT = "snapshot"
    PULL = "pull"
    AUTO = "auto"


class PullJob(Struct, frozen=True):
    """The files that a job creates.

    Attributes:
        socket: the Unix socket on which QEMU listens.
        scratch: by dev, the image for the data that the guest overwrites.
    """

    socket: Path
    scratch: Mapping[str, Path] = field(default_factory=dict)


def socket_name(token: str) -> str:
    """Return the name of a job's socket; ``token`` is eight hexadecimal digits."""
    return f"vbk-{token}.sock"


def export_bitmap(dev: str) -> str:
    """Return the name under which a job exports a disk's dirty bitmap."""
    return f"changes-{dev}"


def is_socket_of_ours(path: Path) -> bool:
    """Return whether a path has a name that ``socket_name`` gives."""
    return path.is_absolute() and _SOCKET.fullmatch(path.name) is not None
