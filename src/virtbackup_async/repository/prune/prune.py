"""Remove the chunks that no map needs, while writers and readers are at work.

::

    mark      which chunks do the maps need?                                          mark.py
    look      if a pack to be removed has a needed chunk, is the other copy good?
    repack    needed chunks of mostly unneeded packs are copied into new packs      repack.py
    announce  a note lists the packs pending deletion: writers do not use them
    wait      for writers that may have used them before: if there are any, this
              prune ends here, and the next one continues
    mark      the maps that came since: those writers may have needed a chunk
    remove    the packs, then their records in the index, then the note
    again     if there was no space to repack all: now there is more

Removing a pack takes no space, repacking one does. Where space is short, unneeded packs are removed
first, then those with the fewest needed bytes are repacked, as many as fit at a time.

Called by ``clean``. One prune at a time, under a lease. Readers never wait: they find a chunk that
has moved by opening the index again. After a crash anywhere the next prune continues; the index
names no missing pack that the note does not name too.
"""

import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.errors import CorruptError, StorageFullError
from virtbackup_async.repository.data.chunk_reader import ChunkReader
from virtbackup_async.repository.data.known_damage import read_known_damage
from virtbackup_async.repository.index.merging import merged, worth_merging
from virtbackup_async.repository.index.presence import refuse_misfits, unknown_packs
from virtbackup_async.repository.index.segment_writer import nothing_follows, write_segment
from virtbackup_async.repository.index.segments import Index, Segment, open_index, open_segment
from virtbackup_async.repository.prune.mark import NOTHING, Marks, Need, mark_all
from virtbackup_async.repository.prune.repack import Place, Repack, fitting
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
from virtbackup_async.repository.storage.leases import (
    living_writers,
    remove_temporary_files,
    take_prune_lease,
)
from virtbackup_async.repository.storage.pending_deletion import (
    PendingDeletion,
    read_pending_deletion,
    remove_pending_deletion,
    write_pending_deletion,
)
from virtbackup_async.repository.storage.run_keys import remove_unneeded, run_key_names

REWRITE_BELOW: Final = 0.5
MAX_SEGMENTS: Final = 8
# The locations of so many chunks to copy are in memory at once.
_PLACES_AT_ONCE: Final = 1 << 17


class Pruned(Struct, frozen=True):
    """The result of a prune.

    Attributes:
        freed_bytes: the length of the removed packs.
        rewritten_bytes: the length of their needed chunks, which are in new packs now.
        waiting_bytes: the length of the packs to be removed when some writers have ended.
        unrewritten_bytes: the length of mostly unneeded packs that stay, because there is no space
            to repack them.
        stored_bytes: the length of all packs that are left.
    """

    freed_bytes: int = 0
    rewritten_bytes: int = 0
    waiting_bytes: int = 0
    unrewritten_bytes: int = 0
    stored_bytes: int = 0


def prune_repository(
    repository: Repository, list_maps: ListMaps, on_step: Callable[[], None]
) -> Pruned:
    """Remove the chunks that no map needs. Blocks.

    Args:
        repository: the repository to prune.
        list_maps: lists the maps of its target; called several times.
        on_step: called often; may raise, which ends the prune safely.

    Raises:
        LockHeldError: another prune is running.
        CorruptError: a map or the index is damaged; nothing was removed.
        StorageError: the repository is not writable, or full.
    """
    lease = take_prune_lease(repository.storage)
    try:
        pruned = _Prune(repository, list_maps, on_step).run()
        lease.check()
        return pruned
    finally:
        lease.close()


class _Map(NamedTuple):
    """A map, and the version of its file: another one can get the same name."""

    name: str
    version: Hashable


