"""The copy of one backup, from the pending file to the definition.

::

    source package open: clean does not remove it
    │ pending file                     ── undone by: remove it, last of all
    │ │ package in the other target    ── undone by: remove it
    │ │ │ each image, compared with its recorded digest
    │ │ package durable, definition    from here on the copy is complete
    │ remove the pending file

No domain is touched, so there is no host note. Invariant: an image whose bytes are not those that
were backed up never becomes a part of a copy.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from anyio import CancelScope, current_time, to_thread
from msgspec import Struct

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.engine.backup.definition import complete_backup
from virtbackup_async.engine.copy.definition import (
    CopyPlan,
    copied_definition,
    copy_pending,
    plan_copy,
)
from virtbackup_async.engine.copy.destination import Destination
from virtbackup_async.engine.copy.standing import another_backup
from virtbackup_async.engine.heads.memory import adding
from virtbackup_async.engine.progress import DiskMeter
from virtbackup_async.engine.restore.plan import RestoredImage
from virtbackup_async.engine.restore.read_images import check_image, open_package
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import RollbackError, about_disk
from virtbackup_async.events import CopyDone
from virtbackup_async.files.held import open_held, to_hold
from virtbackup_async.model.backup import CopiedFrom, ImageRecord
from virtbackup_async.model.guest import guest_of
from virtbackup_async.model.packager import type_of
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.interface import (
    PackageReader,
    PackageWriter,
    Progress,
    Taken,
    TakingWriter,
)
from virtbackup_async.packagers.registry import open_writer


class CopyJob(Struct, frozen=True):
    """One backup to copy.

    Attributes:
        group: the group that selected it.
        found: the backup as its definition is now.
        source: the target that it is in.
        destination: where the copy goes.
    """

    group: str
    found: FoundBackup
    source: StorageLocation
    destination: Destination


async def copy_backup(runtime: Runtime, job: CopyJob) -> CopyDone:
    """Copy one backup; the caller holds the lock on copies of its domain.

    Raises:
        ConfigError: only the recovery key opens the backup; there is no copy.
        CorruptError: the backup is damaged; there is no copy.
        StorageError: the other target is full or failed, or has another backup of that name; there
            is no copy.
        ListedError: there is a copy, though a power cut may undo that.
        LockHeldError: the backup is being removed, or a prune took this process for dead.
    """
    began_s = current_time()
    if job.source.is_encrypted:
        await to_thread.run_sync(_prepare_keys, job)
    plan = plan_copy(job.found.definition)
    copying = _Copying(runtime, job, plan)
    directory = job.destination.catalog.directory(guest_of(plan.definition))
    async with (
        open_package(plan.definition, job.found.path.parent, runtime.buffers) as source,
        _pending_file(job, plan),
        open_held(to_hold(directory)) as held,
        open_writer(
            job.destination.packager, directory, plan.definition.name, runtime.cpu
        ) as package,
    ):
        taken, images = await copying.images(source, package)
        definition = copied_definition(plan, job.destination, images, await _origin(runtime, job))
        add = partial(adding, runtime.host, job.destination.catalog, runtime.emit)
        definition, listed = await complete_backup(package, held, definition, add)
    if listed is not None:
        raise listed
    data_bytes = sum(one.data_bytes for one in taken)
    read_bytes = sum(one.read_bytes for one in taken)
    return CopyDone(
        group=job.group,
        domain=definition.domain_name,
        backup=definition.name,
        target=str(job.destination.target),
        definition=str(job.destination.catalog.definition_path(definition)),
        data_bytes=data_bytes,
        read_bytes=read_bytes,
        skipped_bytes=data_bytes - read_bytes,
        stored_bytes=sum(one.stored_bytes for one in taken),
        duration_s=round(current_time() - began_s, 3),
        uuid=definition.domain_uuid,
        sequence=definition.sequence,
        definition_hash=definition.hash,
    )


@asynccontextmanager
async def _pending_file(job: CopyJob, plan: CopyPlan) -> AsyncGenerator[None]:
    """Write the pending file; remove it at the end, unless something is left to undo."""
    catalog = job.destination.catalog
    try:
        path = await catalog.create_pending(copy_pending(plan, job.destination, str(job.source)))
    except FileExistsError as error:
        raise another_backup(catalog.definition_path(plan.definition)) from error
    is_left = False
    try:
        yield
    except RollbackError:
        is_left = True
        raise
    finally:
        if not is_left:
            with CancelScope(shield=True):
                await catalog.remove_pending(path)


async def _origin(runtime: Runtime, job: CopyJob) -> CopiedFrom:
    repository = None
    if type_of(job.found.definition.packager).uses_repository:
        repository = await to_thread.run_sync(_repository_id, job.source)
    return CopiedFrom(str(job.source), repository, int(runtime.now().timestamp()))


def _prepare_keys(job: CopyJob) -> None:
    from virtbackup_async.repository import prepare_copy  # noqa: PLC0415 -- see below

    prepare_copy(job.source, job.destination.target)


def _repository_id(location: StorageLocation) -> str | None:
    # Imported for repositories only: numpy is slow to load.
    from virtbackup_async.repository import find_repository  # noqa: PLC0415 -- see above

    repository = find_repository(location)
    return repository.id.hex() if repository is not None else None


class _Copying(Struct, frozen=True):
    """The images on their way from one package into the other."""

    runtime: Runtime
    job: CopyJob
    plan: CopyPlan

    async def images(
        self, source: PackageReader, package: PackageWriter
    ) -> tuple[list[Taken], dict[str, ImageRecord]]:
        """Copy all images; return what was copied, and their records by name."""
        taken: list[Taken] = []
        records: dict[str, ImageRecord] = {}
        domain = self.plan.definition.domain_name
        for disk in self.plan.disks:
            with about_disk(disk.dev):
                meter = DiskMeter(self.runtime.emit, domain, disk.dev, disk.data_bytes)
                for image in disk.images:
                    copied = await _copy(image, source, package, meter.on_progress)
                    meter.add(copied.data_bytes)
                    taken.append(copied)
                    records[image.name] = self.plan.record(disk.dev, image, copied)
        for image in self.plan.state:
            copied = await _copy(image, source, package, lambda _data_bytes: None)
            taken.append(copied)
            records[image.name] = self.plan.record("", image, copied)
        return taken, records


async def _copy(
    image: RestoredImage, source: PackageReader, package: PackageWriter, on_progress: Progress
) -> Taken:
    """Copy one image.

    Raises:
        CorruptError: it does not have its recorded length.
        DigestMismatchError: its bytes are not those that were backed up.
    """
    taken = None
    if isinstance(package, TakingWriter):
        taken = await package.take_image(image.name, source, image.file, on_progress)
    if taken is None:
        async with source.open_disk(image.file) as stream:
            stored_bytes = await package.add_disk(image.name, stream, on_progress)
            data_bytes = stream.data_bytes
            taken = Taken(stream.size_bytes, data_bytes, data_bytes, stored_bytes, stream.digest)
    check_image(image, taken.size_bytes, taken.digest)
    return taken
