"""A backup that is read back."""

from typing import ClassVar

from msgspec import Struct


class VerifyStarted(Struct, frozen=True):
    """A backup is about to be read back."""

    kind: ClassVar[str] = "verify_started"
    group: str
    domain: str
    backup: str
    disks: tuple[str, ...]


class VerifyDone(Struct, frozen=True):
    """A backup was read back from its first byte to its last, and is what was recorded.

    ``digests`` is False where it carries none (virt-backup wrote it): it could only be read.
    ``quick`` is True where it was not read: all of it is there, and as long as it should be.
    ``lacks`` are disks and state of the domain that were left out of it: good is what is there.
    """

    kind: ClassVar[str] = "verify_done"
    group: str
    domain: str
    backup: str
    definition: str
    digests: bool
    data_bytes: int
    duration_s: float
    quick: bool = False
    lacks: tuple[str, ...] = ()


class VerifyFailed(Struct, frozen=True):
    """A backup cannot be restored as it was recorded, or could not be read now."""

    kind: ClassVar[str] = "verify_failed"
    group: str
    domain: str
    backup: str
    error: str
    exit_code: int
    error_code: str | None = None
    advice: str | None = None


class DiskDamaged(Struct, frozen=True):
    """Bytes of an image in a repository are lost; all others of it are good.

    ``ranges`` are start and length of the first of them; ``more_ranges`` counts the others.
    """

    kind: ClassVar[str] = "disk_damaged"
    group: str
    domain: str
    backup: str
    disk: str
    file: str
    lost_bytes: int
    ranges: tuple[tuple[int, int], ...]
    more_ranges: int = 0


class RepositoryProgress(Struct, frozen=True):
    """Bytes of a repository's packs that have been checked."""

    kind: ClassVar[str] = "repository_progress"
    target: str
    done_bytes: int
    total_bytes: int


class RepositoryDamaged(Struct, frozen=True):
    """A file of a repository is damaged or missing; it may cost backups, which say so themselves.

    ``chunks`` is how many chunks cannot be read for it, as far as that is known.
    """

    kind: ClassVar[str] = "repository_damaged"
    target: str
    error: str
    chunks: int


class RepositoryRepaired(Struct, frozen=True):
    """What could be mended of a repository is mended; the backups' own lines say what is lost.

    ``dropped_chunks`` are not in the index any more: the next backup stores those again that it
    still finds on a disk, and the backups that need them are whole then. ``left_chunks`` are bad
    too, but belong to a backup that runs. ``waiting_maps`` are maps that are damaged or still miss
    chunks; the sweep knows of them.
    """

    kind: ClassVar[str] = "repository_repaired"
    target: str
    dropped_chunks: int
    left_chunks: int
    indexed_chunks: int
    removed_segments: int
    mended_heads: int
    waiting_maps: int


class RepositoryChecked(Struct, frozen=True):
    """The chunks of a repository that some backups need have been checked, each of them once."""

    kind: ClassVar[str] = "repository_checked"
    target: str
    backups: int
    chunks: int
    stored_bytes: int
    damaged_chunks: int
    duration_s: float
