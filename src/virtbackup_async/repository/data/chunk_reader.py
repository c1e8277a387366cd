"""Reads chunks by id, from the pack that has them now.

Called by the packager's reader. The prune can move a chunk into another pack while a backup is
read. Then the reader opens the index again, and finds the chunk at its new place. Damage costs as
little as possible: a chunk with two copies is read from the good one, segments that cannot be read
are ignored, and a pack's header is not needed, because each chunk is compared with its id.
"""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Final, TypeVar

from virtbackup_async.errors import REPAIR_HINT, CorruptError
from virtbackup_async.files.refusals import reading
from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.format.chunks import short
from virtbackup_async.repository.index.segments import Location, open_readable_index
from virtbackup_async.repository.storage.interface import StoredFile
from virtbackup_async.repository.storage.layout import Repository, pack_file

T = TypeVar("T")
MAX_OPEN_PACKS: Final = 16


class ChunkReader:
    """An open reader; several threads may read; ``close`` it.

    Attributes:
        sealing: the repository's.
    """

    def __init__(self, repository: Repository) -> None:
        self.sealing = repository.sealing
        self._repository = repository
        self._index, self._damaged = open_readable_index(repository)
        self._packs: OrderedDict[bytes, StoredFile] = OrderedDict()
        self._turn = Lock()

    def read(self, leaf: bytes) -> pack_format.Data:
        """Return the chunk that a map names. Blocks.

        Raises:
            CorruptError: it is missing, or damaged wherever it is.
        """
        return self._read_anywhere(leaf, self._repository.sealing.open)

    def read_sealed(self, leaf: bytes) -> bytes:
        """Return the blob of the chunk that a map names, checked as far as the keys allow. Blocks.

        Raises:
            CorruptError: it is missing, or damaged wherever it is.
        """

        def checked(blob: bytes, id_: bytes) -> bytes:
            self._repository.sealing.check(blob, id_)
            return blob

        return self._read_anywhere(leaf, checked)

    def _read_anywhere(self, leaf: bytes, take: Callable[[bytes, bytes], T]) -> T:
        """Return what ``take`` makes of the first good blob of a chunk, and of its id."""
        id_ = self._repository.sealing.id_of(leaf)
        try:
            return self._read(id_, take)
        except FileNotFoundError:
            # Pruned since the index was opened: its needed chunks are elsewhere now.
            with self._turn:
                self._index.close()
                self._index, self._damaged = open_readable_index(self._repository)
        try:
            return self._read(id_, take)
        except FileNotFoundError as error:
            raise CorruptError(f"pack is missing: {error.filename}", hint=REPAIR_HINT) from error

    def read_blob(self, id_: bytes, location: Location) -> bytes:
        """Return the blob of a chunk, after a comparison with its id. Blocks.

        Raises:
            CorruptError: it is missing or damaged there.
        """
        try:
            with self._turn:
                blob = self._read_at(location)
        except FileNotFoundError as error:
            where = self._repository.where_is(location.pack)
            raise CorruptError(f"pack is missing: {where}") from error
        with reading("pack", self._repository.where_is(location.pack)):
            self._repository.sealing.check(blob, id_)
        return blob

    def packs_of(self, id_: bytes) -> frozenset[bytes]:
        """Return the packs that have a chunk, good or not, according to the index. Blocks."""
        with self._turn:
            return frozenset(location.pack for location in self._index.places(id_))

    def close(self) -> None:
        self._index.close()
        while self._packs:
            self._packs.popitem()[1].close()

    def _read(self, id_: bytes, take: Callable[[bytes, bytes], T]) -> T:
        """Read a chunk from its first good location.

        Raises:
            FileNotFoundError: there is none, but one of its packs is missing.
            CorruptError: there is none.
        """
        with self._turn:
            places = list(self._index.places(id_))
        failures: list[CorruptError | FileNotFoundError] = []
        for location in places:
            try:
                with self._turn:
                    blob = self._read_at(location)
                with reading("pack", self._repository.where_is(location.pack)):
                    return take(blob, id_)
            except (CorruptError, FileNotFoundError) as error:
                failures.append(error)
        raise next(
            (error for error in failures if isinstance(error, FileNotFoundError)),
            failures[0] if failures else self._missing(id_),
        )

    def _missing(self, id_: bytes) -> CorruptError:
        message = f"chunk {short(id_)} is missing in {self._repository.where}"
        if self._damaged:
            message += f": {self._damaged[0].error.message}"
        return CorruptError(message, hint=REPAIR_HINT)

    def _read_at(self, location: Location) -> bytes:
        with reading("pack", self._repository.where_is(location.pack)):
            pack_format.check_blob_length(location.length, self._repository.sealing.shape)
            return self._open_pack(location.pack).read(location.length, location.offset)

    def _open_pack(self, pack: bytes) -> StoredFile:
        if pack in self._packs:
            self._packs.move_to_end(pack)
            return self._packs[pack]
        file = self._repository.storage.open(pack_file(pack))
        try:
            head = file.read(pack_format.HEAD_BYTES, 0)
            if pack_format.is_whole_head(head):
                version = self._repository.sealing.shape.version
                pack_format.check_head(head, self._repository.id, pack, version)
        except BaseException:
            file.close()
            raise
        self._packs[pack] = file
        if len(self._packs) > MAX_OPEN_PACKS:
            self._packs.popitem(last=False)[1].close()
        return file
