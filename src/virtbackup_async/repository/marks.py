"""Which chunks are needed, told from the maps of a target: the first half of a sweep.

A bit for each record of the index says that some map needs the chunk there. Where a chunk is in the
index twice, one place is marked, and one that is to stay if there is any. Memory: a bit a chunk.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from virtbackup_async.errors import CorruptError
from virtbackup_async.images.durable import storage_error
from virtbackup_async.repository.chunk_maps import open_map
from virtbackup_async.repository.layout import Repository
from virtbackup_async.repository.segments import Index, Location

MAP_SUFFIX: Final = ".map"
_ENTRIES_A_STEP: Final = 1024


class Marks:
    """The marks on an index; what is in packs that are ``going`` counts if it is nowhere else."""

    def __init__(self, index: Index, going: frozenset[bytes] = frozenset()) -> None:
        self._index = index
        self._going = going
        self._bits = [bytearray(segment.shape.records // 8 + 1) for segment in index.segments]

    def mark(self, id_: bytes) -> bool:
        """Mark a chunk as needed; False if the index does not know it."""
        last_resort = None
        for segment, bits in zip(self._index.segments, self._bits, strict=True):
            for number, location in segment.find(id_):
                if location.pack not in self._going:
                    bits[number >> 3] |= 1 << (number & 7)
                    return True
                last_resort = last_resort or (bits, number)
        if last_resort is None:
            return False
        bits, number = last_resort
        bits[number >> 3] |= 1 << (number & 7)
        return True

    def needed(self) -> Iterator[tuple[bytes, Location]]:
        """Give what is marked."""
        for segment, bits in zip(self._index.segments, self._bits, strict=True):
            for number, place in enumerate(segment.records()):
                if bits[number >> 3] >> (number & 7) & 1:
                    yield place

    def needed_bytes(self) -> Counter[bytes]:
        """Return how many bytes of each pack are needed; packs of which none are, are missing."""
        counts: Counter[bytes] = Counter()
        for _, location in self.needed():
            counts[location.pack] += location.length
        return counts


def mark_all(
    target: Path, repository: Repository, marks: Marks, on_step: Callable[[], None]
) -> None:
    """Mark what all maps of a target need. Blocks.

    A map without a definition counts like any other: its backup may be about to end.

    Raises:
        CorruptError: a map is damaged, or the index does not know a chunk of it. What is needed is
            not known then, so nothing may be removed.
        StorageError: a directory cannot be read.
    """
    for path in maps_of(target):
        # Its backup may have been removed since the directory was read.
        with suppress(FileNotFoundError):
            _mark_map(path, repository, marks, on_step)


def maps_of(target: Path) -> Iterable[Path]:
    """Return the paths of all maps in a target. Blocks.

    Raises:
        StorageError: a directory cannot be read.
    """
    try:
        with os.scandir(target) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if entry.name[0] != "." and entry.is_dir(follow_symlinks=False)
            )
        return [
            path
            for name in names
            for path in sorted((target / name).iterdir())
            if path.suffix == MAP_SUFFIX
        ]
    except OSError as error:
        raise storage_error("read", target, error) from error


def _mark_map(
    path: Path, repository: Repository, marks: Marks, on_step: Callable[[], None]
) -> None:
    chunk_map = open_map(path)
    try:
        if chunk_map.head.repository_id != repository.id:
            raise CorruptError(
                f"{path} belongs to another repository",
                hint="Copy a target as a whole, its repository included.",
            )
        missing = 0
        for count, entry in enumerate(chunk_map.entries()):
            if count % _ENTRIES_A_STEP == 0:
                on_step()
            missing += not marks.mark(entry.id)
    finally:
        chunk_map.close()
    if missing:
        raise CorruptError(f"{missing} chunks of {path} are missing in {repository.path}")
