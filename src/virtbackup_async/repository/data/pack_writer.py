"""Packs on their way to disk: one is filled at a time, by all disks of a backup.

Called by ``chunk_writer`` in worker threads, and by the prune. Invariants: nobody else knows of a
pack before the index names it, and the index names it when it is durable; until then it can be
taken back.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from virtbackup_async.errors import StorageError
from virtbackup_async.files.closing import close
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.files.write_behind import WriteBehind
from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.index.segments import Location
from virtbackup_async.repository.storage.layout import (
    Repository,
    pack_name,
    pack_sizes,
    write_all,
)


class _OpenPack:
    """The pack that is being filled."""

    def __init__(self, name: bytes, place: TargetPath) -> None:
        self.name = name
        self.place = place
        self.path = place.path
        self.length_bytes = 0
        self._fd = place.create()
        self._behind = WriteBehind(self._fd)

    def append(self, data: bytes) -> None:
        write_all(self._fd, data, self.path)
        self.length_bytes += len(data)
        if self._behind.gather(self.length_bytes, len(data)):
            with self._syncing():
                self._behind.push()

    def finish(self) -> None:
        try:
            with self._syncing():
                self._behind.finish()
        finally:
            self.close()

    def close(self) -> None:
        close(self._fd)

    @contextmanager
    def _syncing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage_error("sync", self.path, error) from error


class PackWriter:
    """Appends blobs. Not for two threads at once.

    The kernel tells only once that data did not get to the disk. So after a failure nothing that
    was appended is ever called durable.
    """

    def __init__(self, repository: Repository, token: str, numbers: Iterator[int]) -> None:
        self._repository = repository
        self._token = token
        self._numbers = numbers
        self._failure: StorageError | None = None
        self._open: _OpenPack | None = None
        self._unpublished: list[TargetPath] = []
        self._sealed: list[bytes] = []

    def append(self, blob: bytes) -> Location:
        """Append a blob, which is a head and a payload. Blocks.

        Raises:
            StorageError: the target is full or failed.
        """
        with self._not_after_failure():
            pack = self._open or self._begin()
            location = Location(pack.name, pack.length_bytes, len(blob))
            pack.append(blob)
        if pack.length_bytes >= pack_format.PACK_BYTES:
            self.seal()
        return location

    def seal(self) -> None:
        """Make all that was appended durable. Blocks.

        Raises:
            StorageError: the target is full or failed, now or before.
        """
        with self._not_after_failure():
            pack, self._open = self._open, None
            if pack is not None:
                pack.finish()
                # The directory, too, may be new, and its maker gone before it was durable.
                pack.place.parent.sync_names()
                pack.place.parent.parent.sync_names()
                self._sealed.append(pack.name)

    def check(self) -> None:
        """See that all that is durable is where it was put. Blocks.

        Raises:
            StorageError: it is not.
        """
        there = pack_sizes(self._repository, self._sealed)
        gone = next((pack for pack in self._sealed if pack not in there), None)
        if gone is not None:
            raise StorageError(
                f"pack {self._repository.pack_path(gone)} was taken away during the run",
                hint="See who else can write to the target, then run the command again.",
            )

    def note_published(self) -> None:
        """Forget the packs: the index names them now, or may. They are never taken back."""
        self._unpublished.clear()

    def discard(self) -> None:
        """Remove the packs that nobody else can know of. Blocks; may be called again."""
        pack, self._open = self._open, None
        if pack is not None:
            pack.close()
        while self._unpublished:
            self._unpublished[-1].drop()
            self._unpublished.pop()

    @contextmanager
    def _not_after_failure(self) -> Iterator[None]:
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except StorageError as error:
            self._failure = error
            raise

    def _begin(self) -> _OpenPack:
        name = pack_name(self._token, next(self._numbers))
        place = self._repository.pack(name)
        place.parent.make_directory()
        self._unpublished.append(place)
        self._open = _OpenPack(name, place)
        self._open.append(pack_format.encode_head(self._repository.id, name))
        return self._open
