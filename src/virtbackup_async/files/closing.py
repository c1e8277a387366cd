"""Closes descriptors whose errors do not matter."""

import os
from contextlib import suppress


def close(fd: int) -> None:
    """Close a descriptor, after its data was synced or read, or of a lock. Blocks."""
    with suppress(OSError):
        os.close(fd)
