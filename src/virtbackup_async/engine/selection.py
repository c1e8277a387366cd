"""What a backup takes of a domain: disks with their chains, and the state outside of them.

All of it is looked up before anything is touched.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from anyio import to_thread
from msgspec import Struct, field
from msgspec.structs import replace

from virtbackup_async.engine.host import Host
from virtbackup_async.engine.state_files import DomainState, find_state
from virtbackup_async.errors import DiskNotFoundError, ImageError, RollbackError
from virtbackup_async.images import qemu_img
from virtbackup_async.model import domain_xml, host_paths
from virtbackup_async.model.domain import NOT_WANTED, BackingImage, Disk, DomainInfo, SkippedDisk
from virtbackup_async.model.tracking import Tracking


class Selection(Struct, frozen=True):
    """The disks to back up, what is left out with a reason, and the domain's state.

    With ``pull``, QEMU serves the disks; without, their images are read. ``chains`` are, by dev,
    the images of disks that are served, nearest first; of a running domain the first alone.
    ``unsaved`` is what the guest stores in devices that are no disks.
    ``tracking`` is what is known of the disks' changes since earlier backups.
    """

    disks: tuple[Disk, ...]
    skipped: tuple[SkippedDisk, ...]
    state: DomainState
    pull: bool = False
    chains: Mapping[str, tuple[BackingImage, ...]] = field(default_factory=dict)
    tracking: Tracking = Tracking()
    unsaved: tuple[SkippedDisk, ...] = ()

    @property
    def left_out(self) -> tuple[SkippedDisk, ...]:
        """All that the backup does not hold."""
        return (*self.skipped, *self.unsaved)

    @property
    def others(self) -> tuple[str, ...]:
        """Targets that a snapshot must leave alone."""
        return tuple(disk.dev for disk in self.skipped)


async def select_disks(
    info: DomainInfo, wanted: Sequence[str], host: Host, *, pull: bool = False
) -> Selection:
    """Choose the disks of a domain, find the images below them, and the domain's state.

    Args:
        info: the domain, with its XML.
        wanted: disk targets; empty for all that can be backed up.
        host: says where targets are: no image lies there.
        pull: whether QEMU will serve them, as raw images with nothing below them.

    Raises:
        DiskNotFoundError: a wanted disk does not exist or cannot be backed up; or none can.
        ImageError: an image is missing or unreadable, or lies in a target.
        RollbackError: the domain still runs on the overlay of a backup that was killed.
    """
    possible, skipped = domain_xml.disks(info.xml, pull=pull and info.is_active)
    _check_wanted(info, wanted, possible, skipped)
    chosen = tuple(disk for disk in possible if not wanted or disk.dev in wanted)
    if not chosen:
        reasons = ", ".join(f"{disk.dev}: {disk.reason}" for disk in skipped) or "it has none"
        raise DiskNotFoundError(f"{info.name}: no disk that can be backed up ({reasons})")
    left_out = tuple(SkippedDisk(disk.dev, NOT_WANTED) for disk in possible if disk not in chosen)
    for disk in chosen:
        if disk.path.is_absolute():
            what = f"{info.name}: {disk.dev}"
            await to_thread.run_sync(host.refuse_in_target, what, [disk.path])
    chains: dict[str, tuple[BackingImage, ...]] = {}
    if pull and info.is_active:
        disks = tuple(_not_on_ours(info, disk) for disk in chosen)
    else:
        disks = tuple([await _with_chain(info, disk) for disk in chosen])
    for disk in disks:
        below = [image.path for image in disk.backing]
        await to_thread.run_sync(host.refuse_in_target, f"{info.name}: {disk.dev}", below)
    if pull:
        chains = {disk.dev: (BackingImage(disk.path, disk.format), *disk.backing) for disk in disks}
        disks = tuple(replace(disk, format="raw", backing=()) for disk in disks)
    unsaved = host_paths.unsaved(info.xml)
    state = await find_state(info)
    return Selection(disks, (*skipped, *left_out), state, pull, chains, unsaved=unsaved)


def _check_wanted(
    info: DomainInfo,
    wanted: Sequence[str],
    possible: Sequence[Disk],
    skipped: Sequence[SkippedDisk],
) -> None:
    names = {disk.dev for disk in possible}
    reasons = {disk.dev: disk.reason for disk in skipped}
    for dev in wanted:
        if dev in names:
            continue
        why = reasons.get(dev)
        have = ", ".join(sorted(names)) or "none"
        raise DiskNotFoundError(
            f"{info.name}: disk {dev} cannot be backed up: {why}"
            if why
            else f"{info.name}: no disk {dev}, it has {have}",
            hint="Change `disks` of this host in the configuration.",
        )


async def _with_chain(info: DomainInfo, disk: Disk) -> Disk:
    await to_thread.run_sync(_check_readable, info.name, disk.dev, disk.path)
    _not_on_ours(info, disk)
    return replace(disk, backing=await qemu_img.backing_chain(disk.path, disk.format))


def _not_on_ours(info: DomainInfo, disk: Disk) -> Disk:
    if is_overlay_of_ours(disk.path):
        raise RollbackError(
            f"{info.name}: {disk.dev} still runs on the overlay of a killed backup, {disk.path}",
            hint="Run `virtbackup clean -b` first.",
        )
    return disk


def is_overlay_of_ours(path: Path) -> bool:
    """Tell whether the image's name is one that ``catalog.names.overlay_path`` gives."""
    return ".vbk-" in path.name


def _check_readable(domain: str, dev: str, path: Path) -> None:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        raise ImageError(
            f"{domain}: image of {dev} cannot be read: {path}: {error.strerror}",
            hint="Check that it exists on this host, and run as a user that may read it.",
        ) from error
