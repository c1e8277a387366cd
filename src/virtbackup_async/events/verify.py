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
    """

    kind: ClassVar[str] = "verify_done"
    group: str
    domain: str
    backup: str
    definition: str
    digests: bool
    data_bytes: int
    duration_s: float


class VerifyFailed(Struct, frozen=True):
    """A backup cannot be restored as it was recorded, or could not be read now."""

    kind: ClassVar[str] = "verify_failed"
    group: str
    domain: str
    backup: str
    error: str
    exit_code: int
