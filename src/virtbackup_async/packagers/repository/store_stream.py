"""Stores a disk stream in a repository: chunks are packed in parallel, and stored in order.

::

    stream   | batch 0 | batch 1 | batch 2 | ...      a buffer each
    threads    pack      pack      pack               a bounded number at once
    pack     [chunks of 0][chunks of 1]...            and their entries into the map
             wait_for_others: for chunks that other disks are storing, in any order

``writer.py`` calls it for each image. Invariants: A packed batch is always stored, and until then
it only waits for earlier batches. It waits for other disks' chunks after that, so two disks never
wait for each other. When ``store_stream`` is left, no work is in progress, and no chunk is
claimed.
"""

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Final

from anyio import CancelScope, Event, Semaphore, to_thread
from msgspec import Struct

from virtbackup_async.concurrency import open_workers
from virtbackup_async.images.pieces import Piece
from virtbackup_async.images.stream import Batch, DiskStream
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.interface import NewData, Progress
from virtbackup_async.repository import (
    CHUNK_BYTES,
    BaseMap,
    ChunkWriter,
    MapEntry,
    MapWriter,
    Packed,
    entries_of,
    pages_of,
)

# Fewer than anyio's threads: tasks that wait for other disks' chunks must leave threads for these.
_MOST_BATCHES: Final = 16


class MappedImage(Struct, frozen=True):
    """The map of an image that is being written, and the earlier map that supplies the rest."""

    image: MapWriter
    base: BaseMap | None

    def add(self, pieces: tuple[Piece, ...]) -> None:
        """Add the chunks of pieces, each after the earlier map's entries before it. Blocks."""
        for piece in pieces:
            if self.base is not None:
                for entries in self.base.take_below(piece.offset // CHUNK_BYTES):
                    self.image.add(entries)
            self.image.add(entries_of(_entries(piece)))


async def store_stream(
    stream: DiskStream,
    chunks: ChunkWriter,
    mapped: MappedImage,
    cpu: CpuShares,
    on_progress: Progress,
) -> NewData:
    """Store a stream's chunks and map them; return how much of the data was new.

    Raises:
        StorageError: the target is full or failed.
        CorruptError: the index is damaged.
        VirtBackupError: of the stream.
    """
    async with open_workers(cpu.shared(batch_places)) as workers:
        intake = _StreamStore(chunks, mapped, cpu)
        while (batch := await stream.take()) is not None:
            await workers.start(intake.of(batch), name="store a batch")
            on_progress(stream.data_bytes)
        await workers.finish()
    return intake.new_data


def batch_places(cpu: CpuShares) -> Semaphore:
    """Return the places for batches that are compressed, or not yet on disk, of all images."""
    return Semaphore(min(_MOST_BATCHES, 2 * cpu.threads + 1))


class _StreamStore:
    def __init__(self, chunks: ChunkWriter, mapped: MappedImage, cpu: CpuShares) -> None:
        self.new_data = NewData()
        self._chunks = chunks
        self._mapped = mapped
        self._cpu = cpu
        self._last_is_stored = Event()
        self._last_is_stored.set()

    def of(self, batch: Batch) -> Callable[[], Awaitable[None]]:
        """Return the work to do for a batch, which is stored after the previous ones."""
        before, self._last_is_stored = self._last_is_stored, Event()
        return partial(self._take, batch, before, self._last_is_stored)

    async def _take(self, batch: Batch, before: Event, is_stored: Event) -> None:
        try:
            # A batch is always completed: other disks might wait for the chunks that it claims.
            with CancelScope(shield=True):
                await self._pack_and_store(batch, before, is_stored)
        finally:
            is_stored.set()
            batch.give_back()

    async def _pack_and_store(self, batch: Batch, before: Event, is_stored: Event) -> None:
        data = {
            self._chunks.id_of(leaf): chunk
            for piece in batch.pieces
            for leaf, chunk in _chunks_of(piece)
        }
        packed = await self._cpu.run(partial(self._chunks.pack, data))
        await before.wait()
        stored_bytes = await to_thread.run_sync(self._store, packed, batch)
        new_bytes = sum(len(data[id_]) for id_ in packed.blobs)
        self.new_data += NewData(new_bytes, stored_bytes)
        is_stored.set()
        if packed.others:
            others_bytes = await to_thread.run_sync(
                self._chunks.wait_for_others, packed.others, data
            )
            self.new_data += NewData(0, others_bytes)

    def _store(self, packed: Packed, batch: Batch) -> int:
        stored_bytes = self._chunks.store(packed)
        self._mapped.add(batch.pieces)
        return stored_bytes


def _chunks_of(piece: Piece) -> Iterator[tuple[bytes, memoryview]]:
    """Cut a piece of a stream into chunks, each with its leaf."""
    for place, leaf in enumerate(piece.leaves):
        yield leaf, piece.data[place * CHUNK_BYTES : (place + 1) * CHUNK_BYTES]


def _entries(piece: Piece) -> Iterator[MapEntry]:
    for number, leaf in enumerate(piece.leaves, piece.offset // CHUNK_BYTES):
        yield MapEntry(number, pages_of(number, piece.ranges), leaf)
