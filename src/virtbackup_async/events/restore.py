"""The events of `restore` and `export`."""

from typing import ClassVar

from msgspec import Struct


class RestoreStarted(Struct, frozen=True):
    """A backup was found and the target checked; the disks are about to be written."""

    kind: ClassVar[str] = "restore_started"
    domain: str
    backup: str
    target: str
    disks: tuple[str, ...]
    uuid: str | None = None


class FileFormat(Struct, frozen=True):
    """The format of a restored disk, and its size for the guest, or of the file if unknown.

    ``was`` is the format of the image that the guest was on, None if that is unknown: data pulled
    from it is raw.
    """

    file: str
    disk: str
    format: str
    size_bytes: int
    was: str | None


class RestoreDone(Struct, frozen=True):
    """All disks are complete, on disk, and have their recorded digests.

    ``verified`` is False if the backup has no digests (virt-backup wrote it). ``kept`` are the
    replaced images, by their new names. ``formats`` are those of the disks, not of backing files.
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
    uuid: str | None = None


class DiskExported(Struct, frozen=True):
    """A disk of a backup is now one image without backing files."""

    kind: ClassVar[str] = "disk_exported"
    domain: str
    backup: str
    disk: str
    output: str
    format: str
    verified: bool
    data_bytes: int
    uuid: str | None = None


class DomainDefined(Struct, frozen=True):
    """The domain is defined in libvirt, on the restored images.

    ``rebased`` names the images whose headers were changed: they name the restored backing files
    now, in place of the original ones.
    """

    kind: ClassVar[str] = "domain_defined"
    domain: str
    uuid: str
    backup: str
    started: bool
    rebased: tuple[str, ...]
