"""The difference of two backups: `diff`."""

from typing import ClassVar

from msgspec import Struct


class DiskCompared(Struct, frozen=True):
    """How much of a disk differs between two backups of a domain.

    ``changed_bytes`` counts blocks of 256 KiB of the images as they are stored; null if they cannot
    be compared, for a ``reason``. ``method`` is ``digest`` if both images have the same digest,
    ``map`` if the maps of a repository were compared, and ``read`` if both images were read.
    Sizes are null if the backup lacks the disk.
    """

    kind: ClassVar[str] = "disk_compared"
    domain: str
    older: str
    newer: str
    disk: str
    changed_bytes: int | None
    method: str | None
    reason: str | None
    format: str | None
    older_size_bytes: int | None
    newer_size_bytes: int | None
    older_data_bytes: int | None
    newer_data_bytes: int | None
