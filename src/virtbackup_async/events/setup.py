"""What ``init`` finds on this host, and what it writes."""

from enum import StrEnum
from typing import ClassVar

from msgspec import Struct


class AgentState(StrEnum):
    """What is known of a domain's guest agent; ``UNKNOWN``: it has a channel, and is shut off."""

    ANSWERS = "answers"
    SILENT = "silent"
    NONE = "none"
    UNKNOWN = "unknown"


class DomainFound(Struct, frozen=True):
    """A domain of libvirt's, as ``init`` found it."""

    kind: ClassVar[str] = "domain_found"
    domain: str
    running: bool
    disks: tuple[str, ...]
    used_bytes: int | None
    agent: AgentState
    error: str | None = None


class FileSystemFound(Struct, frozen=True):
    """A mounted file system that files can be stored on, as ``init`` found it."""

    kind: ClassVar[str] = "file_system_found"
    path: str
    type: str
    source: str
    total_bytes: int | None
    free_bytes: int | None
    images_of: tuple[str, ...]
    same_disk_as: tuple[str, ...]
    unfit: str | None = None


class ConfigWritten(Struct, frozen=True):
    """``init`` has written a configuration; with ``--dry-run``, would have."""

    kind: ClassVar[str] = "config_written"
    path: str
    target: str
    config: str
    dry_run: bool = False
    found: bool = True
    old: str | None = None
