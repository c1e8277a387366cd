"""What tells an image from another one that was put in its place, and from what it was before.

A file keeps its inode while it is written to, and so it does when its contents are copied over, or
its whole file system is rolled back. A file that is made anew may get the inode of the one that it
replaces, but not its time of birth. The number of its device tells nothing: of btrfs, ZFS and NFS
it changes with each mount. So what is equal here may still be another state of the image;
``engine/backup/bases.py`` relies on nothing but the dirty bitmap in it.
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
    """Return what a file keeps while it is written to; None where nothing is known. Blocks."""
    try:
        status = path.stat()
    except OSError:
        return None
    if not status.st_ino:
        return None
    birth = _birth(path)
    return f"inode {status.st_ino}" + (f"{_BORN}{birth}" if birth else "")


def is_same_image(recorded: str | None, now: str | None) -> bool:
    """Tell whether it may be the same file; earlier versions recorded no time of birth."""
    if recorded is None or now is None:
        return recorded == now
    if _BORN in recorded and _BORN in now:
        return recorded == now
    return recorded.partition(_BORN)[0] == now.partition(_BORN)[0]


def backing_id(image: BackingImage, *, with_times: bool) -> str:
    """Return what an image below keeps as long as nobody writes to it. Blocks.

    Without the times, what it keeps as long as it is that file.
    """
    try:
        status = image.path.stat()
    except OSError as error:
        return f"{image.path}: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return str(image.path)  # a device tells nothing of what is written to it
    written = f"{_WRITTEN}{status.st_mtime_ns}, {status.st_size} bytes" if with_times else ""
    return f"{image.path}: {image_id(image.path)}{written}"


def is_same_backing(recorded: str, now: str) -> bool:
    """Tell whether it may be the same file, unwritten as far as both tell."""
    if _WRITTEN in recorded and _WRITTEN in now:
        return recorded == now
    return recorded.partition(_WRITTEN)[0] == now.partition(_WRITTEN)[0]


def signature(path: Path) -> tuple[int, ...]:
    """Return what changes when an image is written to. Blocks.

    Of a file: inode, size and both times, in ns. Of a block device: its length, and how much the
    kernel has written to it; the times of its name say nothing, QEMU may have another one.

    Raises:
        ImageError: the file is gone.
    """
    try:
        status = path.stat()
        if stat.S_ISBLK(status.st_mode):
            return (status.st_rdev, *_device_signature(status.st_rdev))
    except OSError as error:
        raise ImageError(f"image {path} is gone: {error.strerror}") from error
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _device_signature(device: int) -> tuple[int, ...]:
    """Return a device's length, and what was written and discarded, by requests and sectors."""
    told = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    counters = (told / "stat").read_text().split()
    # Linux's Documentation/block/stat.rst; the last two are there from 4.19 on.
    written = [int(counters[place]) for place in (4, 6, 11, 13) if place < len(counters)]
    return (int((told / "size").read_text()), *written)


def _birth(path: Path) -> str | None:
    """Return when a file was made; None where the file system does not say."""
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