class _Prune:
    def __init__(
        self, repository: Repository, list_maps: ListMaps, on_step: Callable[[], None]
    ) -> None:
        self._list_maps = list_maps
        self._on_step = on_step
        self._repository = repository
        self._storage = repository.storage
        self._pruned = Pruned()
        self._marked: frozenset[_Map] = frozenset()
        self._is_short = False
        self._most_packs = sys.maxsize

    def run(self) -> Pruned:
        note = read_pending_deletion(self._storage)
        if not note.packs or self._carry_out(note):
            while self._take_a_round():
                pass
        remove_temporary_files(self._storage)
        self._remove_run_keys()
        self._storage.keep_reserve()
        sizes = pack_sizes(self._storage, list_packs(self._storage))
        return replace(self._pruned, stored_bytes=sum(sizes.values()))

    def _take_a_round(self) -> bool:
        """Remove as much as the free space allows; return whether another round can do more."""
        self._is_short = False
        most_packs, before_bytes = self._most_packs, self._gained_bytes
        note = self._announce()
        if note.packs and not self._carry_out(note):
            return False
        has_gained = self._gained_bytes > before_bytes
        return self._is_short and (has_gained or 0 < self._most_packs < most_packs)

    @property
    def _gained_bytes(self) -> int:
        return self._pruned.freed_bytes - self._pruned.rewritten_bytes

    def _announce(self) -> PendingDeletion:
        """Find the packs that are mostly or entirely unneeded, and write the note."""
        # In this order: a writer that has ended by now has its maps, and its packs in the index;
        # the index knows all chunks of these maps. Maps that come later are seen the next time.
        sizes = pack_sizes(self._storage, list_packs(self._storage))
        living = self._writers()
        maps = self._maps()
        with closing(open_index(self._repository)) as index:
            refuse_misfits(self._repository, index, frozenset())
            marks = Marks(index)
            self._mark(marks, maps)
            needed = marks.needed()
            held = self._held(index, sizes)
            going = frozenset(
                pack
                for pack, size_bytes in sizes.items()
                if token_of(pack) not in living
                and pack not in held
                and needed.get(pack, NOTHING).length_bytes <= size_bytes * REWRITE_BELOW
            )
            copied = {pack: need for pack, need in needed.items() if pack in going}
            dead = frozenset(sorted(going - copied.keys())[: self._most_packs])
            chosen = self._choose(dead, copied)
            kept = self._last_good(marks, dead | chosen.keys())
            dead -= kept
            chosen = {pack: need for pack, need in chosen.items() if pack not in kept}
            staying = self._rewrite(marks, chosen)
            packs = (dead | chosen.keys()) - staying
            # Packs that stay might not have been read completely.
            note = PendingDeletion(packs - self._last_good(marks, packs) if staying else packs)
            left = going - note.packs
            self._pruned = replace(
                self._pruned, unrewritten_bytes=sum(sizes[pack] for pack in left) * self._is_short
            )
            if not note.packs:
                self._merge(index, living)
                return note
        # The chunks that these maps need from packs in the note have been copied.
        self._marked = frozenset(maps)
        return self._write(note, dead)

    def _choose(self, dead: frozenset[bytes], copied: Mapping[bytes, Need]) -> dict[bytes, Need]:
        """Return the packs to repack in this round."""
        chosen = fitting(copied, self._storage.free_bytes(), self._most_packs)
        self._is_short = (
            len(chosen) < len(copied)
            or len(dead) == self._most_packs
            or len(dead) + len(chosen) > self._most_packs
        )
        # Unneeded packs are removed first: that frees space.
        return {} if self._is_short and dead else chosen

    def _write(self, note: PendingDeletion, dead: frozenset[bytes]) -> PendingDeletion:
        """Write the note, unneeded packs first; fewer packs if there is little space."""
        packs = sorted(note.packs, key=lambda pack: (pack not in dead, pack))
        while True:
            try:
                write_pending_deletion(self._storage, note)
            except StorageFullError:
                if self._storage.release_reserve():
                    continue
                if len(packs) == 1:
                    raise
                packs = packs[: len(packs) // 2]
                note, self._is_short = PendingDeletion(frozenset(packs)), True
                self._most_packs = len(packs)
            else:
                return note

    def _held(self, index: Index, sizes: Mapping[bytes, int]) -> frozenset[bytes]:
        """Return the packs that might have a chunk whose other packs are missing now."""
        if not read_known_damage(self._storage).maps:
            return frozenset()
        return unknown_packs(index, sizes, self._repository.sealing.shape)

    def _last_good(self, marks: Marks, going: frozenset[bytes]) -> frozenset[bytes]:
        """Return the packs that might have the last good copy of a needed chunk.

        Of a chunk that is in several packs, one location is marked. It is read before the other
        packs are removed, unless its own pack is repacked, which reads it as well. A pack that is
        kept is not repacked, so its locations are then read here.
        """
        kept: frozenset[bytes] = frozenset()
        with ExitStack() as stack:
            chunks: ChunkReader | None = None
            before: frozenset[bytes] | None = None
            while kept != before:
                before = kept
                for id_, location in marks.places_beside(going - kept):
                    self._on_step()
                    if chunks is None:
                        chunks = stack.enter_context(closing(ChunkReader(self._repository)))
                    try:
                        chunks.read_blob(id_, location)
                    except CorruptError:
                        kept |= chunks.packs_of(id_) & going
        return kept

    def _rewrite(self, marks: Marks, needed: Mapping[bytes, Need]) -> frozenset[bytes]:
        """Copy the needed chunks of packs; return the packs that must stay."""
        if not needed:
            return frozenset()
        with closing(Repack(self._repository, new_token())) as rewriting:
            try:
                rewriting.copy(self._places(marks, needed))
            except StorageFullError:
                # Another program took the space, or there is less than the file system reports.
                self._is_short = True
                self._most_packs = len(needed) // 2
                return rewriting.staying | needed.keys()
            rewritten_bytes = self._pruned.rewritten_bytes + rewriting.copied_bytes
            self._pruned = replace(self._pruned, rewritten_bytes=rewritten_bytes)
            return rewriting.staying

    def _places(self, marks: Marks, needed: Mapping[bytes, Need]) -> Iterator[Place]:
        for packs in _groups(needed):
            for place in marks.places(packs):
                self._on_step()
                yield place

    def _carry_out(self, note: PendingDeletion) -> bool:
        """Remove the packs in the note; return False if a writer might still use them."""
        living = self._writers()
        if note.waiting_for is None:
            note = PendingDeletion(note.packs, living)
            if living:
                self._note_waiting(note)
        if living & (note.waiting_for or frozenset()):
            waiting = sum(pack_sizes(self._storage, note.packs).values())
            self._pruned = replace(self._pruned, waiting_bytes=waiting)
            # Of many hosts, one has often died a moment ago, and is waited for until the next day.
            with closing(open_index(self._repository)) as index:
                self._merge(index, living)
            return False
        maps = self._maps()
        with closing(open_index(self._repository)) as index:
            refuse_misfits(self._repository, index, note.packs)
            marks = Marks(index, going=note.packs)
            self._mark(marks, [each for each in maps if each not in self._marked])
            needed = marks.needed()
            sizes = pack_sizes(self._storage, note.packs)
            refuse_misfits(self._repository, index, note.packs - needed.keys())
            dead = note.packs - needed.keys() - self._held(index, sizes)
            if self._marked:
                # Else it was looked at, for all but the maps that came since, by the prune before.
                dead -= self._last_good(marks, dead)
            self._remove(dead)
            self._forget(index, dead)
            self._merge(index, living)
        remove_pending_deletion(self._storage)
        return True

    def _remove_run_keys(self) -> None:
        """Remove the keys of runs whose packs are gone: of what was listed before the packs."""
        names = run_key_names(self._storage)
        if names:
            living = self._writers()
            remove_unneeded(self._storage, names, living, list_packs(self._storage))

    def _note_waiting(self, note: PendingDeletion) -> None:
        # Without it the next prune waits for those that live by then: later, and as safe.
        with suppress(StorageFullError):
            write_pending_deletion(self._storage, note)

    def _maps(self) -> list["_Map"]:
        """Return the existing maps, with versions: a name alone could be used again."""
        found = []
        for file in self._list_maps():
            with suppress(FileNotFoundError):
                found.append(_Map(file.name, self._storage.status(file.name).version))
        return found

    def _mark(self, marks: Marks, maps: Iterable["_Map"]) -> None:
        mark_all((each.name for each in maps), self._repository, marks, self._on_step)

    def _writers(self) -> frozenset[str]:
        return living_writers(self._storage)

    def _merge(self, index: Index, living: frozenset[str]) -> None:
        """Replace many segments by one: each backup leaves one."""
        ended = [segment for segment in index.segments if segment_token(segment.name) not in living]
        if len(ended) > MAX_SEGMENTS:
            with suppress(StorageFullError):
                self._replace(index, worth_merging(ended), frozenset())

    def _forget(self, index: Index, dead: frozenset[bytes]) -> None:
        """Drop the records of removed packs from the index; the note has the packs until then."""
        affected = [segment for segment in index.segments if dead & set(segment.packs)]
        for segment in affected:
            if dead.issuperset(segment.packs):
                index.remove(segment)
        self._replace(index, [each for each in affected if each in index.segments], dead)

    def _replace(self, index: Index, old: list[Segment], dead: frozenset[bytes]) -> None:
        """Replace segments by one without the records of some packs."""
        if not old:
            return
        name = segment_file(new_token(), 0)
        write_segment(self._repository, name, merged(old, dead), nothing_follows)
        index.segments.append(open_segment(self._repository, name))
        for segment in old:
            index.remove(segment)

    def _remove(self, packs: Iterable[bytes]) -> None:
        for pack, size_bytes in pack_sizes(self._storage, packs).items():
            self._storage.remove(pack_file(pack))
            freed_bytes = self._pruned.freed_bytes + size_bytes
            self._pruned = replace(self._pruned, freed_bytes=freed_bytes)


def _groups(needed: Mapping[bytes, Need]) -> Iterator[frozenset[bytes]]:
    """Yield groups of packs, each with about as many locations as can be in memory."""
    group: set[bytes] = set()
    chunks = 0
    for pack in sorted(needed):
        group.add(pack)
        chunks += needed[pack].chunks
        if chunks >= _PLACES_AT_ONCE:
            yield frozenset(group)
            group, chunks = set(), 0
    yield frozenset(group)
