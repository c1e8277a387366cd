"""A pull-mode backup job: QEMU serves the disks as they were at one moment, over NBD.

::

    guest ──writes──> image                    it stays on its image
                      │ what is about to be overwritten is copied first
                      v
                      scratch image            gone when the job ends
    reader <──NBD──── image below scratch      all as it was when the job began
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from msgspec import Struct, field

_SOCKET = re.compile(r"vbk-[0-9a-f]{8}\.sock")
SOCKET_MAX_BYTES = 107


class Method(StrEnum):
    """How the disks of a running domain are made to stand still, as the configuration says.

    ``AUTO`` is ``SNAPSHOT``, but ``PULL`` into a repository, and where a disk that is wanted cannot
    be snapshotted.
    """

    SNAPSHOT = "snapshot"
    PULL = "pull"
    AUTO = "auto"


class PullJob(Struct, frozen=True):
    """The files that a job creates.

    Attributes:
        socket: where QEMU listens.
        scratch: by dev, the image that keeps the data that the guest overwrites.
    """

    socket: Path
    scratch: Mapping[str, Path] = field(default_factory=dict)


def socket_name(token: str) -> str:
    """Return the name of a job's socket; ``token`` is eight hexadecimal digits."""
    return f"vbk-{token}.sock"


def export_bitmap(dev: str) -> str:
    """Return the name of the bitmap that a job serves beside a disk, where it tells changes."""
    return f"changes-{dev}"


def is_socket_of_ours(path: Path) -> bool:
    """Tell whether a path is one that ``socket_name`` gives."""
    return path.is_absolute() and _SOCKET.fullmatch(path.name) is not None
