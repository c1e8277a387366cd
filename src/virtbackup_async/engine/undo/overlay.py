"""Reverting a disk from its overlay to its own image, whatever the state of the domain is.

This is the undo of a snapshot, and also its normal end: a backup reverts each disk after its copy,
after a failure and after a cancellation, and ``clean`` reverts the disks of a killed backup. The
code relies on the domain's XML of this moment, and never on what the state was before::

    the running domain is on    its persistent XML has  then
    --------------------------  ----------------------  ------------------------------------------
    the overlay                 anything                 block commit, pivot, check again
    its own image               the overlay              set the persistent XML to the image
    its own image               its own image, or none   remove the overlay
    (shut off)                  the overlay              qemu-img commit, set the persistent XML
    (saved, on the overlay)     anything                 the same, and set the saved state's image
    (undefined)                                          qemu-img commit, remove the overlay, in the
                                                         run that made it; else leave it to a person
    (shut off)                  its own image            remove the overlay if it holds no data, or
                                                         if the image has all of its data
    something else                                       change nothing, raise an error

If the disk was detached from a running domain, the domain counts as shut off: its images are not
open. An overlay is only ever committed into the image that its header names. It is removed once
neither XML of the domain names it. A pivot leaves the data in the overlay, and the guest can write
to the image afterwards; so a note says, before each pivot, that the overlay is committed.
"""

import shlex
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async import errors
from virtbackup_async.engine.ports import BeforePivot, HypervisorPort, ImageUser
from virtbackup_async.engine.undo.reconnect import reconnect
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.model.backup import Pending
from virtbackup_async.model.domain import BackingImage, Sources

MAX_STEPS = 6

NoteCommitted = Callable[[str], Awaitable[None]]


class OverlaidDisk(Struct, frozen=True):
    """A disk that a snapshot has put, or was about to put, on an overlay.

    Attributes:
        is_committed: the image has all data of the overlay.
        of_this_run: this run made the overlay, and has held the domain's lock ever since; so the
            overlay's data is known even if libvirt does not know the domain any more.
    """

    dev: str
    image: Path
    format: str
    overlay: Path
    is_committed: bool = False
    of_this_run: bool = False

    @property
    def below(self) -> BackingImage:
        return BackingImage(self.image, self.format)


def overlaid_disks(
    pending: Pending, *, of_this_run: bool = False, is_noted: bool = True
) -> dict[str, OverlaidDisk]:
    """Return, by dev, the disks that a backup put, or was about to put, on an overlay.

    Args:
        pending: names the overlays.
        of_this_run: see :class:`OverlaidDisk`.
        is_noted: whether ``pending`` is a note of this host, which can be trusted.
    """
    return {
        dev: OverlaidDisk(
            dev,
            Path(disk.src),
            disk.type,
            Path(disk.snapshot),
            is_committed=disk.committed and is_noted,
            of_this_run=of_this_run,
        )
        for dev, disk in pending.disks.items()
        if disk.snapshot is not None
    }


async def revert_overlay(
    images: ImageHost,
    hypervisor: HypervisorPort,
    domain: ImageUser,
    disk: OverlaidDisk,
    note: NoteCommitted,
) -> None:
    """Bring the domain back to the disk's own image, with all data, and remove the overlay.

    Args:
        images: the machine that has the image and the overlay.
        hypervisor: the connection, which is opened again if it breaks.
        domain: the domain; it can be gone.
        disk: the disk and its overlay.
        note: records durably, before the pivot, that the disk ``is_committed``.

    Raises:
        HypervisorError: libvirt is gone, a block job failed, or the domain is on an image that is
            neither the overlay nor the disk's own.
        ImageError: qemu-img could not commit the overlay.
    """

    async def before_pivot() -> None:
        nonlocal disk
        disk = replace(disk, is_committed=True)
        # A full target must not keep the domain on its overlay; the note only helps after a crash.
        with suppress(errors.StorageError, errors.DefinitionError):
            await note(disk.dev)

    for _ in range(MAX_STEPS):
        with errors.about_disk(disk.dev):
            if await _step(images, hypervisor, domain, disk, before_pivot):
                return
    raise errors.HypervisorError(
        f"{disk.dev}: the domain keeps changing", disk=disk.dev, domain=domain.name
    )


