"""A repository that is open for a check, while backups, restores and prunes are running.

Opened by ``verify``. It holds a lease as a writer does, so that no prune removes a pack. If it can
take no lease, as on a read-only medium, it works without one.
"""

from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.repository.check.check import Check
from virtbackup_async.repository.index.segments import Index, open_readable_index
from virtbackup_async.repository.storage.layout import Repository, new_token
from virtbackup_async.repository.storage.leases import Lease, take_lease
from virtbackup_async.repository.storage.pending_deletion import (
    PendingDeletion,
    read_pending_deletion,
)


class CheckSession:
    """An open check; ``close`` it.

    Attributes:
        checking: of the segments that can be read.
        problems: the errors of damaged files other than packs.
        lease_error: the error because of which there is no lease, if there is none.
    """

    def __init__(self, repository: Repository) -> None:
        """Open it. Blocks.

        Raises:
            StorageError: the index cannot be listed.
        """
        self.repository = repository
        self.problems: list[CorruptError] = []
        self.lease_error: StorageError | None = None
        self._lease = self._take_lease()
        self._index = Index(repository.storage)
        try:
            pending = self._read_pending_deletion()
            self._index, damaged = open_readable_index(repository)
            self.problems += [segment.error for segment in damaged]
            self.checking = Check(repository, self._index, pending.packs)
        except BaseException:
            self.close()
            raise

    def refresh(self) -> None:
        """Refresh the lease. Blocks."""
        if self._lease is not None:
            self._lease.refresh()

    def close(self) -> None:
        """Close the index and give up the lease. Blocks."""
        self._index.close()
        if self._lease is not None:
            self._lease.close()

    def _take_lease(self) -> Lease | None:
        try:
            return take_lease(self.repository.storage, new_token())
        except StorageError as error:
            self.lease_error = error
            return None

    def _read_pending_deletion(self) -> PendingDeletion:
        try:
            return read_pending_deletion(self.repository.storage)
        except CorruptError as error:
            self.problems.append(error)
            return PendingDeletion()
