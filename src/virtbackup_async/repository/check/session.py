"""A repository that is open for a check, while backups, restores and prunes are running.

Opened by ``verify``. It holds a lease as a writer does, so that no prune removes a pack, and
no removal a package that it names. If it can
take no lease, as on a read-only medium, it works without one.
"""

from collections.abc import Sequence
from contextlib import ExitStack

from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.repository.check.check import Check
from virtbackup_async.repository.index.segments import open_index_anew
from virtbackup_async.repository.storage.layout import Repository
from virtbackup_async.repository.storage.leases import Lease
from virtbackup_async.repository.storage.package_leases import take_package_lease
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

    def __init__(self, repository: Repository, reads: Sequence[str] = ()) -> None:
        """Open it. Blocks.

        Args:
            repository: to check.
            reads: the first file of each package that must not be removed meanwhile.

        Raises:
            StorageError: the index cannot be listed.
        """
        self.repository = repository
        self.problems: list[CorruptError] = []
        self.lease_error: StorageError | None = None
        self._opened = ExitStack()
        self._lease = self._take_lease(reads)
        if self._lease is not None:
            self._opened.callback(self._lease.close)
        try:
            pending = self._read_pending_deletion()
            index, damaged = open_index_anew(repository)
            self._opened.callback(index.close)
            self.problems += [segment.error for segment in damaged]
            self.checking = Check(repository, index, pending.packs)
            self._opened.callback(self.checking.close)
        except BaseException:
            self.close()
            raise

    def refresh(self) -> None:
        """Refresh the lease. Blocks."""
        if self._lease is not None:
            self._lease.refresh()

    def close(self) -> None:
        """Close the packs and the index, and give up the lease. Blocks."""
        self._opened.close()

    def _take_lease(self, reads: Sequence[str]) -> Lease | None:
        try:
            return take_package_lease(self.repository, reads)
        except StorageError as error:
            self.lease_error = error
            return None

    def _read_pending_deletion(self) -> PendingDeletion:
        try:
            return read_pending_deletion(self.repository.storage)
        except CorruptError as error:
            self.problems.append(error)
            return PendingDeletion()
