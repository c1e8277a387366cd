"""Direct I/O (``O_DIRECT``), which bypasses the page cache, next to a descriptor that uses it.

``images/sources/file.py`` reads images with it, ``images/sinks/at_offsets.py`` writes their data.
Unaligned ranges, and files that refuse direct I/O, use the other descriptor.
"""

import os
from typing import Final

# Enough for every device and file system; most accept 512.
ALIGNMENT: Final = 4096


def open_direct(fd: int, access: int) -> int | None:
    """Open the file of ``fd`` again, for direct I/O; None if that is impossible. Blocks.

    Args:
        fd: its descriptor.
        access: ``os.O_RDONLY`` or ``os.O_WRONLY``.
    """
    try:
        return os.open(f"/proc/self/fd/{fd}", access | os.O_CLOEXEC | os.O_DIRECT)
    except OSError:
        return None


def aligned_bytes(offset: int, length_bytes: int) -> int:
    """Return how much from ``offset`` direct I/O can try; the memory must be aligned as well."""
    return 0 if offset % ALIGNMENT else length_bytes - length_bytes % ALIGNMENT


def lies_on_a_device(fd: int) -> bool:
    """Return whether one block device holds the file's blocks: as on ext4, not on NFS or btrfs.

    There, direct writes wait for the device alone. Elsewhere they might wait for a network, or be
    copied anyway, for checksums or compression.
    """
    try:
        return os.major(os.fstat(fd).st_dev) != 0
    except OSError:
        return False
