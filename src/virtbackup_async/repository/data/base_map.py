"""The map of an earlier backup, from which a later one of the same disk takes entries over.

::

    earlier map    | a | b | - | c | d |       - no entry: zeros
    changed        |   | x | x |   |   |       by the dirty bitmap
    index          |   |   |   |   | ? |       chunk missing: damage, or a prune came first
    to be read     |   | b | - |   | d |       the others have not changed

Called by the packager in worker threads. Memory: two bytes for each chunk of the image, and some
entries: 80 MB for 10 TB, and 700 MB during the lookup, which handles one map at a time.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from virtbackup_async.images.extents import bounded
from virtbackup_async.model.extent import Extent
from virtbackup_async.repository.data.maps import ChunkMap
from virtbackup_async.repository.format.chunks import CHUNK_BYTES, length_of
from virtbackup_async.repository.format.map_format import ENTRY, Entries, Leaves

_LEAST_AUDITED: Final = 16


class BaseMap:
    """An earlier map of an image; the caller closes its ``ChunkMap``.

    Attributes:
        size_bytes: the length of the image then.
    """

    def __init__(self, chunk_map: ChunkMap) -> None:
        self.size_bytes = chunk_map.head.size_bytes
        chunks = -(-self.size_bytes // CHUNK_BYTES)
        self._map = chunk_map
        self._is_read = np.zeros(chunks, dtype=np.bool_)
        self._has_entry = np.zeros(chunks, dtype=np.bool_)
        self._rest: Iterator[Entries] = iter(())
        self._block: Entries = np.empty(0, dtype=ENTRY)

    def choose(
        self,
        changed: Sequence[Extent],
        doubtful: Sequence[Extent],
        are_missing: Callable[[Iterator[Leaves]], NDArray[np.bool_]],
    ) -> tuple[Extent, ...]:
        """Return the chunks to read, as parts of the image; all others are taken over. Blocks.

        Args:
            changed: parts of the image that changed, or might have.
            doubtful: parts that are read even if the earlier map has zeros there.
            are_missing: returns for each of many leaves whether the repository lacks its chunk.

        Raises:
            CorruptError: the map is damaged.
        """
        for extent in changed:
            self._is_read[extent.start // CHUNK_BYTES : -(-extent.end // CHUNK_BYTES)] = True
        is_missing = are_missing(self._leaves())
        for extent in doubtful:
            chunks = slice(extent.start // CHUNK_BYTES, -(-extent.end // CHUNK_BYTES))
            self._is_read[chunks] |= ~self._has_entry[chunks]
        self._is_read[self._has_entry] |= is_missing
        parts = bounded(_parts(self._is_read, self.size_bytes))
        for part in parts:  # gaps between very many small ones are read as well
            self._is_read[part.start // CHUNK_BYTES : -(-part.end // CHUNK_BYTES)] = True
        self._rest = self._map.blocks()
        return parts

    def sample(self, percent: float, data: Sequence[Extent] | None) -> tuple[Extent, ...]:
        """Draw a sample of the chunks to be taken over, to check that they have not changed.

        A disk that shrank and grew again has lost its end, and no bitmap shows that. So chunks that
        have become zeros are always drawn, and the last chunk if a part of it is zeros.

        Args:
            percent: the size of the sample; above 0, at least ``_LEAST_AUDITED`` chunks, or all.
            data: the parts of the image that are not zeros now. Chunks that were zeros and still
                are need not be drawn.
        """
        is_data = np.full(len(self._is_read), data is None)
        for extent in data or ():
            is_data[extent.start // CHUNK_BYTES : -(-extent.end // CHUNK_BYTES)] = True
        is_kept = ~self._is_read
        drawn = np.zeros(len(self._is_read), dtype=np.bool_)
        numbers = np.flatnonzero(is_kept & (self._has_entry | is_data))
        if percent > 0:
            count = min(len(numbers), max(_LEAST_AUDITED, math.ceil(len(numbers) * percent / 100)))
            drawn[np.random.default_rng().choice(numbers, count, replace=False)] = True
        drawn[np.flatnonzero(is_kept & self._has_entry & ~is_data)[:_LEAST_AUDITED]] = True
        last = np.flatnonzero(is_kept & self._has_entry)[-1:]
        if not all(self._is_whole(number, data) for number in last.tolist()):
            drawn[last] = True
        return tuple(_parts(drawn, self.size_bytes))

    def _is_whole(self, number: int, data: Sequence[Extent] | None) -> bool:
        """Return whether a chunk is known to have no page of zeros."""
        start = number * CHUNK_BYTES
        end = start + length_of(number, self.size_bytes)
        lengths = (min(end, extent.end) - max(start, extent.start) for extent in data or ())
        return sum(length for length in lengths if length > 0) == end - start

    def leaves(self, parts: Sequence[Extent]) -> Iterator[tuple[int, bytes]]:
        """Yield number and leaf of the chunks in some parts, except those of zeros. Blocks."""
        for part in parts:
            for number in range(part.start // CHUNK_BYTES, -(-part.end // CHUNK_BYTES)):
                entry = self._map.entry(number)
                if entry is not None:
                    yield number, entry.leaf

    def take_below(self, number: int) -> Iterator[Entries]:
        """Yield the entries to be taken over, in blocks, up to a chunk; each once. Blocks."""
        while len(self._block) or self._next_block():
            place = int(np.searchsorted(self._block["number"], number))
            whole, self._block = self._block[:place], self._block[place:]
            if len(whole):
                yield whole
            if len(self._block):
                return

    def take_rest(self) -> Iterator[Entries]:
        """Yield the entries that are left. Blocks."""
        return self.take_below(len(self._is_read))

    def _leaves(self) -> Iterator[Leaves]:
        """Yield the leaves of all entries, and note which chunks have one."""
        for block in self._map.blocks():
            self._has_entry[block["number"]] = True
            yield block["leaf"]

    def _next_block(self) -> bool:
        for block in self._rest:
            self._block = block[~self._is_read[block["number"]]]
            if len(self._block):
                return True
        return False


def _parts(chosen: NDArray[np.bool_], size_bytes: int) -> Iterator[Extent]:
    """Yield the runs of chosen chunks as parts of the image."""
    edges = np.flatnonzero(np.diff(chosen, prepend=False, append=False))
    for first, after in edges.reshape(-1, 2).tolist():
        start = first * CHUNK_BYTES
        end = (after - 1) * CHUNK_BYTES + length_of(after - 1, size_bytes)
        yield Extent(start, end - start)
