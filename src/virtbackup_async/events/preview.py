"""What `backup --dry-run` would do."""

from typing import ClassVar

from msgspec import Struct


class DiskPlanned(Struct, frozen=True):
    """How `backup` would read a disk, and how much of it, as far as that is known before.

    ``incremental``: only the changes since the backup ``base``; else ``reason`` says why all of it.
    ``method`` is ``snapshot``, ``pull``, or ``copy`` for a domain that is shut off.
    ``size_bytes`` is the length of the disk. ``read_bytes`` is None if only QEMU could tell.
    """

    kind: ClassVar[str] = "disk_planned"
    group: str
    domain: str
    disk: str
    method: str
    incremental: bool
    base: str | None
    reason: str | None
    size_bytes: int | None
    read_bytes: int | None


class TargetPlanned(Struct, frozen=True):
    """How much `backup` would read for a target at the most, and whether that fits into it.

    ``read_bytes`` leaves out disks of which it is not known. ``fits`` is None if nobody can say
    before: an amount is not known, or all fits only if it is compressed or stored already.
    """

    kind: ClassVar[str] = "target_planned"
    target: str
    backups: int
    read_bytes: int
    free_bytes: int | None
    fits: bool | None
