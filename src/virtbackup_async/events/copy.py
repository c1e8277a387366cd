"""The events of ``copy``, and of the copies that follow a backup."""

from typing import ClassVar

from msgspec import Struct


class CopyPlanned(Struct, frozen=True):
    """A dry run: the backup is missing in the other target, and would be copied."""

    kind: ClassVar[str] = "copy_planned"
    group: str
    domain: str
    backup: str
    target: str
    data_bytes: int
    uuid: str | None = None


class CopyStarted(Struct, frozen=True):
    """A backup is about to be copied into another target."""

    kind: ClassVar[str] = "copy_started"
    group: str
    domain: str
    backup: str
    target: str
    disks: tuple[str, ...]
    uuid: str | None = None


class CopyDone(Struct, frozen=True):
    """A backup is complete in the other target: ``list`` shows it there from now on.

    ``skipped_bytes`` of its data were in that target already, and were not read.
    ``definition`` is the one in the other target, and so are its ``sequence`` and
    ``definition_hash``.
    """

    kind: ClassVar[str] = "copy_done"
    group: str
    domain: str
    backup: str
    target: str
    definition: str
    data_bytes: int
    read_bytes: int
    skipped_bytes: int
    stored_bytes: int
    duration_s: float
    uuid: str | None = None
    sequence: int | None = None
    definition_hash: str | None = None


class CopySkipped(Struct, frozen=True):
    """A backup was not copied, because the other target has it already, or for another reason."""

    kind: ClassVar[str] = "copy_skipped"
    group: str
    domain: str
    backup: str
    target: str
    reason: str
    uuid: str | None = None


class CopyFailed(Struct, frozen=True):
    """A backup was not copied; nothing of it is in the other target, unless ``left_pending``.

    ``backup`` is None if none of the domain's backups could be copied.
    """

    kind: ClassVar[str] = "copy_failed"
    group: str
    domain: str
    backup: str | None
    target: str
    error: str
    exit_code: int
    cancelled: bool = False
    left_pending: bool = False
    error_code: str | None = None
    advice: str | None = None
    uuid: str | None = None
