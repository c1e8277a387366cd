"""Reads chunks by id, from the pack that has them now.

Called by the packager's reader. The prune can move a chunk into another pack while a backup is
read. Then the reader opens the index again, and finds the chunk at its new place. Damage costs as
little as possible: a chunk with two copies is read from the good one, segments that cannot be read
are ignored, and a pack's header is not needed, because each chunk is compared with its id.

Whoever reads many chunks asks for a ``ReadAhead``: where packs are on another machine, it reads
them by few requests, before they are needed.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Protocol, TypeVar

from virtbackup_async.errors import REPAIR_HINT, CorruptError, VirtBackupError
from virtbackup_async.files.refusals import reading
from virtbackup_async.images.buffers import Room
from virtbackup_async.repository.data.open_packs import MAX_OPEN_PACKS, OpenPacks
from virtbackup_async.repository.data.read_ahead import ReadAhead
from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.format.chunks import short
from virtbackup_async.repository.format.cipher import Sealing
from virtbackup_async.repository.format.map_format import Leaves
from virtbackup_async.repository.format.pack_format import Data
from virtbackup_async.repository.index.segments import Location, open_readable_index
from virtbackup_async.repository.storage.layout import Repository

T = TypeVar("T")
_MOST_OPEN_FAR: int = 4 * MAX_OPEN_PACKS


class ChunkSource(Protocol):
    """Whatever returns the chunks that a map names: a ``ChunkReader``, a ``ReadAhead``."""

    @property
    def sealing(self) -> Sealing:
        """The repository's."""

    def read(self, leaf: bytes) -> Data: ...

    def read_sealed(self, leaf: bytes) -> bytes: ...


class ChunkReader:
    """An open reader; several threads may read; ``close`` it.

    Attributes:
        sealing: the repository's.
        reads_at_once: how many reads should be under way at once; 1 if reading ahead is no use.
    """

    def __init__(self, repository: Repository) -> None:
        self.sealing = repository.sealing
        self.reads_at_once = repository.storage.reads_at_once
        self._repository = repository
        self._index, self._damaged = open_readable_index(repository)
        is_far = self.reads_at_once > 1
        self._packs = OpenPacks(repository, _MOST_OPEN_FAR if is_far else MAX_OPEN_PACKS)
        self._ahead = ThreadPoolExecutor(self.reads_at_once, thread_name_prefix="read ahead")
        self._turn = Lock()

    def read_ahead(self, room: Room, leaves: Iterable[Leaves] = ()) -> ReadAhead:
        """Return what reads the chunks of an image from its start to its end; ``close`` it.

        Args:
            room: for what is read ahead: ``BufferPool.room``.
            leaves: of the chunks that will be read, in about this order; read once.
        """
        return ReadAhead(self, room, leaves)

    def read(self, leaf: bytes) -> Data:
        """Return the chunk that a map names. Blocks.

        Raises:
            CorruptError: it is missing, or damaged wherever it is.
        """
        return self._read_anywhere(leaf, self.sealing.open)

    def read_sealed(self, leaf: bytes) -> bytes:
        """Return the blob of the chunk that a map names, checked as far as the keys allow. Blocks.

        Raises:
            CorruptError: it is missing, or damaged wherever it is.
        """
        return self._read_anywhere(leaf, self.checked)

    def checked(self, blob: Data, id_: bytes) -> bytes:
        """Return a blob, checked as far as the keys allow.

        Raises:
            CorruptError: it is damaged.
        """
        self.sealing.check(blob, id_)
        return bytes(blob)

    def find(self, id_: bytes) -> Location | None:
        """Return the first location of a chunk; None if there is none that can be right. Blocks."""
        try:
            with self._turn:
                location = self._index.find(id_)
            if location is not None:
                pack_format.check_blob_length(location.length, self.sealing.shape)
        except VirtBackupError:
            return None
        return location

    def begin_run(self, pack: bytes, offset: int, length_bytes: int) -> "Future[Data]":
        """Begin to read a part of a pack; raises as ``read``, or FileNotFoundError, at its end."""

        def read() -> Data:
            with (
                reading("pack", self._repository.where_is(pack)),
                self._packs.opened(pack) as file,
            ):
                return file.read_once(length_bytes, offset)

        return self._ahead.submit(read)

    def _read_anywhere(self, leaf: bytes, take: Callable[[bytes, bytes], T]) -> T:
        """Return what ``take`` makes of the first good blob of a chunk, and of its id."""
        id_ = self.sealing.id_of(leaf)
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
            blob = self._read_at(location)
        except FileNotFoundError as error:
            where = self._repository.where_is(location.pack)
            raise CorruptError(f"pack is missing: {where}") from error
        with reading("pack", self._repository.where_is(location.pack)):
            self.sealing.check(blob, id_)
        return blob

    def packs_of(self, id_: bytes) -> frozenset[bytes]:
        """Return the packs that have a chunk, good or not, according to the index. Blocks."""
        with self._turn:
            return frozenset(location.pack for location in self._index.places(id_))

    def close(self) -> None:
        """Close the packs and the index, once no request is under way. Blocks."""
        self._ahead.shutdown(cancel_futures=True)
        self._index.close()
        self._packs.close()

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
            pack_format.check_blob_length(location.length, self.sealing.shape)
            with self._packs.opened(location.pack) as file:
                return file.read(location.length, location.offset)
