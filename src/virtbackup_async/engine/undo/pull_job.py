"""Ending a pull job, and removing its files: at the end of its backup, and after a kill."""

from virtbackup_async.engine.ports import HypervisorPort, ImageUser
from virtbackup_async.engine.undo.reconnect import reconnect
from virtbackup_async.errors import ConnectionLostError, DomainGoneError, DomainNotFoundError
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.model.pull import PullJob


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
        except ConnectionLostError:
            await reconnect(hypervisor)
            await end_job(domain, job)
    except (DomainGoneError, DomainNotFoundError):
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
