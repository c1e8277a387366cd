r"""The mounted file systems: which of them can hold backups, how much is free, on which disks.

``init`` and ``doctor`` ask. A network file system whose server is gone answers no call, ever; so
whoever asks one waits for a while only, and the thread that asked is left behind.

The kernel's ``/proc/self/mountinfo``, see proc(5)::

    36 35 98:0 /root /mnt rw,noatime master:1 - ext4 /dev/sdb1 rw,errors=continue
          ^device    ^point                     ^type ^source    ^options of the file system
                         ^options of the mount

Blanks and the like in a path are written as ``\040``.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import anyio
from anyio import to_thread
from msgspec import Struct

from virtbackup_async.errors import StorageError
from virtbackup_async.model.storage_location import StorageLocation

T = TypeVar("T")

MOUNTINFO: Final = Path("/proc/self/mountinfo")
BLOCK_DEVICES: Final = Path("/sys/dev/block")
ANSWER_TIMEOUT_S: Final = 5.0

_ESCAPE = re.compile(r"\\([0-7]{3})")
_DEVICE, _POINT, _OPTIONS = 2, 4, 5
_TYPE, _SOURCE, _SUPER_OPTIONS = 0, 1, 2
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_IMAGES_FOR_READING = frozenset({"squashfs", "iso9660", "erofs", "cramfs", "romfs"})
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "lustre", "beegfs", "gpfs", "afs"}
)
_WITHOUT_DEVICE = _NETWORK | {"btrfs", "bcachefs", "zfs", "virtiofs"}
# FUSE serves also what is no storage: settings, portals, what a desktop shows.
_FUSE = frozenset(
    {
        "sshfs",
        "glusterfs",
        "rclone",
        "s3fs",
        "mergerfs",
        "gocryptfs",
        "encfs",
        "curlftpfs",
        "juicefs",
    }
)
# More links than that between a device and its disks are a circle.
_DEPTH_MAX = 16


class Mount(Struct, frozen=True):
    """A mounted file system.

    Attributes:
        source: mostly a device or a server's export.
        device: the kernel's number of the file system, ``254:0``; equal where it is mounted twice.
    """

    point: Path
    type: str
    source: str
    device: str = ""
    is_read_only: bool = False

    @property
    def is_in_memory(self) -> bool:
        """Whether what is in it is gone after the next start."""
        return self.type in _IN_MEMORY

    @property
    def is_network(self) -> bool:
        """Whether another machine serves it."""
        return self.type in _NETWORK or self.type.removeprefix("fuse.") in {"sshfs", "glusterfs"}

    @property
    def is_storage(self) -> bool:
        """Whether files that are written to it are on some disk; the kernel's own views are not."""
        if self.type in _IMAGES_FOR_READING:
            return False
        has_device = not self.device.startswith("0:") and bool(self.device)
        if has_device or self.type in _WITHOUT_DEVICE:
            return True
        kind, _, served = self.type.partition(".")
        # A container's root; those that the host sees of its containers are none of its business.
        is_root = self.type == "overlay" and self.point == Path("/")
        return is_root or (kind == "fuse" and served in _FUSE)


class Space(Struct, frozen=True):
    """How large a file system is, and what an ordinary user can still write."""

    total_bytes: int
    free_bytes: int

    @property
    def used_bytes(self) -> int:
        """What is used of it, or kept for root."""
        return self.total_bytes - self.free_bytes


class Place(Struct, frozen=True):
    """What a file is stored on.

    Attributes:
        device: the number of its file system, or of the device that it is; empty if unknown.
        disks: the whole disks below, by name; empty if unknown.
    """

    device: str = ""
    disks: frozenset[str] = frozenset()

    def shares_file_system(self, other: "Place") -> bool:
        """Tell whether both are on one file system."""
        return bool(self.device) and self.device == other.device

    def shares_disk(self, other: "Place") -> bool:
        """Tell whether one broken disk takes both along, as far as that can be known."""
        return self.shares_file_system(other) or not self.disks.isdisjoint(other.disks)


def read_mounts(mountinfo: Path = MOUNTINFO) -> tuple[Mount, ...]:
    """Return what is mounted, in the kernel's order: of two at one point, the last is seen. Blocks.

    Raises:
        OSError: it cannot be read.
    """
    return tuple(parse_mounts(mountinfo.read_text(errors="surrogateescape")))


