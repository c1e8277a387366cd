"""Estimates how much a run will read, for the progress of the complete run.

The newest definition of each domain records how much its last backup read. If a domain has none,
the host reports the sizes of its images. Both happen after the run has begun, and the backups
themselves report errors. So an estimate delays no backup, and lets none fail.
"""

from collections.abc import Sequence
from contextlib import suppress

from anyio import to_thread

from virtbackup_async.catalog.scanning import newest_definition
from virtbackup_async.engine.plan import PlannedBackup, target_of
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import VirtBackupError
from virtbackup_async.events import BackupsExpected, ExpectedBackup, ExpectedDisk
from virtbackup_async.model import domain_xml
from virtbackup_async.model.backup import DiskRecord
from virtbackup_async.model.domain import BackingImage, Disk
from virtbackup_async.model.guest import Guest, uuid_of
from virtbackup_async.model.names import guest_directories


async def tell_expected(runtime: Runtime, backups: Sequence[PlannedBackup]) -> None:
    """Emit ``BackupsExpected`` for these backups; again for each that has no earlier backup."""
    if not backups:
        return
    guests = [await _guest(runtime, planned) for planned in backups]
    # Abandoned if the target does not answer: the backups find that out themselves.
    known = await to_thread.run_sync(
        lambda: tuple(map(_by_last, backups, guests)), abandon_on_cancel=True
    )
    runtime.emit(BackupsExpected(known))
    for planned, expected in zip(backups, known, strict=True):
        if not expected.disks and (disks := await _by_images(runtime, planned)):
            runtime.emit(BackupsExpected((_expected(planned, disks),)))


async def _guest(runtime: Runtime, planned: PlannedBackup) -> Guest:
    """Return the guest, with its UUID where its directory has it."""
    if target_of(planned.group).plain_directory is None:
        with suppress(VirtBackupError):
            return Guest(planned.domain, (await runtime.hypervisor.domain(planned.domain)).uuid)
    return Guest(planned.domain)


def _by_last(planned: PlannedBackup, guest: Guest) -> ExpectedBackup:
    places = reversed(guest_directories(target_of(planned.group), guest))
    found = filter(None, map(newest_definition, places))
    last = next((one for one in found if guest.uuid in {None, uuid_of(one)}), None)
    if last is None:
        return _expected(planned, ())
    disks = tuple(
        ExpectedDisk(dev, _read_bytes(record))
        for dev, record in last.records.items()
        if not planned.disks or dev in planned.disks
    )
    return _expected(planned, disks, last.name)


def _expected(
    planned: PlannedBackup, disks: tuple[ExpectedDisk, ...], last: str | None = None
) -> ExpectedBackup:
    target = str(target_of(planned.group))
    return ExpectedBackup(planned.group.name, planned.domain, target, disks, last)


def _read_bytes(record: DiskRecord) -> int:
    """Return how much of the same disk will be read, if it is read in the same way."""
    if record.reading is not None and record.reading.base is not None:
        return record.reading.read_bytes
    return sum(image.data_bytes for image in (record.image, *record.backing))


async def _by_images(runtime: Runtime, planned: PlannedBackup) -> tuple[ExpectedDisk, ...]:
    try:
        domain = await runtime.hypervisor.domain(planned.domain)
        disks, _ = domain_xml.disks_of(await domain.info(), pull=False)
    except VirtBackupError:
        return ()
    wanted = (disk for disk in disks if not planned.disks or disk.dev in planned.disks)
    return tuple([ExpectedDisk(disk.dev, await _allocated(runtime, disk)) for disk in wanted])


async def _allocated(runtime: Runtime, disk: Disk) -> int:
    """Return how many bytes the images of a disk take; 0 if unknown."""
    images = (BackingImage(disk.path, disk.format), *disk.backing)
    try:
        infos = [await runtime.host.images.info(image) for image in images]
    except VirtBackupError:
        return 0
    return sum(info.actual_size for info in infos)
