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


class FileFormat(Struct, frozen=True):
    """What a restored disk is: ``size_bytes`` as its guest sees it, or of the file where unknown.

    ``was`` is the format of the image that the guest was on, None where that is not known: what was
    pulled from it is raw.
    """

    file: str
    disk: str
    format: str
    size_bytes: int
    was: str | None


class RestoreDone(Struct, frozen=True):
    """All disks are whole, on disk, and have the digest that was recorded.

    ``verified`` is False where the backup carries no digest (virt-backup wrote it). ``kept``
    are the images that were replaced, by the names that they have now. ``formats`` are of the
    disks, not of the images below them.
    """

    kind: ClassVar[str] = "restore_done"
    domain: str
    backup: str
    target: str
    files: tuple[str, ...]
    verified: bool
    data_bytes: int
    duration_s: float
    kept: tuple[str, ...] = ()
    formats: tuple[FileFormat, ...] = ()


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
