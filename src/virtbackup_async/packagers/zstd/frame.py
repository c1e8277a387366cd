r"""One zstd frame, made of independent runs of data and of holes (RFC 8878, section 3.1.1).

::

    frame header | run: libzstd's blocks | run | hole: RLE blocks | run | hole | ... | last block

A hole of a GiB is 32 KiB of ready-made blocks, which are neither compressed nor decompressed. A
run does not depend on what precedes it (``runs.py``): with a header and an end it is a frame of its
own. Any decoder reads all of it as one frame; this program's finds the runs and holes in the map
(``map.py``).
"""

from collections.abc import Iterator
from typing import Final

BLOCK_BYTES: Final = 128 * 1024
_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SIZE_FIELD_OF_8: Final = 3 << 6
_SIZE_FIELD_OF_8_IS_WINDOW: Final = _SIZE_FIELD_OF_8 | 1 << 5
# A block can be no longer than the window, and the blocks of a hole have the greatest length.
_SMALLEST_WINDOW_LOG: Final = 17
_RAW, _RLE = range(2)
_BLOCKS_AT_ONCE: Final = 16384


def _block_header(kind: int, length_bytes: int, *, is_last: bool = False) -> bytes:
    return (length_bytes << 3 | kind << 1 | is_last).to_bytes(3, "little")


def _zeros(length_bytes: int) -> bytes:
    return _block_header(_RLE, length_bytes) + b"\0"


_MANY_BLOCKS: Final = _zeros(BLOCK_BYTES) * _BLOCKS_AT_ONCE
_PACKED_BYTES: Final = len(_zeros(BLOCK_BYTES))
LAST_BLOCK: Final = _block_header(_RAW, 0, is_last=True)


def frame_header(window_log: int, size_bytes: int) -> bytes:
    """Return the header of the whole frame, with its decompressed length."""
    window = bytes([_SIZE_FIELD_OF_8, max(window_log, _SMALLEST_WINDOW_LOG) - 10 << 3])
    return _MAGIC + window + size_bytes.to_bytes(8, "little")


HEADER_BYTES: Final = len(frame_header(0, 0))


def run_header(plain_bytes: int) -> bytes:
    """Return the header that, with ``LAST_BLOCK`` after the run, makes it a frame of its own."""
    return _MAGIC + bytes([_SIZE_FIELD_OF_8_IS_WINDOW]) + plain_bytes.to_bytes(8, "little")


def hole_blocks(length_bytes: int, *, is_first: bool) -> Iterator[bytes]:
    """Yield the blocks of a hole, some at a time, because a hole can be a PiB.

    ``is_first``: the frame starts with this hole. zstd up to 1.4.3 fails at an RLE block there.
    """
    if is_first:
        yield _block_header(_RAW, 1) + b"\0"
        length_bytes -= 1
    count, rest = divmod(length_bytes, BLOCK_BYTES)
    while count:
        now = min(count, _BLOCKS_AT_ONCE)
        yield _MANY_BLOCKS[: now * _PACKED_BYTES]
        count -= now
    if rest:
        yield _zeros(rest)


def hole_length(length_bytes: int, *, is_first: bool) -> int:
    """Return how many bytes the blocks of a hole take."""
    count = -(-(length_bytes - is_first) // BLOCK_BYTES)
    return _PACKED_BYTES * (count + is_first)
