"""Tracking by libvirt's checkpoints: which parts of a disk have not changed since a backup.

::

    backup 1      backup 2      backup 3         each complete in itself, in a repository
    checkpoint 1  checkpoint 2  checkpoint 3     of libvirt: a dirty bitmap in each disk's image
                  └── its bitmap has the changes that backup 3 must read

The definition of a backup names the checkpoint that was made at its moment. The checkpoint is
deleted when a newer backup of its disks has one, or if its backup was never completed.
"""

import re
import uuid
from collections.abc import Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from virtbackup_async.model.extent import Extent

_PREFIX = "virtbackup"
_NAME = re.compile(rf"{_PREFIX}-[0-9a-f]{{8}}-[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}")
_REPOSITORY_DIGITS = 8


class Reading(Struct, frozen=True):
    """How a disk was read into a repository, and the facts that its next backup can rely on.

    Attributes:
        checkpoint: the checkpoint whose bitmap has all changes since this backup; None for none.
        checkpoint_of: the backup at whose moment it was made; None in earlier versions' backups.
        changed: start and length of each extent that its bitmap had at this backup, or of a few
            that include them, if the checkpoint is an earlier backup's; else None.
        base: the backup whose unchanged chunks were taken over; None for a full read.
        reason: the reason for a full read; None for an incremental one.
        full_date: when the disk was last read in full, in seconds since the epoch.
        read_bytes: the bytes of data read.
        audited_bytes: the bytes of unchanged data that were read and compared anyway.
        audit_failed: whether the audited data had changed.
        image_id: distinguishes the image from its copies; None if nothing does.
        below: distinguish the backing images, nearest first, from later states of them; None if
            that was not recorded.
    """

    checkpoint: str | None
    base: str | None
    reason: str | None
    full_date: int
    read_bytes: int
    audited_bytes: int = 0
    audit_failed: bool = False
    image_id: str | None = None
    checkpoint_of: str | None = None
    changed: tuple[tuple[int, int], ...] | None = None
    below: tuple[str, ...] | None = None


class Base(Struct, frozen=True):
    """The backup that a disk's next one is based on.

    Attributes:
        backup: its name.
        file: the disk's file in its package.
        checkpoint: the checkpoint whose bitmap has the changes since.
        full_date: when the disk was last read in full.
        checkpoint_of: the backup at whose moment the checkpoint was made: mostly this one.
        changed: the extents in which this backup's image can differ from that one's.
        directory: the name of the directory of its package; empty for that of the new backup.
    """

    backup: str
    file: str
    checkpoint: str
    full_date: int
    checkpoint_of: str = ""
    changed: tuple[Extent, ...] = ()
    directory: str = ""


class Tracked(Struct, frozen=True):
    """The facts about one disk before it is read. Without a ``base``, ``reason`` says why.

    ``checkpoint`` is whether it can be in a checkpoint: its image must be able to store a bitmap.
    """

    base: Base | None
    reason: str | None
    checkpoint: bool
    image_id: str | None
    below: tuple[str, ...] | None = None


class Tracking(Struct, frozen=True):
    """The facts about a domain's disks, by dev, and the checkpoint to be made."""

    disks: Mapping[str, Tracked] = field(default_factory=dict)
    checkpoint: str | None = None

    @property
    def in_checkpoint(self) -> tuple[str, ...]:
        """The disks in the checkpoint."""
        return tuple(dev for dev, disk in self.disks.items() if disk.checkpoint)

    def since(self, dev: str) -> str | None:
        """Return the checkpoint since which a disk's changes are read; None for a full read."""
        disk = self.disks.get(dev)
        return disk.base.checkpoint if disk and disk.base else None

    def in_full(self, reason: str) -> "Tracking":
        """Return the same disks without a checkpoint, each to be read in full for that reason."""
        disks = {
            dev: replace(disk, base=None, reason=reason, checkpoint=False)
            for dev, disk in self.disks.items()
        }
        return Tracking(disks)


def checkpoint_name(repository_id: bytes) -> str:
    """Return a new name for a checkpoint of backups into that repository."""
    return f"{_of(repository_id)}{uuid.uuid4()}"


def is_checkpoint_of(name: str, repository_id: bytes) -> bool:
    """Return whether a checkpoint was made by this program for that repository."""
    return is_checkpoint_of_ours(name) and name.startswith(_of(repository_id))


def is_checkpoint_of_ours(name: str) -> bool:
    """Return whether a checkpoint was made by this program, for any repository."""
    return _NAME.fullmatch(name) is not None


def _of(repository_id: bytes) -> str:
    return f"{_PREFIX}-{repository_id.hex()[:_REPOSITORY_DIGITS]}-"
