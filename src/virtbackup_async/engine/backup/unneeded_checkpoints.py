"""Deleting the checkpoints that no next backup can be based on, after each complete backup.

Foreign checkpoints, and those for other targets, are left alone.
"""

from anyio import to_thread

from virtbackup_async.engine.backup.bases import find_candidates
from virtbackup_async.engine.backup.inspection import Inspection
from virtbackup_async.errors import VirtBackupError
from virtbackup_async.events import Emit, Warned
from virtbackup_async.model.domain import BackingImage
from virtbackup_async.model.tracking import is_checkpoint_of
from virtbackup_async.repository import find_repository


async def drop_unneeded_checkpoints(inspection: Inspection, emit: Emit) -> None:
    """Delete a running domain's checkpoints for a target that no next backup can be based on.

    A failure is only a warning: the next backup tries again.

    Args:
        inspection: the facts about the domain from before the backup that is now complete.
        emit: where the warning goes.
    """
    try:
        await _drop_unneeded(inspection)
    except VirtBackupError as error:
        emit(Warned(f"old checkpoints could not be removed: {error.message}", inspection.info.name))


async def _drop_unneeded(inspection: Inspection) -> None:
    domain, catalog = inspection.domain, inspection.catalog
    repository = await to_thread.run_sync(find_repository, catalog.location)
    if repository is None:
        return
    tracked = inspection.tracking.disks
    needed = {
        found.checkpoint
        for dev, found in (await find_candidates(catalog, inspection.info)).items()
        if dev not in tracked or tracked[dev].checkpoint
    }
    devs: dict[str, list[str]] = {name: [] for name in await domain.checkpoint_names()}
    for dev, disk in tracked.items():
        if disk.checkpoint and disk.base is None and disk.image_id is not None:
            # The image may be an older copy, with a bitmap that libvirt has forgotten.
            image = BackingImage(inspection.selection.chains[dev][0].path, "qcow2")
            for name in (await inspection.images.info(image)).bitmaps:
                devs.setdefault(name, []).append(dev)
    for name, with_bitmap in devs.items():
        if is_checkpoint_of(name, repository.id) and name not in needed:
            await domain.delete_checkpoint(name, with_bitmap)
