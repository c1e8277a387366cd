"""Zeros for the packagers that must spell out what a disk stream leaves out."""

from collections.abc import Iterator
from typing import Final

from virtbackup_async.images.buffers import MIB

_ZEROS: Final = memoryview(bytes(MIB))


def zero_pieces(length_bytes: int) -> Iterator[memoryview]:
    """``length_bytes`` of zeros, in pieces that share their memory."""
    while length_bytes > 0:
        piece = _ZEROS[:length_bytes]
        length_bytes -= len(piece)
        yield piece
