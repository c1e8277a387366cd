"""Surveys this host: finds libvirt's domains, and the places where backups could be stored.

Changes nothing, and relies on no answer: an agent might be silent, an image might be missing, a
network file system might hang for ever. Such a fact is unknown, and the survey continues.
"""

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

import anyio
from anyio import to_thread
from msgspec.structs import replace

from virtbackup_async.engine.ports import DomainPort, HypervisorPort
from virtbackup_async.engine.setup.proposal import directory_on
from virtbackup_async.engine.setup.site import Images, Site
from virtbackup_async.errors import HypervisorError, StorageError, VirtBackupError
from virtbackup_async.events import AgentState, DomainFound, FileSystemFound
from virtbackup_async.files.mounts import (
    Mount,
    Place,
    Space,
    answer_in_time,
    place_of,
    place_on,
    read_mounts,
    space_at,
)
from virtbackup_async.model import domain_xml
from virtbackup_async.model.domain import Disk, DomainInfo

PARALLEL_DOMAINS = 16
LEAST_FREE_BYTES = 1024**3
_BLOCK_BYTES = 512  # of st_blocks, whatever the file system's own are
_OF_THE_SYSTEM = tuple(map(Path, ("/boot", "/efi", "/usr", "/nix")))
_PASSING = frozenset(map(Path, ("/tmp", "/var/tmp", "/var/log")))  # noqa: S108 -- none is written to
_UNKNOWN = "cannot be looked at"


async def survey(hypervisor: HypervisorPort, uri: str) -> Site:
    """Return the facts about this host.

    Raises:
        HypervisorError: libvirt does not answer.
    """
    mounts = await _mounts()
    site = Site(uri, mounts=mounts)
    names = await hypervisor.domain_names()
    found: dict[str, tuple[DomainFound, Images]] = {}
    slots = anyio.CapacityLimiter(PARALLEL_DOMAINS)

    async def look(name: str) -> None:
        async with slots:
            found[name] = await _domain(hypervisor, name, mounts)

    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(look, name, name=f"look at {name}")
    site = replace(
        site,
        domains=tuple(found[name][0] for name in names),
        images={name: found[name][1] for name in names},
    )
    return replace(site, file_systems=await _file_systems(site))


async def _mounts() -> tuple[Mount, ...]:
    try:
        return await to_thread.run_sync(read_mounts)
    except OSError:
        return ()


async def _domain(
    hypervisor: HypervisorPort, name: str, mounts: Sequence[Mount]
) -> tuple[DomainFound, Images]:
    try:
        domain = await hypervisor.domain(name)
        info = await domain.info()
        disks, _ = domain_xml.disks_of(info, pull=True)
        agent = await _agent(domain, info)
    except VirtBackupError as error:
        # It might be gone by now; an unreadable domain is backed up anyway, or its backup fails.
        message = error.within(name)
        return DomainFound(name, False, (), None, AgentState.UNKNOWN, message), Images()  # noqa: FBT003 -- running
    images, used_bytes = await _images(disks, mounts)
    devs = tuple(disk.dev for disk in disks)
    return DomainFound(name, info.is_active, devs, used_bytes, agent), images


async def _agent(domain: DomainPort, info: DomainInfo) -> AgentState:
    if not domain_xml.has_agent_channel(info.xml):
        return AgentState.NONE
    if not info.is_active:
        return AgentState.UNKNOWN
    try:
        await domain.prepare_quiesce()
    except HypervisorError:
        return AgentState.SILENT
    return AgentState.ANSWERS


async def _images(disks: Iterable[Disk], mounts: Sequence[Mount]) -> tuple[Images, int | None]:
    """Return the images of a domain's disks, and the bytes that they take; None if unknown."""
    paths = [path for disk in disks for path in _paths(disk)]
    found: dict[Path, Place] = {}
    used_bytes: int | None = 0

    def look(path: Path) -> tuple[Path, Place, int]:
        return path.resolve(), place_of(path, mounts), _used_bytes(path)

    for path in dict.fromkeys(paths):
        try:
            real, place, length = await answer_in_time(look, path)
        except (OSError, StorageError):
            found[path], used_bytes = Place(), None
            continue
        found[real] = place
        used_bytes = None if used_bytes is None else used_bytes + length
    return Images(tuple(found), tuple(found.values())), used_bytes


def _paths(disk: Disk) -> Iterable[Path]:
    """Return the files and devices of a disk; an image on a network has no path here."""
    below = (image.path for image in (*disk.backing, *disk.told.images))
    return (path for path in (disk.path, *below) if path.is_absolute())


def _used_bytes(path: Path) -> int:
    """Return the bytes that an image takes: a file's blocks, or all of a device. Blocks.

    Raises:
        OSError: it is missing, or cannot be read.
    """
    status = path.stat()
    if not stat.S_ISBLK(status.st_mode):
        return status.st_blocks * _BLOCK_BYTES
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)


async def _file_systems(site: Site) -> tuple[FileSystemFound, ...]:
    """Inspect each file system once, at its mount point nearest to the root."""
    by_device: dict[str, Mount] = {}
    for mount in site.mounts:
        known = by_device.get(mount.device)
        if mount.is_storage and (known is None or len(_parts(mount)) < len(_parts(known))):
            by_device[mount.device] = mount
    found: dict[str, FileSystemFound] = {}

    async def look(mount: Mount) -> None:
        found[mount.device] = await _file_system(site, mount)

    async with anyio.create_task_group() as tasks:
        for mount in by_device.values():
            tasks.start_soon(look, mount, name=f"look at {mount.point}")
    return tuple(found[device] for device in by_device)


def _parts(mount: Mount) -> tuple[str, ...]:
    return mount.point.parts


async def _file_system(site: Site, mount: Mount) -> FileSystemFound:
    space, unfit = None, None
    place = Place(mount.device)
    try:
        space = await answer_in_time(_directory_space, mount.point)
        place = await to_thread.run_sync(place_on, mount)
        if not await answer_in_time(_is_writable, mount.point):
            unfit = "not writable by this user"
    except StorageError:
        unfit = "does not answer"
    except OSError as error:
        unfit = f"{_UNKNOWN}: {error.strerror}"
    return FileSystemFound(
        path=str(mount.point),
        type=mount.type,
        source=mount.source,
        total_bytes=space.total_bytes if space else None,
        free_bytes=space.free_bytes if space else None,
        images_of=site.on_file_system_of(place),
        same_disk_as=site.on_disk_of(place),
        unfit=_unfit(mount, space) if unfit is None or mount.is_read_only else unfit,
    )


def _is_writable(point: Path) -> bool:
    """Return whether this user can create the proposed directory there. Blocks."""
    directory = directory_on(point)
    nearest = next(at for at in (directory, *directory.parents) if os.path.lexists(at))
    return os.access(nearest, os.W_OK | os.X_OK)


def _directory_space(path: Path) -> Space:
    # In a container, a mount point can be a single file.
    if not path.is_dir():
        raise NotADirectoryError(0, "not a directory", str(path))
    return space_at(path)


def _unfit(mount: Mount, space: Space | None) -> str | None:
    """Return why a file system is not a sensible place for backups; None if it might be."""
    if mount.is_read_only:
        return "read-only"
    of_system = any(mount.point.is_relative_to(place) for place in _OF_THE_SYSTEM)
    if of_system or mount.point in _PASSING:
        return "for the system"
    if space is None or space.free_bytes < LEAST_FREE_BYTES:
        return "too small, or full"
    return None
