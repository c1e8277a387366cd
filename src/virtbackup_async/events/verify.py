"""The events of `verify` and `repair`."""

from typing import ClassVar

from msgspec import Struct


class VerifyStarted(Struct, frozen=True):
    """A backup is about to be read."""

    kind: ClassVar[str] = "verify_started"
    group: str
    domain: str
    backup: str
    disks: tuple[str, ...]
    uuid: str | None = None


class VerifyDone(Struct, frozen=True):
    """A backup was read from its first byte to its last, and matches its digests.

    ``digests`` is False if it has none (virt-backup wrote it), so that it could only be read.
    ``quick`` is True if it was not read completely: everything exists, with the right length;
    ``partly`` if some of the data of its target was read as well, chosen at random. ``lacks`` are
    disks and state of the domain that are not in the backup; the rest is good.
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
    uuid: str | None = None
    partly: bool = False


class VerifyFailed(Struct, frozen=True):
    """A backup is damaged, or could not be read now."""

    kind: ClassVar[str] = "verify_failed"
    group: str
    domain: str
    backup: str
    error: str
    exit_code: int
    error_code: str | None = None
    advice: str | None = None
    uuid: str | None = None


class DiskDamaged(Struct, frozen=True):
    """Bytes of an image in a repository are lost; all its other bytes are good.

    ``ranges`` has start and length of the first lost ranges; ``more_ranges`` counts the others.
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
    uuid: str | None = None


class RepositoryProgress(Struct, frozen=True):
    """How many bytes of a repository's packs have been checked."""

    kind: ClassVar[str] = "repository_progress"
    target: str
    done_bytes: int
    total_bytes: int


class RepositoryDamaged(Struct, frozen=True):
    """A file of a repository is damaged or missing; damaged backups have events of their own.

    ``chunks`` is how many chunks are unreadable because of it, as far as that is known.
    """

    kind: ClassVar[str] = "repository_damaged"
    target: str
    error: str
    chunks: int


class RepositoryRepaired(Struct, frozen=True):
    """A repository was repaired as far as possible; the events of backups report lost data.

    ``dropped_chunks`` were removed from the index: the next backup stores those again that it still
    finds on a disk, which makes the backups that need them complete. ``left_chunks`` are damaged,
    too, but belong to a running backup. ``waiting_maps`` counts maps that are damaged or still lack
    chunks; the prune knows them.
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
    """The chunks that the verified backups need have been checked, each of them once.

    ``read_bytes`` of the ``stored_bytes`` were read and compared, ``read_chunks`` of the
    ``chunks``; the others are there, as far as the lengths of files show.
    """

    kind: ClassVar[str] = "repository_checked"
    target: str
    backups: int
    chunks: int
    stored_bytes: int
    damaged_chunks: int
    duration_s: float
    read_bytes: int = 0
    read_chunks: int = 0
