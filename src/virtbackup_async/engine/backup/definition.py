"""The definition of a backup whose data is all in the package, and the event that reports it.

Writing it completes the backup.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

from anyio import CancelScope, to_thread
from msgspec.structs import replace

from virtbackup_async.catalog.store import Catalog, ListedError
from virtbackup_async.engine.backup.inspection import Inspection
from virtbackup_async.engine.backup.state import CopiedState
from virtbackup_async.engine.domain_states import SAVED
from virtbackup_async.engine.heads.memory import Adding
from virtbackup_async.engine.host_state import host_name
from virtbackup_async.engine.plan import PlannedBackup
from virtbackup_async.engine.point_in_time.interface import PointInTimeDisks
from virtbackup_async.errors import StorageError
from virtbackup_async.events import BackupDone
from virtbackup_async.files.held import Held
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.model import domain_xml
from virtbackup_async.model.backup import Definition, DiskRecord, Original, Pending
from virtbackup_async.model.domain import BackingImage
from virtbackup_async.model.guest import uuid_of
from virtbackup_async.model.pull import Method
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.packagers.interface import PackageWriter


async def build_definition(
    inspection: Inspection,
    pending: Pending,
    records: Mapping[str, DiskRecord],
    state: CopiedState,
    disks: PointInTimeDisks,
) -> Definition:
    """Return the definition of a backup.

    Args:
        inspection: the facts about the domain.
        pending: the backup's name, and everything else that was known from the start.
        records: by dev, the images in the package.
        state: the state files in the package.
        disks: how the disks were held.
    """
    info, selection = inspection.info, inspection.selection
    records = await _with_originals(inspection.images, records, selection.chains)
    skipped = {disk.dev: disk.reason for disk in selection.left_out}
    return Definition(
        name=pending.name,
        domain_id=pending.domain_id,
        domain_name=pending.domain_name,
        domain_xml=_packed_xml(inspection, pending),
        disks={dev: record.image.file for dev, record in records.items()},
        version=pending.version,
        date=pending.date,
        packager=pending.packager,
        domain_uuid=pending.domain_uuid,
        records=records,
        skipped={**skipped, **state.missing},
        quiesced=False if info.is_saved else disks.quiesced,
        state="running" if info.is_active else "shutoff",
        method=method_of(inspection),
        frozen_ms=disks.frozen_ms,
        not_quiesced=SAVED if info.is_saved else disks.not_quiesced,
        state_files=state.records,
        host=host_name(),
    )


async def complete_backup(
    package: PackageWriter,
    held: Held,
    definition: Definition,
    add: Callable[[Definition], AbstractAsyncContextManager[Adding]],
) -> tuple[Definition, ListedError | None]:
    """Make a package durable and write its definition: from now on, the backup is listed.

    Args:
        package: has all data of the backup.
        held: the directory of the package.
        definition: the backup's.
        add: gives the definition its number, see ``engine/heads``.

    Returns:
        The definition as it was written, and an error to raise once the package is closed, and
        kept.

    Raises:
        StorageError: there is no such backup; the package is to be discarded.
        LockHeldError: the same, because a prune took this process for dead.
    """
    with CancelScope(shield=True):
        # A cancellation between the two would discard the data of a complete backup.
        await package.finish()
        await to_thread.run_sync(held.check)
        async with add(definition) as adding:
            catalog = adding.catalog
            try:
                path = await catalog.write_definition(adding.definition)
                await _check_same_directory(held, catalog, path)
            except ListedError as error:
                return adding.definition, error
            await adding.remember()
    return adding.definition, None


async def _check_same_directory(held: Held, catalog: Catalog, path: TargetFile) -> None:
    """Remove a definition that might have been written into another directory than its package."""
    try:
        await to_thread.run_sync(held.check)
    except StorageError as error:
        try:
            await catalog.remove_definition(path)
        except StorageError:
            raise error.as_kind(ListedError, hint=error.hint) from error
        raise


def method_of(inspection: Inspection) -> str:
    """Return the method as definitions and events name it."""
    if inspection.selection.pull:
        return Method.PULL
    return Method.SNAPSHOT if inspection.info.is_active else "copy"


def _packed_xml(inspection: Inspection, pending: Pending) -> str:
    """Return the domain's XML with the formats of the images in the package."""
    if not inspection.selection.pull:
        return pending.domain_xml
    return domain_xml.with_raw_disks(pending.domain_xml, inspection.selection.chains.keys())


async def _with_originals(
    images: ImageHost,
    records: Mapping[str, DiskRecord],
    chains: Mapping[str, tuple[BackingImage, ...]],
) -> dict[str, DiskRecord]:
    """Add the original images of pulled disks: the package holds the disks' data, raw."""
    with_them = dict(records)
    for dev, chain in chains.items():
        if dev in with_them:
            original = await _original(images, chain[0])
            with_them[dev] = replace(with_them[dev], original=original)
    return with_them


async def _original(images: ImageHost, image: BackingImage) -> Original:
    head = await images.head(image.path) if image.format == "qcow2" else None
    return Original(image.format, head.layout if head is not None else None)


def done_event(
    planned: PlannedBackup, definition: Definition, path: TargetFile, duration_s: float
) -> BackupDone:
    """Return the event that reports a complete backup; ``path`` is its definition's."""
    images = definition.images
    return BackupDone(
        group=planned.group.name,
        domain=definition.domain_name,
        backup=definition.name,
        definition=str(path),
        quiesced=definition.quiesced,
        frozen_ms=definition.frozen_ms,
        not_quiesced=definition.not_quiesced,
        data_bytes=sum(image.data_bytes for image in images),
        stored_bytes=sum(image.stored_bytes for image in images),
        duration_s=round(duration_s, 3),
        read_bytes=_read_bytes(definition),
        sequence=definition.sequence,
        definition_hash=definition.hash,
        audit_failures=sum(
            record.reading is not None and record.reading.audit_failed
            for record in definition.records.values()
        ),
        # Not left to the labels of the run: what follows the backup looks its guest up by it.
        uuid=uuid_of(definition),
    )


def _read_bytes(definition: Definition) -> int:
    """Return the bytes read: for incremental disks only the changes."""
    saved_bytes = sum(
        record.image.data_bytes - record.reading.read_bytes
        for record in definition.records.values()
        if record.reading is not None
    )
    return sum(image.data_bytes for image in definition.images) - saved_bytes
