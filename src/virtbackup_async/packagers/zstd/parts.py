"""The content of a zstd frame, part by part: decompressed data, and holes.

::

    a frame with a map     run 0 | run 1 | hole | run 2 | ...     in parallel, in threads
    any other frame        some blocks | some blocks | ...        one after the other

Used by ``reader.py``; ``frame.py`` has the layout. Both yield the parts in order. Frames without a
map are passed to libzstd some blocks at a time, because its own reader does not notice that a file
is cut off. Invariant: even in a hostile file, a part has at most ``MOST_RUN_BYTES`` of data.
"""

import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Executor, Future, wait
from itertools import islice
from typing import BinaryIO, Final

import zstandard
from msgspec import Struct

from virtbackup_async.packagers.zstd.frame import LAST_BLOCK, hole_blocks, run_header
from virtbackup_async.packagers.zstd.map import FramePart

_LONGEST_HEADER_BYTES: Final = 18
_CHECKSUM_BYTES: Final = 4
_BLOCK_HEADER_BYTES: Final = 3
_RLE_BLOCK: Final = 1
# A block gives 128 KiB at most, so even a tiny input cannot make much output at once.
_BLOCKS_AT_ONCE: Final = 8


class Part(Struct, frozen=True):
    """``length`` bytes of an image: ``data``, or zeros if that is None."""

    length: int
    data: memoryview | None = None

    def split(self, length: int) -> tuple["Part", "Part"]:
        """Return the first ``length`` bytes, or all, and the rest."""
        length = min(length, self.length)
        if self.data is None:
            return Part(length), Part(self.length - length)
        return Part(length, self.data[:length]), Part(self.length - length, self.data[length:])

    def copy_to(self, target: memoryview) -> None:
        """Copy the bytes to the start of ``target``."""
        target[: self.length] = bytes(self.length) if self.data is None else self.data


def frame_start(file: BinaryIO) -> bytes:
    """Return the first bytes of a file: the frame's header, and perhaps more."""
    file.seek(0)
    start = file.read(_LONGEST_HEADER_BYTES)
    file.seek(0)
    return start


def read_pieces(
    fd: int, pieces: Iterator[FramePart], threads: Executor, most_ahead: int
) -> Generator[Part, None, None]:
    """Decompress runs in parallel, ``most_ahead`` at once. After ``close`` no thread reads ``fd``.

    A part is valid until the next one is requested.

    Raises:
        EOFError, ValueError, ZstdError: a part is damaged, cut off, or differs from the map.
    """
    under_way: deque[tuple[Future[Part], Room]] = deque()
    free = [Room() for _ in range(most_ahead)]
    try:
        while True:
            for piece in islice(pieces, len(free)):
                room = free.pop()
                under_way.append((threads.submit(read_piece, fd, piece, room), room))
            if not under_way:
                return
            future, room = under_way.popleft()
            yield future.result()
            free.append(room)
    finally:
        futures = [future for future, _ in under_way]
        for future in futures:
            future.cancel()
        wait(futures)


def read_frame(file: BinaryIO) -> Generator[Part, None, None]:
    """Read the frame at the start of ``file``, from front to back.

    Raises:
        EOFError, ZstdError: it is damaged or cut off.
    """
    start = frame_start(file)
    blocks = _Blocks(file)
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    decompressor.decompress(blocks.take(zstandard.frame_header_size(start)))
    while some := blocks.some():
        if data := decompressor.decompress(some):
            yield Part(len(data), memoryview(data))
    if zstandard.get_frame_parameters(start).has_checksum:
        decompressor.decompress(blocks.take(_CHECKSUM_BYTES))
    if not decompressor.eof:
        raise EOFError("its frame has no end")


class _Blocks:
    """Reads the blocks of a frame up to the last one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._is_at_end = False

    def take(self, length_bytes: int) -> bytes:
        data = self._file.read(length_bytes)
        if len(data) < length_bytes:
            raise EOFError("it is cut off")
        return data

    def some(self) -> bytes:
        """Return the next blocks, or the last ones; none after the frame's end."""
        blocks: list[bytes] = []
        while len(blocks) < _BLOCKS_AT_ONCE and not self._is_at_end:
            blocks.append(self._next())
        return b"".join(blocks)

    def _next(self) -> bytes:
        """Return a block with its header (RFC 8878, section 3.1.1.2)."""
        header = self.take(_BLOCK_HEADER_BYTES)
        bits = int.from_bytes(header, "little")
        kind, length_bytes, self._is_at_end = bits >> 1 & 3, bits >> 3, bool(bits & 1)
        return header + self.take(1 if kind == _RLE_BLOCK else length_bytes)


class Room:
    """Memory for a compressed and decompressed run, reused: new pages cost as much as copying."""

    def __init__(self) -> None:
        self._packed = self._plain = memoryview(b"")

    def packed(self, length_bytes: int) -> memoryview:
        """Return memory for a compressed run."""
        if len(self._packed) < length_bytes:
            self._packed = memoryview(bytearray(length_bytes))
        return self._packed[:length_bytes]

    def plain(self, length_bytes: int) -> memoryview:
        """Return memory for a decompressed run."""
        if len(self._plain) < length_bytes:
            self._plain = memoryview(bytearray(length_bytes))
        return self._plain[:length_bytes]


def read_piece(fd: int, piece: FramePart, room: Room) -> Part:
    """Decompress a run into ``room``, or check a hole.

    Raises:
        EOFError, ValueError, ZstdError: it is damaged, cut off, or differs from the map.
    """
    if piece.is_hole:
        _expect_hole(fd, piece)
        return Part(piece.length)
    header = run_header(piece.length)
    frame = room.packed(len(header) + piece.packed_bytes + len(LAST_BLOCK))
    frame[: len(header)] = header
    frame[-len(LAST_BLOCK) :] = LAST_BLOCK
    blocks = frame[len(header) : -len(LAST_BLOCK)]
    if os.preadv(fd, [blocks], piece.place) < len(blocks):
        raise EOFError("it is cut off")
    data = room.plain(piece.length)
    # In one call, so that libzstd allocates no window.
    with zstandard.ZstdDecompressor().stream_reader(frame) as reader:
        if reader.readinto(data) < len(data):
            raise EOFError("a run of it is too short")
    return Part(len(data), data)


def _expect_hole(fd: int, hole: FramePart) -> None:
    place = hole.place
    for blocks in hole_blocks(hole.length, is_first=not hole.start):
        if os.pread(fd, len(blocks), place) != blocks:
            raise ValueError("its map has a hole where none is")
        place += len(blocks)
