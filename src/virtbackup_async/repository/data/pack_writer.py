"""Writes packs: all disks of a backup fill one pack at a time.

Called by ``chunk_writer`` in worker threads, and by the prune. Invariant: the index names a pack
only when it is durable; until then no other process knows of it, and it can be removed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from virtbackup_async.errors import StorageError
from virtbackup_async.repository.format import pack_format, pack_tail
from virtbackup_async.repository.index.segments import Location
from virtbackup_async.repository.storage.interface import GrowingFile
from virtbackup_async.repository.storage.layout import (
    Repository,
    pack_file,
    pack_name,
    pack_sizes,
)
from virtbackup_async.repository.storage.run_keys import write_run_key


class _OpenPack:
    """The pack that is being filled."""

    def __init__(self, name: bytes, file: GrowingFile, *, has_tail: bool) -> None:
        self.name = name
        self.file = file
        self.length_bytes = 0
        self._has_tail = has_tail
        self._checksum = 0

    def append(self, data: bytes | bytearray) -> None:
        self.file.append(data)
        self.length_bytes += len(data)
        if self._has_tail:
            self._checksum = pack_tail.checksum(data, self._checksum)

    def end(self) -> None:
        """Append the tail, if the pack has one, and begin to make the pack durable."""
        if self._has_tail:
            self.file.append(pack_tail.encode(self.length_bytes, self._checksum))
        self.file.finish_soon()


class PackWriter:
    """Appends blobs. Not for two threads at once.

    The kernel reports only once that data did not reach the disk. So after a failure, none of the
    appended data ever counts as durable.
    """

    def __init__(self, repository: Repository, token: str, numbers: Iterator[int]) -> None:
        self._repository = repository
        self._token = token
        self._numbers = numbers
        self._failure: StorageError | None = None
        self._open: _OpenPack | None = None
        self._full: list[_OpenPack] = []
        self._unpublished: list[GrowingFile] = []
        self._sealed: list[bytes] = []
        self._runs: set[bytes] = set()

    def append(self, blob: bytes | bytearray) -> Location:
        """Append a blob, which is a head and a payload. Blocks.

        Raises:
            StorageError: the target is full or failed.
            CorruptError: the key that the blob takes to open is missing.
        """
        with self._not_after_failure():
            self._keep_run_key(blob)
            pack = self._open or self._begin()
            location = Location(pack.name, pack.length_bytes, len(blob))
            pack.append(blob)
            if pack.length_bytes >= pack_format.PACK_BYTES:
                self._end(pack)
        return location

    def seal(self) -> None:
        """Make all appended blobs durable. Blocks.

        Raises:
            StorageError: the target is full or failed, now or before.
        """
        with self._not_after_failure():
            if self._open is not None:
                self._end(self._open)
            for pack in self._full:
                pack.file.finish()
                self._sealed.append(pack.name)
            self._full.clear()

    def check(self) -> None:
        """Check that all durable packs still exist. Blocks.

        Raises:
            StorageError: one is missing.
        """
        there = pack_sizes(self._repository.storage, self._sealed)
        gone = next((pack for pack in self._sealed if pack not in there), None)
        if gone is not None:
            raise StorageError(
                f"pack {self._repository.where_is(gone)} was taken away during the run",
                hint="See who else can write to the target, then run the command again.",
            )

    def note_published(self) -> None:
        """Forget the packs, which the index now names, or might; they must never be removed."""
        self._unpublished.clear()

    def discard(self) -> None:
        """Remove the packs that no other process can know of. Blocks; can be called again."""
        self._open = None
        self._full.clear()
        while self._unpublished:
            self._unpublished[-1].discard()
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

    def _keep_run_key(self, blob: bytes | bytearray) -> None:
        """Make the key durable that a blob of a sealed repository takes to open."""
        keys = self._repository.sealing.run_keys
        if keys is None:
            return
        run = keys.run_of(blob)
        if run not in self._runs:
            write_run_key(self._repository.storage, self._token, run, keys.run_key(run))
            self._runs.add(run)

    def _end(self, pack: _OpenPack) -> None:
        """Begin to make a complete pack durable; the next one is filled meanwhile."""
        self._open = None
        self._full.append(pack)
        pack.end()

    def _begin(self) -> _OpenPack:
        name = pack_name(self._token, next(self._numbers))
        file = self._repository.storage.create(pack_file(name))
        self._unpublished.append(file)
        shape = self._repository.sealing.shape
        self._open = _OpenPack(name, file, has_tail=shape.tail_bytes > 0)
        self._open.append(pack_format.encode_head(self._repository.id, name, shape.version))
        return self._open
