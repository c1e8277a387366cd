"""Settings of the command's own process, made before there are threads and an event loop.

The I/O priority belongs to a thread, which passes it on to the threads and programs that it
starts later; the thresholds of the C library belong to the process.
"""

import ctypes
from contextlib import suppress
from typing import Final

from virtbackup_async.events import Emit, Warned

# malloc.h
_M_MMAP_THRESHOLD: Final = -3
_LARGE_BYTES: Final = 1024 * 1024


def give_back_what_is_large() -> None:
    """Return large blocks to the kernel when they are freed, whichever thread had them.

    glibc raises its threshold with each freed block, up to 32 MiB. Then each of a dozen threads
    keeps the memory of its last segment of xz or bzip2: 50 MB with eight disks at once.
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def take_io_priority(wanted: str, emit: Emit) -> None:
    """Yield the disks to all others if ``idle`` is wanted; a failure is only a warning."""
    if wanted != "idle":
        return
    import psutil  # noqa: PLC0415 -- only for those who want it: it takes its time to be imported

    try:
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    except (psutil.Error, OSError) as error:
        emit(Warned(f"the I/O priority stays as it is: {error}"))
