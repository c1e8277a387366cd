"""Restoring one backup into a directory: all disks, checked, or nothing.

Each image is written under a temporary name (``.part``), and gets its own when all images are
complete and match their digests. Invariants: no existing file is ever touched; a failure or a
cancellation leaves nothing of the restore.
"""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

from anyio import CapacityLimiter, create_task_group, current_time
from msgspec import Struct

from virtbackup_async.engine.outcome import most_severe
from virtbackup_async.engine.restore.files import open_restored_files
from virtbackup_async.engine.restore.plan import Formats, RestoredDisk, RestorePlan, plan_restore
from virtbackup_async.engine.restore.read_images import (
    open_package,
    read_disk,
    read_state,
    rebase_hints,
)
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.events import DiskDone, FileFormat, RestoreDone, RestoreStarted, Warned
from virtbackup_async.model.backup import Definition
from virtbackup_async.model.target_file import AnyFile

_PRIVATE: Final = 0o700
# Other users can open its files by name, if they own them, and cannot list them.
_REACHABLE: Final = 0o711


class RestoreRequest(Struct, frozen=True):
    """The backup to restore, and the target.

    Attributes:
        definition: the backup.
        directory: the directory of its package.
        target: a directory; made if it is missing.
        disks: the devs to restore; empty for all.
        for_domain: whether a domain will be defined on the images. QEMU mostly runs as another
            user and must reach them in a new directory, and their chains are joined later.
        formats: the formats that the disks get.
    """

    definition: Definition
    directory: AnyFile
    target: Path
    disks: tuple[str, ...] = ()
    for_domain: bool = False
    formats: Formats = Formats()


async def restore_backup(runtime: Runtime, request: RestoreRequest) -> RestoreDone:
    """Restore the wanted disks of a backup, with the domain's state and XML.

    Raises:
        NotFoundError: the backup has no such disk.
        StorageError: a file exists already, or the target is full or not writable.
        CorruptError: the package is damaged, or does not match its record.
        RollbackError: after a failure, a file could not be removed.
    """
    done = await restore_files(runtime, request)
    runtime.emit(done)
    return done


async def restore_files(runtime: Runtime, request: RestoreRequest) -> RestoreDone:
    """Restore as :func:`restore_backup` does, without its event: a step of another command."""
    emit = runtime.emit
    began_s = current_time()
    definition, target = request.definition, request.target
    domain = definition.domain_name
    plan = plan_restore(definition, request.disks, request.formats)
    async with open_restored_files(
        target, plan, _REACHABLE if request.for_domain else _PRIVATE
    ) as files:
        uuid = definition.domain_uuid
        emit(RestoreStarted(domain, definition.name, str(target), plan.devs, uuid))
        if files.others and not request.for_domain:
            # Whoever defines the domain may well do so in libvirt's directory of images.
            emit(Warned(_mixed(target, files.others), domain))
        async with open_package(definition, request.directory, runtime.buffers) as package:
            data_bytes = await restore_disks(
                plan,
                runtime.disk_slots,
                lambda disk: read_disk(disk, package, files.fill, domain, emit),
            )
            for state in plan.state:
                data_bytes += await read_state(state, package, files.fill)
        await files.publish(plan.xml_name, definition.domain_xml.encode())
    for disk in () if request.for_domain else plan.disks:
        for hint in rebase_hints(disk, domain, target):
            emit(hint)
    return RestoreDone(
        domain=domain,
        backup=definition.name,
        target=str(target),
        files=plan.names,
        verified=plan.is_verifiable,
        data_bytes=data_bytes,
        duration_s=current_time() - began_s,
        formats=tuple(_file_formats(plan)),
        uuid=definition.domain_uuid,
    )


def _mixed(target: Path, others: int) -> str:
    files = "1 other file" if others == 1 else f"{others} other files"
    return f"{target} is not empty: the restored files are written next to {files}"


def _file_formats(plan: RestorePlan) -> Iterator[FileFormat]:
    for disk in plan.disks:
        image = disk.images[0]
        if image.format is not None and image.record is not None:
            size_bytes = image.record.size_bytes
            yield FileFormat(image.name, disk.dev, image.format, size_bytes, image.original_format)


async def restore_disks(
    plan: RestorePlan, cpu: CapacityLimiter, restore: Callable[[RestoredDisk], Awaitable[DiskDone]]
) -> int:
    """Restore the disks in parallel; the first failure cancels the others.

    Returns:
        The bytes of data in them.
    """
    data_bytes: list[int] = []

    async def work(disk: RestoredDisk) -> None:
        async with cpu:
            data_bytes.append((await restore(disk)).data_bytes)

    try:
        async with create_task_group() as tasks:
            for disk in plan.disks:
                tasks.start_soon(work, disk, name=f"restore {disk.dev}")
    except BaseExceptionGroup as group:
        error = most_severe(group)
        if error is None:
            raise
        raise error from group
    return sum(data_bytes)
