"""What the backups hold, and what they take: `stats`."""

from typing import ClassVar

from msgspec import Struct


class DomainStats(Struct, frozen=True):
    """What a domain's backups in a group hold, and what they take.

    ``stored_bytes`` is what the packages grew by when they were made.
    """

    kind: ClassVar[str] = "domain_stats"
    group: str
    domain: str
    backups: int
    size_bytes: int
    data_bytes: int
    stored_bytes: int


class GroupStats(Struct, frozen=True):
    """The same of all domains of a group."""

    kind: ClassVar[str] = "group_stats"
    group: str
    domains: int
    backups: int
    size_bytes: int
    data_bytes: int
    stored_bytes: int


class DayStats(Struct, frozen=True):
    """What the backups of a group that are there and were made on a day hold and added."""

    kind: ClassVar[str] = "day_stats"
    group: str
    day: str
    backups: int
    size_bytes: int
    data_bytes: int
    stored_bytes: int


class BackupStats(Struct, frozen=True):
    """What one backup holds and takes, and how much room its removal alone would make."""

    kind: ClassVar[str] = "backup_stats"
    group: str
    domain: str
    backup: str
    date: str
    packager: str
    size_bytes: int
    data_bytes: int
    stored_bytes: int
    freed_bytes: int


class RepositoryStats(Struct, frozen=True):
    """What the backups in a target's repository hold, and what all of it takes.

    ``mapped_bytes`` are the chunks that all images consist of, ``chunk_bytes`` those of them that
    differ from each other, ``chunk_stored_bytes`` what these were compressed to. A chunk counts
    whole, be it cut short by its image's end.
    """

    kind: ClassVar[str] = "repository_stats"
    target: str
    backups: int
    data_bytes: int
    stored_bytes: int
    size_bytes: int
    mapped_bytes: int
    chunk_bytes: int
    chunk_stored_bytes: int
