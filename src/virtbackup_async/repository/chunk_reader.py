"""Reading chunks by id, out of whichever pack has them by now.

Called by the packager's reader. The sweep may move a chunk into another pack while a backup is
read: then the index is opened again, and the chunk is found at its new place.
"""

import os
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Final

from virtbackup_async.errors import CorruptError
from virtbackup_async.repository import pack_format
from virtbackup_async.repository.damage import reading
from virtbackup_async.repository.layout import Repository, open_file, read_exactly
from virtbackup_async.repository.segments import Location, open_index

MAX_OPEN_PACKS: Final = 16


class ChunkReader:
    """An open reader; several threads may read; ``close`` it."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._index = open_index(repository)
        self._packs: OrderedDict[bytes, int] = OrderedDict()
        self._turn = Lock()

    def read(self, id_: bytes) -> bytes:
        """Return a chunk. Blocks.

        Raises:
            CorruptError: it is missing or damaged.
        """
        with self._turn:
            blob, path = self._read_blob(id_)
        with reading("pack", path):
            return pack_format.decode_blob(blob, id_)

    def read_blob(self, id_: bytes, location: Location) -> bytes:
        """Return what a pack holds of a chunk, which is as good as its id says. Blocks.

        Raises:
            CorruptError: it is missing or damaged there.
        """
        try:
            with self._turn:
                blob, path = self._read_at(location)
        except FileNotFoundError as error:
            raise self._missing(location) from error
        with reading("pack", path):
            pack_format.decode_blob(blob, id_)
        return blob

    def close(self) -> None:
        self._index.close()
        while self._packs:
            os.close(self._packs.popitem()[1])

    def _read_blob(self, id_: bytes) -> tuple[bytes, Path]:
        try:
            return self._read_at(self._find(id_))
        except FileNotFoundError:
            # Swept since the index was opened: its live chunks are elsewhere now.
            self._index.close()
            self._index = open_index(self._repository)
        location = self._find(id_)
        try:
            return self._read_at(location)
        except FileNotFoundError as error:
            raise self._missing(location) from error

    def _missing(self, location: Location) -> CorruptError:
        return CorruptError(f"pack is missing: {self._repository.pack_path(location.pack)}")

    def _find(self, id_: bytes) -> Location:
        location = self._index.find(id_)
        if location is None:
            raise CorruptError(f"chunk {id_.hex()} is missing in {self._repository.path}")
        return location

    def _read_at(self, location: Location) -> tuple[bytes, Path]:
        path = self._repository.pack_path(location.pack)
        with reading("pack", path):
            fd = self._open_pack(location.pack)
            return read_exactly(fd, location.length, location.offset), path

    def _open_pack(self, pack: bytes) -> int:
        if pack in self._packs:
            self._packs.move_to_end(pack)
            return self._packs[pack]
        fd = open_file(self._repository.pack_path(pack))
        self._packs[pack] = fd
        head = read_exactly(fd, pack_format.HEAD_BYTES, 0)
        pack_format.check_head(head, self._repository.id, pack)
        if len(self._packs) > MAX_OPEN_PACKS:
            os.close(self._packs.popitem(last=False)[1])
        return fd
