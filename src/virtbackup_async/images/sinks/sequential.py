"""A disk stream written from front to back: as raw, or as qcow2.

::

    stream   |     |  piece  |         |piece|             with ranges of data, ascending
    pieces   |head|table|  of the disk  |table|  of the disk  |
    file      head table  000 data 000   table  data 000

``export`` calls it for files and pipes.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from anyio import to_thread

from virtbackup_async.images.pieces import Piece
from virtbackup_async.images.sinks.sequential_file import Outlet
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.qcow2_options import Qcow2Options
from virtbackup_async.qemu.qcow2 import Qcow2Layout

_NOWHERE: Final = Extent(0, 0)
_USUAL: Final = Qcow2Options()


async def write_raw(stream: DiskStream, outlet: Outlet, on_progress: Callable[[int], None]) -> None:
    """Write the image as it is; the stream's digest is known afterwards.

    Raises:
        StorageError: the pipe has no reader any more, or the target is full or failed.
    """
    await _write(stream, outlet, [Extent(0, stream.size_bytes)], on_progress)


async def write_qcow2(
    stream: DiskStream,
    outlet: Outlet,
    on_progress: Callable[[int], None],
    options: Qcow2Options = _USUAL,
) -> None:
    """Write a stream of a raw image as qcow2.

    If its extents are not known, all clusters are allocated, and zeros are holes of the file.

    Raises:
        StorageError: the pipe has no reader any more, or the target is full or failed.
    """
    data = stream.data_extents
    if data is None:
        data = (Extent(0, stream.size_bytes),) if stream.size_bytes else ()
    layout = Qcow2Layout(stream.size_bytes, data, options)
    await _write(stream, outlet, layout.pieces(), on_progress)


async def _write(
    stream: DiskStream,
    outlet: Outlet,
    pieces: Iterable[bytes | Extent],
    on_progress: Callable[[int], None],
) -> None:
    interleaved = _Interleaved(outlet, iter(pieces))
    async for piece in stream.pieces():
        await to_thread.run_sync(interleaved.add, piece)
        on_progress(stream.data_bytes)
    await to_thread.run_sync(interleaved.finish)


class _Interleaved:
    """The blocking side: writes data between qcow2's structures, and zeros where there is none."""

    def __init__(self, outlet: Outlet, pieces: Iterator[bytes | Extent]) -> None:
        self._outlet = outlet
        self._pieces = pieces
        # The rest of the current part of the disk.
        self._part: Extent | None = _NOWHERE

    def add(self, piece: Piece) -> None:
        for extent in piece.ranges:
            start = extent.start - piece.offset
            self._put(extent.start, piece.data[start : start + extent.length])

    def finish(self) -> None:
        while self._part is not None:
            self._outlet.zeros(self._part.length)
            self._next_part()
        self._outlet.finish()

    def _put(self, offset: int, data: memoryview) -> None:
        end = offset + len(data)
        while self._part is not None and self._part.start < end:
            part = self._part
            # Zeros up to the data, then as much of the data as is in this part.
            start = min(max(part.start, offset), part.end)
            stop = min(part.end, end)
            self._outlet.zeros(start - part.start)
            if start < stop:
                self._outlet.write(data[start - offset : stop - offset])
            self._part = Extent(stop, part.end - stop)
            if stop == part.end:
                self._next_part()

    def _next_part(self) -> None:
        for piece in self._pieces:
            if isinstance(piece, Extent):
                self._part = piece
                return
            self._outlet.write(memoryview(piece))
        self._part = None
