"""How the C library keeps the memory of this process. Set once, before there are threads."""

import ctypes
from contextlib import suppress
from typing import Final

# malloc.h
_M_MMAP_THRESHOLD: Final = -3
_LARGE_BYTES: Final = 1024 * 1024


def give_back_what_is_large() -> None:
    """Let large blocks go back to the kernel when they are freed, whatever thread had them.

    glibc raises its threshold for that with each one that is freed, up to 32 MiB. Then each of a
    dozen threads keeps what its last segment of xz or bzip2 took: 50 MB with eight disks at once.
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
