"""A backup that is read back."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class VerifyStarted:
    """A backup is about to be read back."""

    kind: ClassVar[str] = "verify_started"
    group: str
    domain: str
    backup: str
    disks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifyDone:
    """A backup was read back from its first byte to its last, and is what was recorded.

    ``digests`` is False where it carries none (virt-backup wrote it): it could only be read.
    """

    kind: ClassVar[str] = "verify_done"
    group: str
    domain: str
    backup: str
    definition: str
    digests: bool
    data_bytes: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class VerifyFailed:
    """A backup cannot be restored as it was recorded, or could not be read now."""

    kind: ClassVar[str] = "verify_failed"
    group: str
    domain: str
    backup: str
    error: str
    exit_code: int
