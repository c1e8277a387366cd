"""The events of `serve`."""

from typing import ClassVar

from msgspec import Struct


class ServedDisk(Struct, frozen=True):
    """A disk that is served, at ``uri``.

    ``format`` is that of the image in the package; clients see the disk as a guest did. ``checked``
    says whether each byte is compared with the recorded digests before it is sent. A ``writable``
    disk has an overlay, which takes what clients write; the backup never changes.
    """

    disk: str
    uri: str
    size_bytes: int
    format: str
    checked: bool
    writable: bool = False


class BackupServed(Struct, frozen=True):
    """The disks of a backup can be read over NBD until the command ends."""

    kind: ClassVar[str] = "backup_served"
    domain: str
    backup: str
    disks: tuple[ServedDisk, ...]
    uuid: str | None = None


class RangeUnreadable(Struct, frozen=True):
    """A client asked for bytes of a disk that are damaged or cannot be read; it got an I/O error.

    Each range is reported once. ``code`` is the error's, as in ``summary``; null if it has none.
    """

    kind: ClassVar[str] = "range_unreadable"
    domain: str
    backup: str
    disk: str
    offset: int
    length_bytes: int
    error: str
    code: str | None
    uuid: str | None = None