def parse_mounts(mountinfo: str) -> Iterator[Mount]:
    """Give each mount of the text of ``mountinfo``; a line that is none is passed over."""
    for line in mountinfo.splitlines():
        head, dash, tail = line.partition(" - ")
        fields, after = head.split(" "), tail.split(" ")
        if not dash or len(fields) <= _OPTIONS or len(after) <= _SOURCE:
            continue
        options = {*fields[_OPTIONS].split(","), *",".join(after[_SUPER_OPTIONS:]).split(",")}
        yield Mount(
            Path(_plain(fields[_POINT])),
            after[_TYPE],
            _plain(after[_SOURCE]),
            fields[_DEVICE],
            "ro" in options,
        )


def mount_of(path: Path, mounts: Iterable[Mount]) -> Mount | None:
    """Return the mount that an absolute path without symlinks lies on; the last one wins."""
    found: Mount | None = None
    for mount in mounts:
        if not path.is_relative_to(mount.point):
            continue
        if found is None or len(mount.point.parts) >= len(found.point.parts):
            found = mount
    return found


def place_of(path: Path, mounts: Iterable[Mount]) -> Place:
    """Return what a file or directory is stored on, or a device is. Blocks.

    Raises:
        OSError: the way to it leads in a circle.
    """
    real = path.resolve()
    number = block_device(real)
    if number is None:
        mount = mount_of(real, mounts)
        return place_on(mount) if mount else Place()
    return Place(number, disks_below(number))


def place_on(mount: Mount) -> Place:
    """Return what a file system is stored on. Blocks.

    File systems of one ZFS pool, or of one server, are taken to be on the same disks.
    """
    source = mount.source
    if mount.type == "zfs":
        disks = frozenset({f"zpool {source.partition('/')[0]}"})
    elif mount.is_network:
        host = source.removeprefix("//").partition("/")[0].rpartition(":")
        disks = frozenset({f"server {host[0] or host[2]}"})
    else:
        disks = disks_below(block_device(Path(source)) or mount.device)
    return Place(mount.device, disks)


def space_at(path: Path) -> Space:
    """Return the room at a path. Blocks.

    Raises:
        OSError: it cannot be looked at.
    """
    status = os.statvfs(path)
    return Space(status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize)


async def space_of(target: StorageLocation) -> Space | None:
    """Return the room in a target; None if its storage does not say.

    Raises:
        StorageError: its file system does not answer.
        OSError: it cannot be looked at.
    """
    return await answer_in_time(space_at, target.directory) if target.is_local else None


async def answer_in_time(
    look: Callable[[Path], T], path: Path, *, timeout_s: float = ANSWER_TIMEOUT_S
) -> T:
    """Look at a path in a thread that is left behind if its file system does not answer.

    Raises:
        StorageError: it did not.
        OSError: of ``look``.
    """
    with anyio.move_on_after(timeout_s):
        # A limit of its own: threads that are stuck must not be in the way of others.
        limit = anyio.CapacityLimiter(1)
        return await to_thread.run_sync(look, path, abandon_on_cancel=True, limiter=limit)
    raise StorageError(
        f"{path} does not answer",
        hint="See whether the server of its file system can be reached.",
    )


def disks_below(number: str, block_devices: Path = BLOCK_DEVICES) -> frozenset[str]:
    """Return the names of the whole disks that a block device is on; empty if that is unknown.

    A partition is on its disk; what device mapper and md make is on the disks below. Blocks.

    Args:
        number: the device's, ``8:17``.
        block_devices: the kernel's directory of them.
    """
    try:
        device = (block_devices / number).resolve(strict=True)
        return frozenset(_disks(device, _DEPTH_MAX))
    except OSError:
        return frozenset()


def _disks(device: Path, depth: int) -> Iterator[str]:
    if (device / "partition").exists():
        device = device.parent
    slaves = device / "slaves"
    below = [slave.resolve(strict=True) for slave in slaves.iterdir()] if slaves.is_dir() else []
    if not below:
        yield device.name
    for slave in below if depth else ():
        yield from _disks(slave, depth - 1)


def block_device(path: Path) -> str | None:
    """Return the number of a block device; None for anything else. Blocks."""
    # A source such as "nas:/export" is none, and may be the name of a file where we are.
    if not path.is_absolute():
        return None
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISBLK(status.st_mode):
        return None
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)
