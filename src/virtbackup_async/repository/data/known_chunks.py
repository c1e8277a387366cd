r"""The chunks that need not be stored: in the index, or being stored by this process.

::

    backup 1 --writer--> its packs --\
    backup 2 --writer--> its packs ----> index        known: the index, as it was and as it grows,
    another process -------------------/                     and who stores the chunks not in it

A process has one of these for each repository, shared by the writers of ``chunk_writer.py``. So
disks with equal data that are backed up at the same time store it once. Invariants: The lease
exists before the index is read. Packs that are pending deletion, missing or cut off by then count
as missing. A writer that relies on a chunk of another writer makes that one index it. Memory: the
chunks that are not in the index yet, some ten thousand for each writer.
"""

from collections.abc import Collection, Iterable
from itertools import count
from threading import Condition, Lock
from typing import Protocol

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from virtbackup_async.errors import StorageError
from virtbackup_async.repository.index.id_batches import IdField
from virtbackup_async.repository.index.lookup import are_missing
from virtbackup_async.repository.index.presence import in_words, misfits
from virtbackup_async.repository.index.segments import Index, Segment, open_index
from virtbackup_async.repository.storage.layout import Repository, new_token
from virtbackup_async.repository.storage.leases import Lease, take_lease
from virtbackup_async.repository.storage.pending_deletion import read_pending_deletion


class Storer(Protocol):
    """A writer that stores chunks.

    Attributes:
        is_relied_on: another writer relies on chunks of this one that are not in the index yet.
        relies_on: the writers on whose chunks it relies.
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
    """The known chunks, under a lease; for several threads. ``close`` it.

    Attributes:
        users: the number of writers.
        left: writers that have ended; others may rely on chunks of some of them.
        can_replace: False once a segment could not be removed: this host may only add files.
    """

    def __init__(self, repository: Repository, lease: Lease) -> None:
        self.repository = repository
        self.lease = lease
        self.token = lease.holder
        self.pack_numbers = count()
        self.segment_numbers = count()
        self.users = 0
        self.left: list[Storer] = []
        self.can_replace = True
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
        """Return a sentence on packs that do not fit the index; only the first call does."""
        with self._turn:
            problem, self._problem = self._problem, None
            return problem

    def claim(self, ids: Iterable[bytes], storer: Storer) -> Claim:
        """Claim those of some chunks that are missing; each id comes once.

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
        """Note that claimed chunks are in a pack."""
        with self._turn:
            self._coming.update(dict.fromkeys(ids, storer))
            self._turn.notify_all()

    def give_up(self, ids: Iterable[bytes]) -> None:
        """Let other writers store claimed chunks that were not stored."""
        with self._turn:
            self._give_up(ids)

    def wait_for(self, others: Collection[bytes]) -> None:
        """Wait until others have stored some chunks, or given them up. Blocks for a short time.

        The caller must not have claimed chunks itself: so no writer waits for a waiting one.
        """
        with self._turn:
            self._turn.wait_for(lambda: not any(map(self._is_being_stored, others)))

    def note_indexed(self, ids: Collection[bytes], segment: Segment, storer: Storer) -> None:
        """Note that all chunks of ``storer`` are durable and in a segment."""
        with self._turn:
            self._index.segments.append(segment)
            for id_ in ids:
                del self._coming[id_]
            storer.is_relied_on = False

    def are_missing(self, blocks: Iterable[IdField]) -> NDArray[np.bool_]:
        """Return which of many chunks are not in the index: `ChunkWriter.are_missing`. Blocks."""
        # This can take seconds, while other backups continue; it needs memory, so one at a time.
        with self._keeping_open:
            with self._turn:
                now = Index(self.repository.storage, self._index.segments)
            return are_missing(now, blocks, self._pending)

    def replace(self, old: Iterable[Segment], new: Segment) -> None:
        """Use a segment in place of others, whose files are removed if that is allowed.

        Where it is not, ``can_replace`` is False from then on. The index then has some records
        twice, until a prune merges the segments.
        """
        with self._keeping_open, self._turn:
            self._index.segments.append(new)
            for segment in old:
                try:
                    self._index.remove(segment)
                except StorageError:
                    self.can_replace = False

    def forget(self, ids: Iterable[bytes], storer: Storer) -> bool:
        """Forget the chunks of ``storer``; return False if another writer relies on them."""
        with self._turn:
            if storer.is_relied_on and self.users:
                return False
            for id_ in ids:
                self._coming.pop(id_, None)
            return True

    def close(self) -> None:
        """Remove packs that no writer relies on any more, and give up the lease. Blocks."""
        try:
            for storer in self.left:
                storer.discard()
        finally:
            self.repository.sealing.forget()
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
    """Read the index under a new lease. Blocks.

    Raises:
        StorageError: the repository is not writable.
        CorruptError: its index is damaged; `verify` shows where.
    """
    lease = take_lease(repository.storage, new_token())
    try:
        return KnownChunks(repository, lease)
    except BaseException:
        lease.close()
        raise
