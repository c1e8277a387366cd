"""Closing descriptors whose errors say nothing new."""

import os
from contextlib import suppress


def close(fd: int) -> None:
    """Close a descriptor. What counts was synced or read before, or is only a lock. Blocks."""
    with suppress(OSError):
        os.close(fd)
