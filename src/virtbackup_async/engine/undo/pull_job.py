"""Ending a pull job, and undoing its effects: its files, and a failed backup's checkpoint.

At the end of its backup, and after a kill. A domain that is shut off has no QEMU to delete the
checkpoint's bitmap, so it is removed from the images.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import CancelScope, to_thread

from virtbackup_async import errors
from virtbackup_async.catalog.store import may_be_there
from virtbackup_async.engine.ports import HypervisorPort, ImageUser
from virtbackup_async.engine.undo.reconnect import reconnect
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.model.backup import Pending
from virtbackup_async.model.domain import BackingImage
from virtbackup_async.model.pull import PullJob
from virtbackup_async.model.target_file import TargetFile


async def end_pull(
    images: ImageHost, hypervisor: HypervisorPort, domain: ImageUser, job: PullJob
) -> None:
    """End the job if it is running; remove its scratch images and its socket.

    Raises:
        HypervisorError: libvirt is gone, or the job does not end.
        StorageError: a file cannot be removed.
    """
    try:
        try:
            await end_job(domain, job)
        except errors.ConnectionLostError:
            await reconnect(hypervisor)
            await end_job(domain, job)
    except (errors.DomainGoneError, errors.DomainNotFoundError):
        pass  # the job ended with the domain
    for path in (*job.scratch.values(), job.socket):
        if await images.exists(path.parent):
            await images.remove(path)


async def end_job(domain: ImageUser, job: PullJob) -> None:
    """End the job if it is running, and resume a guest that it made QEMU pause.

    A job of the same domain with another socket is left alone.

    Raises:
        HypervisorError: libvirt is gone, or the job does not end.
    """
    await domain.end_backup(job.socket)
    await domain.resume()


@asynccontextmanager
async def checkpoint_of(
    images: ImageHost,
    hypervisor: HypervisorPort,
    domain: ImageUser,
    pending: Pending,
    definition: TargetFile,
) -> AsyncGenerator[None]:
    """Delete the backup's checkpoint if the block fails.

    Raises:
        RollbackError: it cannot be removed; the pending file must stay.
    """
    try:
        yield
    except BaseException:
        with CancelScope(shield=True):
            try:
                await drop_checkpoint(images, hypervisor, domain, pending, definition)
            except errors.VirtBackupError as error:
                raise errors.RollbackError(
                    f"checkpoint {pending.checkpoint} is still there: {error.message}",
                    domain=domain.name,
                    hint=errors.CLEAN_HINT,
                ) from error
        raise


async def drop_checkpoint(
    images: ImageHost,
    hypervisor: HypervisorPort,
    domain: ImageUser,
    pending: Pending,
    definition: TargetFile,
) -> None:
    """Delete the checkpoint of a backup that was begun, unless the backup is complete.

    Args:
        images: the machine that has the images.
        hypervisor: the connection, which may have to be opened again.
        domain: the backup's domain; it may be gone.
        pending: the backup.
        definition: its definition, if it is complete.

    Raises:
        HypervisorError: libvirt is gone, or does not delete it.
        ImageError: an image of a domain that is shut off cannot be written.
    """
    if pending.checkpoint is None or await to_thread.run_sync(may_be_there, definition):
        return
    try:
        await _drop(images, domain, pending.checkpoint, pending.tracked_images)
    except errors.ConnectionLostError:
        await reconnect(hypervisor)
        await _drop(images, domain, pending.checkpoint, pending.tracked_images)


async def _drop(
    images: ImageHost, domain: ImageUser, name: str, tracked: Mapping[str, Path]
) -> None:
    try:
        done = await domain.delete_checkpoint(name, tracked)
    except errors.DomainNotFoundError:
        done = False
    if not done:
        await _remove_bitmaps(images, name, tracked.values())


async def _remove_bitmaps(images: ImageHost, name: str, tracked: Iterable[Path]) -> None:
    for image in tracked:
        if await images.exists(image):
            info = await images.info(BackingImage(image, "qcow2"))
            if name in info.bitmaps:
                await images.remove_bitmap(image, name)
