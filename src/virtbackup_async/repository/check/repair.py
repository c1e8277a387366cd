"""Repair a repository: drop bad records from the index, and add the chunks that it lost.

::

    reindex       packs that are not fully indexed are read: good chunks go into new
                  segments, then the segments that cannot be read are removed
    heads         the head of a pack follows from its name, and is rewritten in place
    drop          each segment with bad records is replaced by one without them
    note          maps that are damaged, or still miss chunks                    known_damage.py

Called by ``repair``, which holds the lease of the prune: backups and restores continue. Each step
is durable before the next, so that a later repair can continue after a crash. No pack is ever
removed, and no chunk with a good copy is forgotten. A backup that is running and relies on a bad
chunk is as damaged as without the repair; the next one finds the chunk missing, and stores it
again.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from typing import Final

import numpy as np

from virtbackup_async.errors import (
    CorruptError,
    ForeignRepositoryError,
    NewerVersionError,
)
from virtbackup_async.repository.check.check import Check, Flags, OnStep
from virtbackup_async.repository.check.lost_ranges import need_map
from virtbackup_async.repository.check.scan_pack import chunks_of_pack
from virtbackup_async.repository.data.known_damage import (
    KnownDamage,
    MapDamage,
    content_of_map,
    readable_leaves,
    write_known_damage,
)
from virtbackup_async.repository.format import index_format, pack_format
from virtbackup_async.repository.index.id_batches import ids_of
from virtbackup_async.repository.index.presence import unknown_packs
from virtbackup_async.repository.index.segment_writer import (
    Content,
    content_of,
    nothing_follows,
    write_segment,
)
from virtbackup_async.repository.index.segments import (
    Index,
    Location,
    Segment,
    open_index,
    open_index_anew,
)
from virtbackup_async.repository.storage.layout import (
    ListMaps,
    Repository,
    list_packs,
    new_token,
    pack_file,
    pack_sizes,
    segment_file,
    segment_token,
    token_of,
)
from virtbackup_async.repository.storage.leases import living_writers
from virtbackup_async.repository.storage.pending_deletion import (
    read_pending_deletion,
    remove_pending_deletion,
)

CHUNKS_A_SEGMENT: Final = 65536


def drop_damaged_pending_deletion(repository: Repository) -> None:
    """Remove the note of packs pending deletion if it is damaged. Blocks."""
    try:
        read_pending_deletion(repository.storage)
    except CorruptError:
        remove_pending_deletion(repository.storage)


def reindex_packs(repository: Repository, on_step: OnStep) -> tuple[int, int]:
    """Index the chunks in packs that the index lacks, and remove damaged segments. Blocks.

    Returns:
        The numbers of chunks indexed and of segments removed.

    Raises:
        StorageError: the repository is not writable, or full.
        NewerVersionError: a newer program wrote a segment.
        ForeignRepositoryError: a segment belongs to another repository.
    """
    # In this order: a writer that has ended by now has its packs in the index.
    sizes = pack_sizes(repository.storage, list_packs(repository.storage))
    living = living_writers(repository.storage)
    index, damaged = open_index_anew(repository)
    with closing(index):
        unknown = unknown_packs(index, sizes, repository.sealing.shape)
        packs = sorted(pack for pack in unknown if token_of(pack) not in living)
        count = _index_packs(repository, index, packs, on_step)
    removed = 0
    for segment in damaged:
        if isinstance(segment.error, NewerVersionError | ForeignRepositoryError):
            raise segment.error
        if segment_token(segment.name) not in living:
            repository.storage.remove(segment.name)
            removed += 1
    return count, removed


def repair_heads(repository: Repository, checking: Check) -> int:
    """Rewrite damaged heads of packs. Blocks.

    Returns:
        How many.

    Raises:
        StorageError: a pack is not writable.
    """
    for pack in checking.damaged_heads:
        version = repository.sealing.shape.version
        head = pack_format.encode_head(repository.id, pack, version)
        repository.storage.overwrite(pack_file(pack), head)
    return len(checking.damaged_heads)


def drop_bad_entries(repository: Repository, checking: Check) -> tuple[int, int]:
    """Drop bad records from the index, except those of living writers. Blocks.

    Returns:
        The numbers of records dropped and of bad ones that stay.

    Raises:
        StorageError: the repository is not writable, or full.
    """
    living = living_writers(repository.storage)
    taken = left = 0
    for segment, bad in checking.bad_segments():
        count = int(np.count_nonzero(bad))
        # Its writer might have merged it with others of its own since.
        if segment_token(segment.name) in living or not repository.storage.exists(segment.name):
            left += count
            continue
        content = _without(segment, bad)
        if content.at_most:
            write_segment(repository, segment_file(new_token(), 0), content, nothing_follows)
        repository.storage.remove(segment.name)
        taken += count
    return taken, left


def note_known_damage(repository: Repository, list_maps: ListMaps, on_step: OnStep) -> int:
    """Record the maps that cannot be repaired, so that a prune continues anyway. Blocks.

    Returns:
        The number of these maps.

    Raises:
        NewerVersionError: a newer program wrote a map.
        ForeignRepositoryError: a map belongs to another repository.
        CorruptError: the index is damaged, or a map cannot be read.
        StorageError: the repository is not writable, or full.
    """
    with closing(open_index(repository)) as index:
        checking = Check(repository, index, frozenset())
        maps = (file.name for file in list_maps())
        known = KnownDamage(dict(_damaged_maps(repository, maps, checking, on_step)))
    write_known_damage(repository.storage, known)
    return len(known.maps)


def _damaged_maps(
    repository: Repository, maps: Iterable[str], checking: Check, on_step: OnStep
) -> Iterator[tuple[str, MapDamage]]:
    storage = repository.storage
    for name in maps:
        # Its backup might have been removed since the maps were listed.
        with suppress(FileNotFoundError):
            is_damaged = False
            try:
                missing = need_map(repository, name, checking, on_step).missing
            except (NewerVersionError, ForeignRepositoryError):
                raise
            except CorruptError:
                is_damaged = True
                leaves = readable_leaves(storage, name)
                missing = checking.need(ids_of(repository.sealing.ids_of(leaves)))
            if missing or is_damaged:
                yield name, MapDamage(content_of_map(storage, name), missing, is_damaged)


def _index_packs(repository: Repository, index: Index, packs: list[bytes], on_step: OnStep) -> int:
    token, count, segments = new_token(), 0, 0
    found: list[tuple[bytes, Location]] = []

    def publish() -> None:
        nonlocal count, segments
        if found:
            name = segment_file(token, segments)
            write_segment(repository, name, content_of(found), nothing_follows)
            count += len(found)
            segments += 1
            found.clear()

    for pack in packs:
        for place in _chunks_of(repository, pack):
            on_step()
            id_, location = place
            if location not in index.places(id_):
                found.append(place)
        if len(found) >= CHUNKS_A_SEGMENT:
            publish()
    publish()
    return count


def _chunks_of(repository: Repository, pack: bytes) -> Iterator[tuple[bytes, Location]]:
    with suppress(CorruptError, FileNotFoundError):
        yield from chunks_of_pack(repository, pack)


def _without(segment: Segment, bad: Flags) -> Content:
    """Return the good records of a segment, and the packs that they name."""
    is_used = np.zeros(len(segment.packs), dtype=np.bool_)
    for records in _good_records(segment, bad):
        is_used[records["pack"]] = True
    numbers = (np.cumsum(is_used) - 1).astype(np.uint32)
    packs = [pack for pack, used in zip(segment.packs, is_used.tolist(), strict=True) if used]
    at_most = int(len(bad) - np.count_nonzero(bad))

    def blocks() -> Iterator[index_format.Records]:
        for records in _good_records(segment, bad):
            records["pack"] = numbers[records["pack"]]
            yield records

    return Content(packs, blocks(), at_most)


def _good_records(segment: Segment, bad: Flags) -> Iterator[index_format.Records]:
    for first, end in segment.parts():
        yield segment.read_records(first, end)[~bad[first:end]]
