"""What is in a zstd frame, part by part: data that is decompressed, and holes that are passed over.

Used by ``zstd_reader.py``; ``zstd_frame.py`` has the layout. libzstd decompresses, some blocks at a
time: its own reader takes a file that is cut off for one that ends.
"""

from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import zstandard
from msgspec import Struct

from virtbackup_async.packagers.zstd_frame import hole_blocks, run_header
from virtbackup_async.packagers.zstd_map import Hole

_LONGEST_HEADER_BYTES: Final = 18
_CHECKSUM_BYTES: Final = 4
_BLOCK_HEADER_BYTES: Final = 3
_RLE_BLOCK: Final = 1
# A block gives 128 KiB at most, so no input however small makes much output at once.
_BLOCKS_AT_ONCE: Final = 8


class Part(Struct, frozen=True):
    """``length`` bytes of an image: ``data``, or zeros where there is none."""

    length: int
    data: memoryview | None = None

    def split(self, length: int) -> tuple["Part", "Part"]:
        """The first ``length`` bytes, or all, and the rest."""
        length = min(length, self.length)
        if self.data is None:
            return Part(length), Part(self.length - length)
        return Part(length, self.data[:length]), Part(self.length - length, self.data[length:])

    def copy_to(self, target: memoryview) -> None:
        """Put the bytes at the start of ``target``."""
        target[: self.length] = bytes(self.length) if self.data is None else self.data


def frame_start(file: BinaryIO) -> bytes:
    """The first bytes of a file: the frame's header, and perhaps more."""
    file.seek(0)
    start = file.read(_LONGEST_HEADER_BYTES)
    file.seek(0)
    return start


def read_frame(file: BinaryIO, holes: Sequence[Hole]) -> Iterator[Part]:
    """Read the frame that ``file`` starts with, with the holes that its map has.

    Raises:
        EOFError, ValueError, ZstdError: it is damaged, cut off, or not what the map says.
    """
    start = frame_start(file)
    header = zstandard.get_frame_parameters(start)
    blocks = _Blocks(file, zstandard.frame_header_size(start))
    run = _Run(blocks.header)
    position = 0
    for hole in holes:
        for data in run.read(blocks, hole.place):
            position += len(data)
            yield Part(len(data), memoryview(data))
        if position != hole.start:
            raise ValueError("its map has a hole where none is")
        blocks.expect_hole(hole)
        position += hole.length
        yield Part(hole.length)
        run = _Run(run_header(header.window_size))
    for data in run.read(blocks, None):
        yield Part(len(data), memoryview(data))
    run.end(blocks, _CHECKSUM_BYTES if header.has_checksum and not holes else 0)


class _Blocks:
    """The blocks of the frame, and where in the file the next one is."""

    def __init__(self, file: BinaryIO, header_bytes: int) -> None:
        self._file = file
        self.place = 0
        self.is_at_end = False
        self.header = self.take(header_bytes)

    def take(self, length_bytes: int) -> bytes:
        data = self._file.read(length_bytes)
        if len(data) < length_bytes:
            raise EOFError("it is cut off")
        self.place += length_bytes
        return data

    def some(self, end: int | None) -> bytes:
        """Blocks up to the place ``end``, or the frame's end; nothing if there are none."""
        blocks: list[bytes] = []
        while len(blocks) < _BLOCKS_AT_ONCE and not self.is_at_end:
            if end is not None and self.place >= end:
                break
            blocks.append(self._next())
        return b"".join(blocks)

    def expect_hole(self, hole: Hole) -> None:
        if self.place != hole.place:
            raise ValueError("its map has a hole inside of a block")
        for blocks in hole_blocks(hole.length, is_first=not hole.start):
            if self.take(len(blocks)) != blocks:
                raise ValueError("its map has a hole where data is")

    def _next(self) -> bytes:
        """A block with its header (RFC 8878, section 3.1.1.2)."""
        header = self.take(_BLOCK_HEADER_BYTES)
        bits = int.from_bytes(header, "little")
        kind, length_bytes, self.is_at_end = bits >> 1 & 3, bits >> 3, bool(bits & 1)
        return header + self.take(1 if kind == _RLE_BLOCK else length_bytes)


class _Run:
    """Blocks that libzstd decompresses as one."""

    def __init__(self, header: bytes) -> None:
        self._decompressor = zstandard.ZstdDecompressor().decompressobj()
        self._decompressor.decompress(header)

    def read(self, blocks: _Blocks, end: int | None) -> Iterator[bytes]:
        while some := blocks.some(end):
            if data := self._decompressor.decompress(some):
                yield data

    def end(self, blocks: _Blocks, checksum_bytes: int) -> None:
        if checksum_bytes:
            self._decompressor.decompress(blocks.take(checksum_bytes))
        if not self._decompressor.eof:
            raise EOFError("its frame has no end")