async def _step(
    images: ImageHost,
    hypervisor: HypervisorPort,
    domain: ImageUser,
    disk: OverlaidDisk,
    before_pivot: BeforePivot,
) -> bool:
    """Take one step of the table; True if nothing more is to be done."""
    try:
        sources = await sources_of(domain)
        if disk.dev in (sources.live or {}):
            return await _step_running(images, domain, disk, sources, before_pivot)
        return await _step_shut_off(images, domain, disk, sources)
    except errors.ConnectionLostError:
        await reconnect(hypervisor)
    except errors.DomainGoneError:
        # The domain stopped after its XML was read: read it again.
        pass
    return False


async def sources_of(domain: ImageUser) -> Sources:
    """Return the images that the domain uses; none if libvirt does not know the domain."""
    try:
        return await domain.sources()
    except errors.DomainNotFoundError:
        return Sources(live=None, persistent=None)


async def _step_running(
    images: ImageHost,
    domain: ImageUser,
    disk: OverlaidDisk,
    sources: Sources,
    before_pivot: BeforePivot,
) -> bool:
    live = (sources.live or {}).get(disk.dev)
    if live == disk.overlay:
        resume = disk.dev in sources.devs_with_block_job
        await domain.commit(disk.dev, before_pivot, resume=resume)
        return False
    if live != disk.image:
        raise errors.HypervisorError(
            f"{disk.dev} is now on {live}, by somebody else", disk=disk.dev, domain=domain.name
        )
    if (sources.persistent or {}).get(disk.dev) == disk.overlay:
        await domain.set_persistent_source(disk.dev, disk.image, disk.format)
        return False
    await images.remove(disk.overlay)
    return True


async def _step_shut_off(
    images: ImageHost, domain: ImageUser, disk: OverlaidDisk, sources: Sources
) -> bool:
    exists = await images.exists(disk.overlay)
    if sources.persistent is None:
        # No XML names the images any more; the guest's last writes are in the overlay.
        if exists:
            if not disk.of_this_run:
                raise gone_error(domain.name, disk)
            await images.commit(disk.overlay, disk.below)
            await images.remove(disk.overlay)
        return True
    persistent = sources.persistent.get(disk.dev)
    is_saved_on_it = sources.saved.get(disk.dev) == disk.overlay
    if persistent == disk.overlay or is_saved_on_it:
        if exists:
            await _commit_shut_off(images, domain, disk)
        if is_saved_on_it:
            await domain.set_saved_source(disk.dev, disk.image, disk.format)
        if persistent == disk.overlay:
            await domain.set_persistent_source(disk.dev, disk.image, disk.format)
        return False
    if exists and not disk.is_committed and await images.holds_data(disk.overlay):
        raise errors.HypervisorError(
            f"{disk.dev} is now on {persistent}, but {disk.overlay} holds data",
            disk=disk.dev,
            domain=domain.name,
        )
    await images.remove(disk.overlay)
    return True


async def _commit_shut_off(images: ImageHost, domain: ImageUser, disk: OverlaidDisk) -> None:
    try:
        await images.commit(disk.overlay, disk.below)
    except errors.ImageError as error:
        # QEMU holds its lock on the image: the domain was started at this moment.
        if (await sources_of(domain)).live is not None:
            raise error.as_kind(errors.DomainGoneError) from error
        raise


def gone_error(domain: str, disk: OverlaidDisk) -> errors.RollbackError:
    """Return an error that asks a person to decide about an overlay, with the commands for it."""
    overlay = shlex.quote(str(disk.overlay))
    return errors.RollbackError(
        f"{disk.dev}: libvirt does not know the domain, and {disk.overlay} may hold what "
        "its guest wrote last",
        disk=disk.dev,
        domain=domain,
        hint=f"If no other domain uses {disk.image}, keep that with "
        f"`qemu-img commit -f qcow2 {overlay} && rm {overlay}`, or give it up with "
        f"`rm {overlay}`.",
    )
