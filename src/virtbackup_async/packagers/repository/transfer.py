"""Transfers an image between repositories: of its chunks, only those that are missing are read.

::

    source's map     | a | b | - | c | d |       32,768 entries at once
    target's index   | a |   |   | c |   |       known: only the entry goes into the new map
    missing                b           d         read ahead, in the order of the packs
                                                 blob, compared with its id --> a pack here
                                                 sealed otherwise: opened, hashed, sealed anew

``writer.py`` calls it for each image. Batches of missing chunks are read in parallel and stored in
any order, since the entries are in the map already. Invariants: a claimed chunk is stored or given
up before the task waits for anything else, so two writers never wait for each other; memory is that
of the batches, which all images share.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from anyio import CancelScope, to_thread

from virtbackup_async.concurrency import open_workers
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.interface import Progress
from virtbackup_async.packagers.repository.store_stream import batch_places
from virtbackup_async.repository import (
    ChunkMap,
    ChunkWriter,
    Entries,
    MapWriter,
    ReadAhead,
    data_length_of,
)

_CHUNKS_A_BATCH: Final = 16


class Transfer:
    """The transfer of one image.

    Attributes:
        read_bytes: the data of the image that was read from the source, so far.
        stored_bytes: by how many bytes the packs grew, so far.
    """

    def __init__(
        self, source: ReadAhead, chunks: ChunkWriter, image: MapWriter, cpu: CpuShares
    ) -> None:
        self.read_bytes = 0
        self.stored_bytes = 0
        self._done_bytes = 0
        self._source = source
        self._chunks = chunks
        self._image = image
        self._cpu = cpu

    async def run(self, chunk_map: ChunkMap, on_progress: Progress) -> None:
        """Store the chunks of a map that are missing here, and fill the new map.

        Raises:
            CorruptError: the source, or the index here, is damaged.
            StorageError: the target is full or failed, or the source cannot be read.
        """
        blocks = chunk_map.blocks()
        size_bytes = chunk_map.head.size_bytes
        async with open_workers(self._cpu.shared(batch_places)) as workers:
            while (block := await to_thread.run_sync(next, blocks, None)) is not None:
                missing = await to_thread.run_sync(self._enter, block)
                self._source.add(missing["leaf"])
                missing_bytes = data_length_of(missing, size_bytes) if len(missing) else 0
                self._done_bytes += data_length_of(block, size_bytes) - missing_bytes
                self.read_bytes += missing_bytes
                on_progress(self._done_bytes)
                for batch in _batches(missing):
                    done_bytes = missing_bytes * len(batch) // len(missing)
                    work = partial(self._take, batch, done_bytes, on_progress)
                    await workers.start(work, name="transfer chunks")
            await workers.finish()

    def _enter(self, block: Entries) -> Entries:
        """Add entries to the new map; return those whose chunks are missing, each chunk once."""
        is_missing = self._chunks.are_missing([block["leaf"]])
        self._image.add(block)
        places = is_missing.nonzero()[0].tolist()
        first = {block["leaf"][place].tobytes(): place for place in reversed(places)}
        return block[sorted(first.values())]

    async def _take(self, leaves: Sequence[bytes], data_bytes: int, on_progress: Progress) -> None:
        # A batch is always completed: other images might wait for the chunks that it claims.
        with CancelScope(shield=True):
            stored_bytes = await to_thread.run_sync(self._read_and_store, leaves)
        self.stored_bytes += stored_bytes
        self._done_bytes += data_bytes
        on_progress(self._done_bytes)

    def _read_and_store(self, leaves: Sequence[bytes]) -> int:
        by_id = {self._chunks.id_of(leaf): leaf for leaf in leaves}
        packed = self._chunks.pack_from(self._source, by_id)
        stored_bytes = self._chunks.store(packed)
        return stored_bytes + self._chunks.wait_and_pack(
            packed.others,
            lambda ids: self._chunks.pack_from(self._source, {id_: by_id[id_] for id_ in ids}),
        )


def _batches(entries: Entries) -> Iterator[list[bytes]]:
    for start in range(0, len(entries), _CHUNKS_A_BATCH):
        yield [leaf.tobytes() for leaf in entries["leaf"][start : start + _CHUNKS_A_BATCH]]
