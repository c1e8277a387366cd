"""Copying what changed of one disk since its base, the earlier backup that it goes on from.

::

    dirty bitmap ----> changed         earlier map ----> all chunks of the base
                           │                                  │
                           v                                  v
                  read these, and what the repository has lost; take the others over
                                                              │
                       audit: read some of them all the same, and compare

A bitmap can lie: a bug, an image that something else wrote to. So a part of what it calls clean is
read in each run, another one each time; a single difference makes the disk be read in full.
"""

from contextlib import AsyncExitStack
from typing import Final

from msgspec import Struct

from virtbackup_async.engine.disk_meter import DiskMeter, data_bytes_of
from virtbackup_async.engine.environment import Environment
from virtbackup_async.engine.freeze import TrackedDisk
from virtbackup_async.errors import CorruptError, VirtBackupError
from virtbackup_async.events import Warned
from virtbackup_async.images.nbd_source import ChangedImage
from virtbackup_async.images.rate_limit import RateLimit
from virtbackup_async.model.backup import DiskRecord, ImageRecord
from virtbackup_async.model.domain import Disk
from virtbackup_async.model.tracking import Base, Reading
from virtbackup_async.packagers.interface import BaseImage, IncrementalWriter

_RESIZED: Final = "its size changed"


class UnfitBaseError(VirtBackupError):
    """A disk has to be read in full after all; the message is the reason."""


class AuditError(UnfitBaseError):
    """What has not changed by the dirty bitmap is not as it was."""


class DiskJob(Struct, frozen=True):
    """One disk of a domain, and how its images go into the package.

    Attributes:
        domain: the domain's name.
        disk: the disk.
        files: the names its images get inside the package.
        date: of the backup, in seconds since the epoch.
        limits: how fast it is read.
        audit_percent: how much of what did not change is read all the same.
    """

    domain: str
    disk: Disk
    files: tuple[str, ...]
    date: int
    limits: tuple[RateLimit, ...] = ()
    audit_percent: float = 0


async def copy_changes(
    environment: Environment, job: DiskJob, package: IncrementalWriter, tracked: TrackedDisk
) -> DiskRecord:
    """Put a disk into the package by what changed since its base.

    Raises:
        UnfitBaseError: the base is of no use; nothing was added.
        NbdError: the disk cannot be read.
        CorruptError: the repository turned out to be damaged behind the first changes.
        StorageError: the target is full or failed.
    """
    base = tracked.before.base
    if base is None:
        raise UnfitBaseError("no earlier backup to go on from")
    async with AsyncExitStack() as stack:
        image = await stack.enter_async_context(
            tracked.open_changes(environment.buffers, job.limits)
        )
        try:
            base_image = await stack.enter_async_context(package.open_base(base.file))
            if image.size_bytes != base_image.size_bytes:
                raise UnfitBaseError(_RESIZED)
            parts = await base_image.choose(image.changed)
            audited_bytes = await _audit(environment, job, base, image, base_image)
        except CorruptError as error:
            raise UnfitBaseError(f"the backup to go on from is damaged: {error.message}") from error
        meter = DiskMeter(environment.emit, job.domain, job.disk.dev, 0)
        async with image.open_parts(parts) as stream:
            # From here on the package has a part of it: no error is a reason to begin anew.
            stored = await package.add_changes(
                job.files[0], stream, base_image, meter.begin(stream)
            )
            meter.end(stream)
    record = ImageRecord(
        file=job.files[0],
        source=str(job.disk.path),
        format=job.disk.format,
        size_bytes=image.size_bytes,
        data_bytes=stored.data_bytes,
        stored_bytes=stored.stored_bytes,
        digest=stored.digest,
    )
    reading = Reading(
        checkpoint=tracked.checkpoint,
        base=base.backup,
        reason=None,
        full_date=base.full_date,
        read_bytes=stream.data_bytes + audited_bytes,
        audited_bytes=audited_bytes,
        image_id=tracked.before.image_id,
    )
    return DiskRecord(record, reading=reading)


async def _audit(
    environment: Environment, job: DiskJob, base: Base, image: ChangedImage, base_image: BaseImage
) -> int:
    """Compare some of what is said not to have changed; return how much was read.

    Raises:
        UnfitBaseError: it has changed.
    """
    sample = await base_image.sample(job.audit_percent, image.data_extents)
    if not sample:
        return 0
    async with image.open_parts(sample) as stream:
        audited_bytes = data_bytes_of(stream)
        if await base_image.is_as_it_was(sample, stream):
            return audited_bytes
    reason = f"the audit found changes since {base.backup} that the dirty bitmap does not tell"
    environment.emit(Warned(f"{job.disk.dev} is read in full: {reason}", job.domain))
    raise AuditError(reason)
