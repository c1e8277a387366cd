"""What the command sets for its own process, before there are threads and an event loop.

The kernel's I/O priority belongs to a thread, and is handed down to the threads and programs that
it starts from then on; the C library's thresholds belong to the process.
"""

import ctypes
from contextlib import suppress
from typing import Final

from virtbackup_async.events import Emit, Warned

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


def take_io_priority(wanted: str, emit: Emit) -> None:
    """Let all others go first where ``idle`` is wanted; one that cannot be had must stop nobody."""
    if wanted != "idle":
        return
    import psutil  # noqa: PLC0415 -- only for those who want it: it takes its time to be imported

    try:
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    except (psutil.Error, OSError) as error:
        emit(Warned(f"the I/O priority stays as it is: {error}"))
