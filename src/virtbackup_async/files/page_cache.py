"""Whether bytes of a file are in the page cache; ``images/sources/file.py`` asks before it reads.

mincore(2) has no side effect: a read with ``RWF_NOWAIT`` would start the kernel's read-ahead.
"""

import ctypes
import mmap

_libc = ctypes.CDLL(None)
_mmap = _libc.mmap
_mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
)
_mmap.restype = ctypes.c_void_p
_munmap = _libc.munmap
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_mincore = _libc.mincore
_mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
# Only the lowest bit of each page's byte has a meaning.
_IN_MEMORY = bytes(range(1, 256, 2))
_FAILED = ctypes.c_void_p(-1).value


def is_cached(fd: int, offset: int, length_bytes: int) -> bool:
    """Return whether all pages of a range are in memory; True if the kernel does not say. Blocks.

    The kernel answers only users who can write to the file, and only for files that can be mapped.

    Args:
        fd: open for reading.
        offset: a multiple of the page size.
        length_bytes: at least one; can reach beyond the end of the file.
    """
    # Python's own mmap duplicates the descriptor and asks for the size at each call.
    address = _mmap(None, length_bytes, mmap.PROT_READ, mmap.MAP_SHARED, fd, offset)
    if address == _FAILED:
        return True
    try:
        pages = ctypes.create_string_buffer(-(-length_bytes // mmap.PAGESIZE))
        if _mincore(address, length_bytes, pages) != 0:
            return True
    finally:
        _munmap(address, length_bytes)
    return not pages.raw.translate(None, delete=_IN_MEMORY)
