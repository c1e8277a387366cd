"""Identifies an image: is it still the same file, and did anything write to it?

A file keeps its inode while it is written to, but also if its contents are copied over, or its file
system is rolled back. A new file can get the inode of the one that it replaces, but not its time of
birth. The device number says nothing, because it changes with each mount of btrfs, ZFS and NFS. So
an equal id can still mean another state of the image; ``engine/backup/bases.py`` relies only on the
dirty bitmap in it.
"""

import ctypes
import os
import stat
import sys
from pathlib import Path
from typing import Final

from virtbackup_async.errors import ImageError
from virtbackup_async.model.domain import BackingImage

_AT_FDCWD: Final = -100
_STATX_BTIME: Final = 0x800
_STATX_BYTES: Final = 256
_MASK: Final = slice(0, 4)
_BIRTH_S: Final = slice(80, 88)
_BIRTH_NS: Final = slice(88, 92)
_BORN: Final = " born "
_WRITTEN: Final = ", written "


def image_id(path: Path) -> str | None:
    """Return an id that a file keeps while it is written to; None if unknown. Blocks."""
    try:
        status = path.stat()
    except OSError:
        return None
    if not status.st_ino:
        return None
    birth = _birth(path)
    return f"inode {status.st_ino}" + (f"{_BORN}{birth}" if birth else "")


def is_same_image(recorded: str | None, now: str | None) -> bool:
    """Return whether it can be the same file; earlier versions recorded no time of birth."""
    if recorded is None or now is None:
        return recorded == now
    if _BORN in recorded and _BORN in now:
        return recorded == now
    return recorded.partition(_BORN)[0] == now.partition(_BORN)[0]


def backing_id(image: BackingImage, *, with_times: bool) -> str:
    """Return an id that a backing file keeps as long as nothing writes to it. Blocks.

    Without the times, it keeps the id as long as it is the same file.
    """
    try:
        status = image.path.stat()
    except OSError as error:
        return f"{image.path}: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return str(image.path)  # a device does not show whether it was written to
    written = f"{_WRITTEN}{status.st_mtime_ns}, {status.st_size} bytes" if with_times else ""
    return f"{image.path}: {image_id(image.path)}{written}"


def is_same_backing(recorded: str, now: str) -> bool:
    """Return whether it can be the same file, unchanged if both ids have the times."""
    if _WRITTEN in recorded and _WRITTEN in now:
        return recorded == now
    return recorded.partition(_WRITTEN)[0] == now.partition(_WRITTEN)[0]


def signature(path: Path) -> tuple[int, ...]:
    """Return a value that changes when an image is written to. Blocks.

    For a file: inode, size and both times, in ns. For a block device: its length, and how much the
    kernel has written to it. The times of its device node say nothing: QEMU can use another node.

    Raises:
        ImageError: the file is missing.
    """
    try:
        status = path.stat()
        if stat.S_ISBLK(status.st_mode):
            return (status.st_rdev, *_device_signature(status.st_rdev))
    except OSError as error:
        raise ImageError(f"image {path} is gone: {error.strerror}") from error
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _device_signature(device: int) -> tuple[int, ...]:
    """Return a device's length, and its writes and discards, in requests and sectors."""
    told = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    counters = (told / "stat").read_text().split()
    # Linux's Documentation/block/stat.rst; the last two exist since 4.19.
    written = [int(counters[place]) for place in (4, 6, 11, 13) if place < len(counters)]
    return (int((told / "size").read_text()), *written)


def _birth(path: Path) -> str | None:
    """Return a file's time of birth; None if the file system does not record it."""
    try:
        statx = ctypes.CDLL(None, use_errno=True).statx
    except AttributeError:  # a C library without it
        return None
    found = ctypes.create_string_buffer(_STATX_BYTES)
    if statx(_AT_FDCWD, ctypes.c_char_p(os.fsencode(path)), 0, _STATX_BTIME, found):
        return None
    head, seconds, parts = (
        int.from_bytes(found.raw[field], sys.byteorder) for field in (_MASK, _BIRTH_S, _BIRTH_NS)
    )
    return f"{seconds}.{parts:09}" if head & _STATX_BTIME else None
