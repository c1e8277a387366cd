r"""Which chunks need not be stored: those in the index, and those that this process is storing.

::

    backup 1 --writer--> its packs --\
    backup 2 --writer--> its packs ----> index        known: the index, as it was and as it grows,
    another process -------------------/                     and who stores what is not in it yet

One for each repository of a process, shared by the writers of ``chunk_writer.py``, so that disks
with equal data which are backed up at once store it once. Invariants: the lease is there before the
index is read; packs that are pending deletion, missing or cut off by then count as not there; a
writer that relies on a chunk of another writer makes that one index it. Memory: the
chunks that are not in the index yet, some ten thousand a writer.
"""

from collections.abc import Collection, Iterable
from itertools import count
from threading import Condition, Lock
from typing import Protocol

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from virtbackup_async.repository.index.id_batches import IdField
from virtbackup_async.repository.index.lookup import are_missing
from virtbackup_async.repository.index.presence import in_words, misfits
from virtbackup_async.repository.index.segments import Index, Segment, open_index
from virtbackup_async.repository.storage.layout import Repository, new_token
from virtbackup_async.repository.storage.leases import Lease, take_lease
from virtbackup_async.repository.storage.pending_deletion import read_pending_deletion


class Storer(Protocol):
    """Who stores chunks.

    Attributes:
        is_relied_on: somebody else takes chunks of its, which are not in the index, for present.
        relies_on: whose chunks it takes for present.
    """

    is_relied_on: bool
    relies_on: "set[Storer]"

    def publish_own(self) -> None: ...

    def discard(self) -> None: ...


class Claim(Struct, frozen=True):
    """The requested chunks that are not stored yet.

    Attributes:
        own: chunks for the claimer to store.
        others: chunks that others are storing: wait for them, then claim again.
    """

    own: list[bytes] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)


class KnownChunks:
    """What is known, under a lease; for several threads. ``close`` it.

    Attributes:
        users: how many writers there are.
        left: those that have ended; some may have left what others rely on.
    """

    def __init__(self, repository: Repository, lease: Lease) -> None:
        self.repository = repository
        self.lease = lease
        self.token = lease.holder
        self.pack_numbers = count()
        self.segment_numbers = count()
        self.users = 0
        self.left: list[Storer] = []
        pending = read_pending_deletion(repository.storage).packs
        self._index = open_index(repository)
        try:
            absent = misfits(repository, self._index, pending)
        except BaseException:
            self._index.close()
            raise
        self._problem = in_words(absent) if absent else None
        self._pending = pending | absent.keys()
        self._coming: dict[bytes, Storer | None] = {}
        self._turn = Condition()
        self._keeping_open = Lock()

    def take_problem(self) -> str | None:
        """Return what is wrong with the packs; only the first call does."""
        with self._turn:
            problem, self._problem = self._problem, None
            return problem

    def claim(self, ids: Iterable[bytes], storer: Storer) -> Claim:
        """Claim those of some chunks, each named once, that are not there.

        Raises:
            CorruptError: the index is damaged; nothing is claimed.
        """
        claim = Claim()
        with self._turn:
            try:
                for id_ in ids:
                    self._claim(id_, storer, claim)
            except BaseException:
                self._give_up(claim.own)
                raise
        return claim

    def note_stored(self, ids: Iterable[bytes], storer: Storer) -> None:
        """Say that what was claimed is in a pack."""
        with self._turn:
            self._coming.update(dict.fromkeys(ids, storer))
            self._turn.notify_all()

    def give_up(self, ids: Iterable[bytes]) -> None:
        """Let others store what was claimed, unless it was stored."""
        with self._turn:
            self._give_up(ids)

    def wait_for(self, others: Collection[bytes]) -> None:
        """Wait for chunks that others were storing: stored by now, or given up. Blocks for moments.

        Nothing that is claimed may have to wait for the caller: so nobody waits for a waiter.
        """
        with self._turn:
            self._turn.wait_for(lambda: not any(map(self._is_being_stored, others)))

    def note_indexed(self, ids: Collection[bytes], segment: Segment, storer: Storer) -> None:
        """Say that all that ``storer`` has stored is in a segment, and durable."""
        with self._turn:
            self._index.segments.append(segment)
            for id_ in ids:
                del self._coming[id_]
            storer.is_relied_on = False

    def are_missing(self, blocks: Iterable[IdField]) -> NDArray[np.bool_]:
        """Tell which of many chunks are not in the index: `ChunkWriter.are_missing`. Blocks."""
        # It may take seconds, in which the other backups go on; one at a time has the memory.
        with self._keeping_open:
            with self._turn:
                now = Index(self.repository.storage, self._index.segments)
            return are_missing(now, blocks, self._pending)

    def replace(self, old: Iterable[Segment], new: Segment) -> None:
        """Let a segment stand for others, whose files are removed."""
        with self._keeping_open, self._turn:
            self._index.segments.append(new)
            for segment in old:
                self._index.remove(segment)

    def forget(self, ids: Iterable[bytes], storer: Storer) -> bool:
        """Forget what ``storer`` has stored, unless somebody relies on it: then False."""
        with self._turn:
            if storer.is_relied_on and self.users:
                return False
            for id_ in ids:
                self._coming.pop(id_, None)
            return True

    def close(self) -> None:
        """Remove what nobody relies on any more, and let the prune work. Blocks."""
        try:
            for storer in self.left:
                storer.discard()
        finally:
            self._index.close()
            self.lease.close()

    def _claim(self, id_: bytes, storer: Storer, claim: Claim) -> None:
        if id_ not in self._coming:
            if self._index.find(id_, self._pending) is None:
                self._coming[id_] = None
                claim.own.append(id_)
            return
        holder = self._coming[id_]
        if holder is None:
            claim.others.append(id_)
        elif holder is not storer:
            holder.is_relied_on = True
            storer.relies_on.add(holder)

    def _give_up(self, ids: Iterable[bytes]) -> None:
        for id_ in filter(self._is_being_stored, ids):
            del self._coming[id_]
        self._turn.notify_all()

    def _is_being_stored(self, id_: bytes) -> bool:
        return id_ in self._coming and self._coming[id_] is None


def open_known_chunks(repository: Repository) -> KnownChunks:
    """Look what there is, under a new lease. Blocks.

    Raises:
        StorageError: the repository is not writable.
        CorruptError: its index is damaged: `verify` tells.
    """
    lease = take_lease(repository.storage, new_token())
    try:
        return KnownChunks(repository, lease)
    except BaseException:
        lease.close()
        raise
