"""What tells a later backup which parts of a disk have not changed: checkpoints of libvirt.

::

    backup 1      backup 2      backup 3         each complete in itself, in a repository
    checkpoint 1  checkpoint 2  checkpoint 3     of libvirt: a dirty bitmap in each disk's image
                  └── its bitmap tells what backup 3 has to read

A checkpoint of ours is named in the definition of the backup that was taken at its moment. It goes
when a newer backup of the disks it is for has one, or when its backup was never completed.
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
    """How a disk was read into a repository, and what the next backup of it may go on from.

    Attributes:
        checkpoint: whose bitmap knows all changes since this backup; None: there is none.
        checkpoint_of: the backup at whose moment it was made; None in earlier versions' backups.
        changed: start and length of what its bitmap, or more, told of when this backup was made, if
            the checkpoint is an earlier backup's; else None.
        base: the backup whose unchanged chunks were taken over; None: the disk was read in full.
        reason: why it was read in full; None where it was not.
        full_date: when the disk was last read in full, in seconds since the epoch.
        read_bytes: how much data was read.
        audited_bytes: how much of what had not changed was read and compared all the same.
        audit_failed: whether what was audited was not as it had been.
        image_id: what tells the image from a copy of it; None where nothing does.
        below: what tells the images below it, nearest first, from what they may be later; None
            where that was not looked at.
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
    """The backup that a disk's next one goes on from.

    Attributes:
        backup: its name.
        file: the disk's file in its package.
        checkpoint: whose bitmap tells what changed since.
        full_date: when the disk was last read in full.
        checkpoint_of: the backup at whose moment the checkpoint was made: this one, mostly.
        changed: in what, at the most, the image of this backup differs from that one's.
    """

    backup: str
    file: str
    checkpoint: str
    full_date: int
    checkpoint_of: str = ""
    changed: tuple[Extent, ...] = ()


class Tracked(Struct, frozen=True):
    """What is known of one disk before it is read. Without a ``base``, ``reason`` says why.

    ``checkpoint`` is whether one can be made of it: its image has to be able to keep a bitmap.
    """

    base: Base | None
    reason: str | None
    checkpoint: bool
    image_id: str | None
    below: tuple[str, ...] | None = None


class Tracking(Struct, frozen=True):
    """What is known of a domain's disks, by dev, and the checkpoint that is about to be made."""

    disks: Mapping[str, Tracked] = field(default_factory=dict)
    checkpoint: str | None = None

    @property
    def in_checkpoint(self) -> tuple[str, ...]:
        """The disks that the checkpoint is for."""
        return tuple(dev for dev, disk in self.disks.items() if disk.checkpoint)

    def since(self, dev: str) -> str | None:
        """Return the checkpoint since which a disk's changes are to be read; None: all of it."""
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
    """Tell whether a checkpoint is one that was made for that repository, and not foreign."""
    return is_checkpoint_of_ours(name) and name.startswith(_of(repository_id))


def is_checkpoint_of_ours(name: str) -> bool:
    """Tell whether it is one that was made for any repository."""
    return _NAME.fullmatch(name) is not None


def _of(repository_id: bytes) -> str:
    return f"{_PREFIX}-{repository_id.hex()[:_REPOSITORY_DIGITS]}-"
