"""Marking which chunks are needed, told from the maps of a target: the first half of a prune.

::

    map of Monday    | a | b | c |        all of it is looked up
    map of Tuesday   | a | x | c |        of the same disk: only what differs
    gathered         a b c x ...          one pass over the index serves many maps

Called by the prune; memory: what was gathered, 70 MB at most. The maps are read by the block.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from virtbackup_async.errors import CorruptError
from virtbackup_async.repository.data.known_damage import read_known_damage, readable_ids
from virtbackup_async.repository.data.maps import ChunkMap, check_owner, open_map
from virtbackup_async.repository.index.id_batches import IDS_AT_ONCE, IdBatch
from virtbackup_async.repository.prune.needed import Marks
from virtbackup_async.repository.storage.layout import Repository
from virtbackup_async.repository.storage.reading import REPAIR_HINT, with_repair_hint


def mark_all(
    maps: Iterable[Path], repository: Repository, marks: Marks, on_step: Callable[[], None]
) -> None:
    """Mark what maps need. Blocks.

    Args:
        maps: of a target, all of them; a map without a definition counts like any other: its backup
            may be about to end. They must have been listed before the index was opened, which does
            not know the chunks of a map that has come since.
        repository: whose.
        marks: on its index.
        on_step: called often.

    Raises:
        CorruptError: a map is damaged, or the index does not know a chunk of it, and ``repair`` has
            not seen that. What is needed is not known then, so nothing may be removed.
        StorageError: a directory cannot be read.
    """
    gathered = _Gathered(repository, marks, on_step)
    try:
        for path in maps:
            # Its backup may have been removed since the directory was read.
            with suppress(FileNotFoundError):
                gathered.take(path)
        gathered.look_up()
        gathered.refuse_missing()
    finally:
        gathered.close()


class _Gathered:
    """The ids of many maps, to be looked up together; ``close`` it."""

    def __init__(self, repository: Repository, marks: Marks, on_step: Callable[[], None]) -> None:
        self._repository = repository
        self._marks = marks
        self._on_step = on_step
        self._batch = IdBatch(IDS_AT_ONCE)
        self._starts: list[tuple[int, Path]] = []
        self._last: ChunkMap | None = None
        self._known = read_known_damage(repository)
        self._missing: Counter[Path] = Counter()

    def take(self, path: Path) -> None:
        """Gather what a map needs, or what can be read of that if it is known to be damaged."""
        known = self._known.of(path)
        if known is None or not known.is_damaged:
            try:
                self._take_whole(path)
            except CorruptError as error:
                raise with_repair_hint(error) from error
        else:
            self._starts.append((len(self._batch), path))
            self._batch.add(readable_ids(path))

    def _take_whole(self, path: Path) -> None:
        """Gather what a map needs, but for what it has in common with the one before."""
        chunk_map = open_map(path)
        before, self._last = self._last, chunk_map
        try:
            check_owner(chunk_map, self._repository)
            self._starts.append((len(self._batch), path))
            for block in chunk_map.blocks():
                self._on_step()
                new = block if before is None else block[~before.has(block)]
                self._batch.add(new["id"])
                if self._batch.is_full:
                    self.look_up()
                    self._starts.append((0, path))
        finally:
            if before is not None:
                before.close()

    def look_up(self) -> None:
        """Mark all that was gathered, and note of which maps the index does not know it."""
        starts = [start for start, _ in self._starts]
        for place in self._marks.mark(self._batch.ids):
            self._missing[self._starts[bisect_right(starts, place) - 1][1]] += 1
        self._batch.clear()
        self._starts.clear()

    def refuse_missing(self) -> None:
        """See that no more is missing than is known to be.

        Raises:
            CorruptError: more is.
        """
        for path, count in self._missing.items():
            # A map that is gone by now needs nothing any more.
            with suppress(FileNotFoundError):
                known = self._known.of(path)
                if known is None or count > known.missing:
                    raise CorruptError(
                        f"{count} chunks of {path} are missing in {self._repository.path}",
                        hint=REPAIR_HINT,
                    )

    def close(self) -> None:
        if self._last is not None:
            self._last.close()
