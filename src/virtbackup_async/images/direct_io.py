"""Reading and writing past the page cache (``O_DIRECT``), beside a descriptor that goes through it.

Used by ``source.py`` to read images, and by ``sparse.py`` to write them. Not everything can be read
or written so: what is not aligned, and files that refuse it, go by the other descriptor.
"""

import os
from typing import Final

# What every device and file system is content with; most are with 512.
_ALIGNMENT: Final = 4096


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


def is_aligned(offset: int, length_bytes: int) -> bool:
    """Whether direct I/O may be tried with these; the memory has to be aligned, too."""
    return (offset | length_bytes) % _ALIGNMENT == 0


def lies_on_a_device(fd: int) -> bool:
    """Whether the file's blocks are those of one block device: ext4 and XFS, but not NFS or btrfs.

    There, direct writes wait for the device alone. Elsewhere they may wait for a network, or be
    copied all the same, to be summed up or compressed.
    """
    return os.major(os.fstat(fd).st_dev) != 0
