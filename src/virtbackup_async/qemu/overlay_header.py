"""What the header of an overlay says of the image below it, read without opening that image.

An undo writes an overlay's data into the image below it, and which one that is, QEMU takes from
the header. So the header is held against what the domain is known to have.
"""

import os
import stat
from pathlib import Path

from virtbackup_async.errors import ImageError
from virtbackup_async.files.closing import close
from virtbackup_async.qemu.qcow2 import HEAD_BYTES, file_beside, read_head


def is_file_name(name: str) -> bool:
    """Tell whether QEMU takes a name in a header for a path.

    It takes what stands before a colon for a protocol, unless a slash comes first.
    """
    return ":" not in name.partition("/")[0]


def check_overlay(overlay: Path, image: Path) -> None:
    """Make sure that a qcow2 overlay lies directly on ``image``, and on nothing else. Blocks.

    Raises:
        ImageError: it cannot be read, is no overlay, keeps its data in another file, or has
            another image below it.
    """
    head = _head(overlay)
    fields = read_head(head)
    if fields is None:
        raise ImageError(f"{overlay} is no qcow2 image")
    if fields.data_file is not None:
        raise ImageError(f"{overlay} keeps its data in another file: {fields.data_file}")
    check_backing(overlay, file_beside(head, may_have_backing=False), image)


def check_backing(overlay: Path, name: str | None, image: Path) -> None:
    """Make sure that the backing file's ``name``, from an overlay's header, means ``image``.

    Blocks.

    Raises:
        ImageError: it means another one, or there is none.
    """
    if not name or not is_file_name(name):
        raise ImageError(f"{overlay} names no file as the image below it: {name}")
    if os.path.realpath(overlay.parent / name) != os.path.realpath(image):
        raise ImageError(f"{overlay} lies on {name}, not on {image}")


def _head(overlay: Path) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(overlay, flags)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ImageError(f"{overlay} is no regular file")
            return os.pread(fd, HEAD_BYTES, 0)
        finally:
            close(fd)
    except OSError as error:
        raise ImageError(f"cannot read {overlay}: {error.strerror}") from error
