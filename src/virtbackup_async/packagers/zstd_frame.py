r"""One zstd frame, put together of independent runs of data and of holes (RFC 8878, section 3.1.1).

::

    frame header | run: libzstd's blocks | hole: RLE blocks, reset | run | hole | ... | last block

A hole of a GiB is 32 KiB of ready-made blocks: nothing compresses it, nothing decompresses it. Each
run is a frame of libzstd's of its own, without its header and its end. libzstd's first block of a
frame builds on nothing that was before, but for one thing: it takes the decoder's three repeat
offsets to have the values that they start with, 1, 4 and 8. So each hole ends with matches into its
own zeros at the distances 8, 4 and 1, which set them so: this is the ``reset``.

::

    block header     7 bytes, compressed
    00               literals: raw, none
    01               sequences: one ...
    54 00 03 00      ... and all tables of one symbol: no literals, offset code 3, 3 bytes long
    0b               bits, from the top: the end mark 1, then 011: offset 2**3 + 3 - 3

and the same with two sequences, of offset code 2, for 4 and 1. Used by ``zstd.py`` and
``zstd_reader.py``. Any decoder reads such a frame; ours knows the holes by ``zstd_map.py``.
"""

from collections.abc import Iterator
from typing import Final

BLOCK_BYTES: Final = 128 * 1024
SMALLEST_HOLE_BYTES: Final = 64
_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SIZE_FIELD_OF_8: Final = 3 << 6
# A block may be no longer than the window, and those of a hole are as long as any may be.
_SMALLEST_WINDOW_LOG: Final = 17
_RAW, _RLE, _COMPRESSED = range(3)
_BLOCKS_AT_ONCE: Final = 16384


def _block_header(kind: int, length_bytes: int, *, is_last: bool = False) -> bytes:
    return (length_bytes << 3 | kind << 1 | is_last).to_bytes(3, "little")


def _zeros(length_bytes: int) -> bytes:
    return _block_header(_RLE, length_bytes) + b"\0"


RESET: Final = b"".join(
    (
        _block_header(_COMPRESSED, 7) + bytes.fromhex("00 01 54 00 03 00 0b"),
        _block_header(_COMPRESSED, 7) + bytes.fromhex("00 02 54 00 02 00 1c"),
    )
)
_RESET_PLAIN_BYTES: Final = 9
_MANY_BLOCKS: Final = _zeros(BLOCK_BYTES) * _BLOCKS_AT_ONCE
LAST_BLOCK: Final = _block_header(_RAW, 0, is_last=True)


def frame_header(window_log: int, size_bytes: int) -> bytes:
    """The header of the whole frame, with the length of what is in it."""
    window = bytes([_SIZE_FIELD_OF_8, _window_descriptor(window_log)])
    return _MAGIC + window + size_bytes.to_bytes(8, "little")


def run_header(window_size: int) -> bytes:
    """The header for decompressing one run on its own; its length is left open."""
    return _MAGIC + bytes([0, _window_descriptor((window_size - 1).bit_length())])


def hole_blocks(length_bytes: int, *, is_first: bool) -> Iterator[bytes]:
    """A hole of at least ``SMALLEST_HOLE_BYTES``, some MiB at a time for a PiB of it.

    ``is_first``: the frame starts with it. zstd up to 1.4.3 stumbles over an RLE block there.
    """
    if is_first:
        yield _block_header(_RAW, 1) + b"\0"
        length_bytes -= 1
    count, rest = divmod(length_bytes - _RESET_PLAIN_BYTES, BLOCK_BYTES)
    while count:
        now = min(count, _BLOCKS_AT_ONCE)
        yield _MANY_BLOCKS[: now * 4]
        count -= now
    if rest:
        yield _zeros(rest)
    yield RESET


def _window_descriptor(window_log: int) -> int:
    return max(window_log, _SMALLEST_WINDOW_LOG) - 10 << 3
