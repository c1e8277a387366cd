"""Reading and writing past the page cache (``O_DIRECT``), beside a descriptor that goes through it.

Used by ``source.py`` to read images, and by ``placed_data.py`` to write their data. Not everything
can be read or written so: what is not aligned, and files that refuse it, go by the other one.
"""

import os
from typing import Final

# What every device and file system is content with; most are with 512.
ALIGNMENT: Final = 4096


def open_direct(fd: int, access: int) -> int | None:
    """Open the file of ``fd`` once more, for direct I/O; None where that cannot be. Blocks.

    Args:
        fd: its descriptor.
        access: ``os.O_RDONLY`` or ``os.O_WRONLY``.
    """
    try:
        return os.open(f"/proc/self/fd/{fd}", access | os.O_CLOEXEC | os.O_DIRECT)
    except OSError:
        return None


def aligned_bytes(offset: int, length_bytes: int) -> int:
    """With how much from ``offset`` on direct I/O may be tried; the memory must be aligned, too."""
    return 0 if offset % ALIGNMENT else length_bytes - length_bytes % ALIGNMENT


def lies_on_a_device(fd: int) -> bool:
    """Whether the file's blocks are those of one block device: ext4 and XFS, but not NFS or btrfs.

    There, direct writes wait for the device alone. Elsewhere they may wait for a network, or be
    copied all the same, because they are summed up or compressed.
    """
    try:
        return os.major(os.fstat(fd).st_dev) != 0
    except OSError:
        return False
