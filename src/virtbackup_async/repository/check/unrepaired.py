"""Which maps are damaged or miss chunks after all was mended: the end of ``repair``."""

from collections.abc import Iterator
from contextlib import closing, suppress

from virtbackup_async.errors import CorruptError, ForeignRepositoryError, NewerVersionError
from virtbackup_async.repository.check.check import Check, OnStep
from virtbackup_async.repository.check.lost_ranges import need_map
from virtbackup_async.repository.data.known_damage import (
    KnownDamage,
    MapDamage,
    content_of_map,
    map_name,
    readable_ids,
    write_known_damage,
)
from virtbackup_async.repository.index.id_batches import ids_of
from virtbackup_async.repository.index.segments import open_index
from virtbackup_async.repository.storage.layout import ListMaps, Repository


def note_known_damage(repository: Repository, list_maps: ListMaps, on_step: OnStep) -> int:
    """Record the maps that cannot be repaired, so that a prune goes on in spite of them. Blocks.

    Returns:
        How many there are.

    Raises:
        NewerVersionError: a newer program wrote a map.
        ForeignRepositoryError: a map belongs to another repository.
        CorruptError: the index is damaged, or a map cannot be read.
        StorageError: the repository is not writable, or full.
    """
    with closing(open_index(repository)) as index:
        checking = Check(repository, index, frozenset())
        known = KnownDamage(dict(_damaged_maps(list_maps, repository, checking, on_step)))
    write_known_damage(repository, known)
    return len(known.maps)


def _damaged_maps(
    list_maps: ListMaps, repository: Repository, checking: Check, on_step: OnStep
) -> Iterator[tuple[str, MapDamage]]:
    for path in (file.path for file in list_maps()):
        # Its backup may have been removed since the directory was read.
        with suppress(FileNotFoundError):
            is_damaged = False
            try:
                missing = need_map(path, repository, checking, on_step).missing
            except (NewerVersionError, ForeignRepositoryError):
                raise
            except CorruptError:
                is_damaged = True
                missing = checking.need(ids_of(readable_ids(path)))
            if missing or is_damaged:
                yield map_name(path), MapDamage(content_of_map(path), missing, is_damaged)
