"""Packs on their way to disk: one is filled at a time, by all disks of a backup.

Called by ``chunk_writer`` in worker threads. Invariants: nobody else knows of a pack before the
index names it, and the index names it when it is durable; until then it can be taken back.
"""

import os

from virtbackup_async.images.durable import storage_error, sync_file
from virtbackup_async.repository import pack_format
from virtbackup_async.repository.layout import (
    Repository,
    create_file,
    make_directory,
    pack_name,
    sync,
    write_all,
)
from virtbackup_async.repository.segments import Location


class PackWriter:
    """Appends blobs. Not for two threads at once."""

    def __init__(self, repository: Repository, token: str) -> None:
        self._repository = repository
        self._token = token
        self._made = 0
        self._pack = b""
        self._fd: int | None = None
        self._length_bytes = 0
        self._unpublished: list[bytes] = []

    def append(self, blob: bytes) -> Location:
        """Append a blob, which is a head and a payload. Blocks.

        Raises:
            StorageError: the target is full or failed.
        """
        if self._fd is None:
            self._begin()
        if self._fd is None:
            raise AssertionError
        location = Location(self._pack, self._length_bytes, len(blob))
        write_all(self._fd, blob, self._repository.pack_path(self._pack))
        self._length_bytes += len(blob)
        if self._length_bytes >= pack_format.PACK_BYTES:
            self.seal()
        return location

    def seal(self) -> None:
        """Make all that was appended durable. Blocks."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        path = self._repository.pack_path(self._pack)
        try:
            sync(fd, path)
        finally:
            os.close(fd)
        sync_file(path.parent)

    def note_published(self) -> None:
        """Forget the packs: the index names them now."""
        self._unpublished.clear()

    def discard(self) -> None:
        """Remove the packs that nobody else can know of. Blocks; may be called again."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
        while self._unpublished:
            path = self._repository.pack_path(self._unpublished[-1])
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise storage_error("remove", path, error) from error
            self._unpublished.pop()

    def _begin(self) -> None:
        self._pack = pack_name(self._token, self._made)
        path = self._repository.pack_path(self._pack)
        make_directory(path.parent)
        self._unpublished.append(self._pack)
        self._fd = create_file(path)
        self._made += 1
        head = pack_format.encode_head(self._repository.id, self._pack)
        write_all(self._fd, head, path)
        self._length_bytes = len(head)
