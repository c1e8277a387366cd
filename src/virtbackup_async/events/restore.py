"""A backup on its way back."""

from typing import ClassVar

from msgspec import Struct


class RestoreStarted(Struct, frozen=True):
    """A backup was found and its target checked; its disks are about to be written."""

    kind: ClassVar[str] = "restore_started"
    domain: str
    backup: str
    target: str
    disks: tuple[str, ...]


class RestoreDone(Struct, frozen=True):
    """All disks are whole, on disk, and have the digest that was recorded.

    ``verified`` is False where the backup carries no digest (virt-backup wrote it).
    """

    kind: ClassVar[str] = "restore_done"
    domain: str
    backup: str
    target: str
    files: tuple[str, ...]
    verified: bool
    data_bytes: int
    duration_s: float


class DiskExported(Struct, frozen=True):
    """A disk of a backup is an image of its own now, without others below it."""

    kind: ClassVar[str] = "disk_exported"
    domain: str
    backup: str
    disk: str
    output: str
    format: str
    verified: bool
    data_bytes: int


class DomainDefined(Struct, frozen=True):
    """libvirt has a domain on the restored images now.

    ``rebased`` names the images whose headers were changed: they name the restored images below
    them now, in place of the original ones.
    """

    kind: ClassVar[str] = "domain_defined"
    domain: str
    uuid: str
    backup: str
    started: bool
    rebased: tuple[str, ...]
