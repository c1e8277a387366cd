"""One backup in full: `show`."""

from typing import ClassVar

from msgspec import Struct


class ShownImage(Struct, frozen=True):
    """A file of a backup: an image below a disk's own, or a file of the domain's state.

    ``what`` is ``backing`` or a kind of state (``nvram``).
    """

    what: str
    file: str
    source: str
    format: str
    size_bytes: int
    data_bytes: int
    stored_bytes: int
    digest: str


class ShownDisk(Struct, frozen=True):
    """A disk of a backup.

    ``source`` is the path of its image on the host, ``original_format`` that image's format, where
    the backup holds another. ``base`` is the backup whose unchanged data was taken over; else
    ``reason`` has why the disk was read in full, if that was recorded. All but the names are null
    in backups of virt-backup.
    """

    disk: str
    file: str
    source: str | None = None
    format: str | None = None
    original_format: str | None = None
    size_bytes: int | None = None
    data_bytes: int | None = None
    read_bytes: int | None = None
    stored_bytes: int | None = None
    digest: str | None = None
    base: str | None = None
    reason: str | None = None
    audited_bytes: int = 0
    audit_failed: bool = False
    checkpoint: str | None = None
    backing: tuple[ShownImage, ...] = ()


class ShownLack(Struct, frozen=True):
    """A disk, or a kind of state, that is not in a backup; ``older`` is a backup that has it."""

    what: str
    reason: str
    older: str | None = None


class ShownBackup(Struct, frozen=True):
    """All that is known of one backup, and the command lines that restore it.

    ``state`` is ``good``, ``unverified``, ``damaged`` or ``broken``; of a broken one only the
    names, ``error`` and perhaps the date are known. ``frees_bytes`` is the space that removing it
    alone frees, null if that cannot be measured. ``copied_from`` is the target in which a copied
    backup was made. ``sequence`` is the number of its definition among those of the domain, and
    ``definition_hash`` its hash.
    """

    kind: ClassVar[str] = "backup_details"
    group: str
    domain: str
    backup: str
    definition: str
    target: str
    state: str
    date: str | None
    date_unix: int | None
    age_s: float | None
    frees_bytes: int | None = None
    error: str | None = None
    uuid: str | None = None
    version: str | None = None
    packager: str | None = None
    domain_state: str | None = None
    method: str | None = None
    quiesced: bool | None = None
    not_quiesced: str | None = None
    frozen_ms: int | None = None
    pinned: bool = False
    note: str | None = None
    verified_date: str | None = None
    verified_error: str | None = None
    has_digests: bool = False
    disks: tuple[ShownDisk, ...] = ()
    state_files: tuple[ShownImage, ...] = ()
    skipped: tuple[ShownLack, ...] = ()
    commands: tuple[str, ...] = ()
    copied_from: str | None = None
    sequence: int | None = None
    definition_hash: str | None = None
    host: str | None = None
