"""Removing checkpoints of ours that no backup goes on from any more.

Called when a backup is complete, for the one before; when it failed, or is undone, for its own.
Foreign checkpoints are left alone. A domain that is shut off has no QEMU that could remove bitmaps:
there it is done in the images.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import CancelScope, to_thread

from virtbackup_async.catalog.scanning import definition_path
from virtbackup_async.catalog.store import Catalog, may_be_there
from virtbackup_async.engine.backup.bases import find_candidates
from virtbackup_async.engine.backup.selection import Selection
from virtbackup_async.engine.point_in_time.snapshot import CLEAN_HINT
from virtbackup_async.engine.ports import DomainPort, HypervisorPort, ImageUser
from virtbackup_async.engine.undo.overlay import reconnect
from virtbackup_async.errors import (
    ConnectionLostError,
    DomainNotFoundError,
    RollbackError,
    VirtBackupError,
)
from virtbackup_async.events import Emit, Warned
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.model.backup import Pending
from virtbackup_async.model.domain import BackingImage, DomainInfo
from virtbackup_async.model.tracking import is_checkpoint_of
from virtbackup_async.repository import find_repository


@asynccontextmanager
async def checkpoint_of(
    images: ImageHost, hypervisor: HypervisorPort, domain: ImageUser, pending: Pending, path: Path
) -> AsyncGenerator[None]:
    """Remove the checkpoint of a backup that does not become complete in the block.

    Raises:
        RollbackError: it cannot be removed; the pending file must stay.
    """
    try:
        yield
    except BaseException:
        with CancelScope(shield=True):
            try:
                await drop_checkpoint(images, hypervisor, domain, pending, path)
            except VirtBackupError as error:
                raise RollbackError(
                    f"{domain.name}: checkpoint {pending.checkpoint} is still there: "
                    f"{error.message}",
                    hint=CLEAN_HINT,
                ) from error
        raise


async def drop_checkpoint(
    images: ImageHost, hypervisor: HypervisorPort, domain: ImageUser, pending: Pending, path: Path
) -> None:
    """Remove the checkpoint of a backup that was begun, unless it is complete.

    Args:
        images: the machine that has the images.
        hypervisor: to be asked again if the connection is lost.
        domain: of the backup; it may be gone.
        pending: the backup.
        path: of its pending file.

    Raises:
        HypervisorError: libvirt is gone, or does not remove it.
        ImageError: an image of a domain that is shut off cannot be written.
    """
    if pending.checkpoint is None or await to_thread.run_sync(may_be_there, definition_path(path)):
        return
    try:
        await _drop(images, domain, pending.checkpoint, pending.tracked_images)
    except ConnectionLostError:
        await reconnect(hypervisor)
        await _drop(images, domain, pending.checkpoint, pending.tracked_images)


async def drop_unneeded_checkpoints(  # noqa: PLR0913, PLR0917 -- a backup has all of these
    images: ImageHost,
    catalog: Catalog,
    domain: DomainPort,
    info: DomainInfo,
    selection: Selection,
    emit: Emit,
) -> None:
    """Remove those of a running domain's checkpoints for a target that nothing goes on from.

    If that fails, it is told, and the next backup does it.

    Args:
        images: the machine that has the images.
        catalog: of the target.
        domain: running.
        info: what libvirt says of it.
        selection: what the backup that has just become complete took of it.
        emit: told what could not be removed.
    """
    try:
        await _drop_unneeded(images, catalog, domain, info, selection)
    except VirtBackupError as error:
        emit(Warned(f"old checkpoints could not be removed: {error.message}", domain.name))


async def _drop_unneeded(
    images: ImageHost,
    catalog: Catalog,
    domain: DomainPort,
    info: DomainInfo,
    selection: Selection,
) -> None:
    repository = await to_thread.run_sync(find_repository, catalog.target)
    if repository is None:
        return
    tracked = selection.tracking.disks
    needed = {
        found.checkpoint
        for dev, found in (await find_candidates(catalog, info)).items()
        if dev not in tracked or tracked[dev].checkpoint
    }
    devs: dict[str, list[str]] = {name: [] for name in await domain.checkpoint_names()}
    for dev, disk in tracked.items():
        if disk.checkpoint and disk.base is None and disk.image_id is not None:
            # It may have been put back, and with it a bitmap that libvirt has forgotten.
            image = BackingImage(selection.chains[dev][0].path, "qcow2")
            for name in (await images.info(image)).bitmaps:
                devs.setdefault(name, []).append(dev)
    for name, with_bitmap in devs.items():
        if is_checkpoint_of(name, repository.id) and name not in needed:
            await domain.delete_checkpoint(name, with_bitmap)


async def _drop(
    images: ImageHost, domain: ImageUser, name: str, tracked: Mapping[str, Path]
) -> None:
    try:
        done = await domain.delete_checkpoint(name, tracked)
    except DomainNotFoundError:
        done = False
    if not done:
        await _remove_bitmaps(images, name, tracked.values())


async def _remove_bitmaps(images: ImageHost, name: str, tracked: Iterable[Path]) -> None:
    for image in tracked:
        if await images.exists(image):
            info = await images.info(BackingImage(image, "qcow2"))
            if name in info.bitmaps:
                await images.remove_bitmap(image, name)
