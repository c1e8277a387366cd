"""Where the socket and the scratch images of a pull job go.

QEMU creates these files, so it must be allowed to: libvirt's own directories of the domain are the
best place for the socket, because QEMU's user can write there, and AppArmor and SELinux let it.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from virtbackup_async.errors import HypervisorError, StorageError
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.model import domain_xml, names
from virtbackup_async.model.domain import Disk, DomainInfo
from virtbackup_async.model.pull import SOCKET_MAX_BYTES, PullJob, socket_name


async def plan_pull(
    images: ImageHost, info: DomainInfo, disks: Iterable[Disk], scratch: Path | None, token: str
) -> PullJob:
    """Name all files that a pull job creates.

    Args:
        images: the machine on which QEMU creates them.
        info: the running domain.
        disks: the disks to pull.
        scratch: the directory for scratch images; None for the directory of each disk's image.
        token: eight hexadecimal digits, which make the names this backup's own.

    Raises:
        HypervisorError: there is no directory for the socket, or for a scratch image.
    """
    socket = await _socket_path(images, info, scratch, socket_name(token))
    return PullJob(socket, {disk.dev: _scratch_path(info, disk, scratch, token) for disk in disks})


async def _socket_path(
    images: ImageHost, info: DomainInfo, scratch: Path | None, name: str
) -> Path:
    candidates = [
        *domain_xml.socket_directories(info.xml),
        *await _own_directories(images, info),
        *([scratch] if scratch else []),
    ]
    for directory in candidates:
        path = directory / name
        if len(os.fsencode(path)) <= SOCKET_MAX_BYTES and await images.is_directory(directory):
            return path
    raise HypervisorError(
        "no directory in which QEMU could make a socket",
        domain=info.name,
        hint="Set `scratch` to a directory with a short path that QEMU's user may write to.",
    )


async def _own_directories(images: ImageHost, info: DomainInfo) -> list[Path]:
    if info.running_directory is None:
        return []
    try:
        entries = await images.entries(info.running_directory)
    except StorageError:
        return []
    # libvirt cuts a long name off; the number belongs to one running domain alone.
    return [path for path in entries if path.name.startswith(f"domain-{info.domain_id}-")]


def _scratch_path(info: DomainInfo, disk: Disk, scratch: Path | None, token: str) -> Path:
    if scratch is None and disk.kind != "file":
        raise HypervisorError(
            f"{disk.dev} is a {disk.kind} disk, beside it is no place for scratch",
            disk=disk.dev,
            domain=info.name,
            hint="Set `scratch` in the configuration to a directory for scratch images.",
        )
    name = f"{info.name}-{disk.dev}" if scratch else disk.path.name
    return names.scratch_path(scratch or disk.path.parent, name, token)
