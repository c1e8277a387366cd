"""Reads the blobs of chunks by few requests, ahead of those who ask for the chunks.

::

    leaves   | a | b | c | d | e | f | g | h | ...      in the order in which they will be asked for
    windows  |     first     |    second     |          so much as fits into memory
    packs    [ a   c  .  d ]   [ e f ]   [ h   g ]      of each window, by pack and offset:
    requests  -------------    ------    ---------      runs, gaps included, several at once
             b: not in the index, so whoever asks for it reads it alone, and gets the error

For storages where a read waits for another machine; elsewhere each chunk is read when it is asked
for, since the kernel reads ahead. ``ChunkReader.read_ahead`` begins one for each image that is read
from its start to its end: for a restore, an export, a copy. A ``ReadAhead`` has the methods of a
reader: who copies chunks gets one in place of the reader, and tells it by ``add`` what will come.

Nothing relies on it. A chunk that was not read ahead, in time or intact, is read again where it is
asked for, from each place that the index has for it; only a storage that cannot be reached fails at
once. Invariants: a run is forgotten when its last chunk was taken; all images that are read at the
same time share one ``Room``.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from itertools import chain
from threading import Lock
from typing import Final, Protocol, TypeVar

import numpy as np
from msgspec import Struct

from virtbackup_async.errors import CorruptError, VirtBackupError
from virtbackup_async.images.buffers import Room
from virtbackup_async.repository.data.read_runs import PLACE, Run, runs_of
from virtbackup_async.repository.format.cipher import Sealing
from virtbackup_async.repository.format.map_format import Leaves
from virtbackup_async.repository.format.pack_format import Data
from virtbackup_async.repository.index.segments import Location

T = TypeVar("T")
RUN_BYTES: Final = 4 << 20
LEAST_BYTES: Final = 4 << 20
"""The share of an image in the room, however many there are."""
_MOST_CHUNKS: Final = 4096
_MOST_WINDOWS: Final = 4
# So many times in a row, a chunk was asked for that was not read ahead: it may come much later.
_MOST_MISSED: Final = 16
_MOST_SKIPPED: Final = 1 << 16


class _Fetch:
    """A run that is being read, or was.

    Attributes:
        left: how many of its chunks nobody has taken yet.
    """

    def __init__(self, length_bytes: int, left: int, data: "Future[Data]") -> None:
        self.length_bytes = length_bytes
        self.left = left
        self.data = data


class _Blob(Struct):
    """A blob that will be taken.

    Attributes:
        uses: how often, since an image can have a chunk at several places.
    """

    fetch: _Fetch
    start: int
    length_bytes: int
    uses: int


_Window = dict[bytes, _Blob]


class AnyChunks(Protocol):
    """What a ``ReadAhead`` needs of a ``ChunkReader``, which begins it."""

    sealing: Sealing
    reads_at_once: int

    def read(self, leaf: bytes) -> Data: ...

    def read_sealed(self, leaf: bytes) -> bytes: ...

    def checked(self, blob: Data, id_: bytes) -> bytes: ...

    def find(self, id_: bytes) -> Location | None: ...

    def begin_run(self, pack: bytes, offset: int, length_bytes: int) -> "Future[Data]": ...


class ReadAhead:
    """The chunks of one image; any thread may read. ``close`` it.

    Attributes:
        sealing: the repository's.
    """

    def __init__(self, chunks: AnyChunks, room: Room, leaves: Iterable[Leaves] = ()) -> None:
        """Plan nothing yet.

        Args:
            chunks: reads all that is not read ahead.
            room: for what is read ahead.
            leaves: of the chunks that will be read, in about this order; more come by ``add``.
        """
        self.sealing = chunks.sealing
        self._chunks = chunks
        self._room = room
        self._leaves = iter(leaves)
        self._added: deque[Leaves] = deque()
        self._block: Iterator[bytes] = iter(())
        self._windows: deque[_Window] = deque()
        self._held_bytes = 0
        self._is_at_newest = False
        self._missed = 0
        self._turn = Lock()
        self._is_open = chunks.reads_at_once > 1
        if self._is_open:
            room.enter()

    def add(self, leaves: Leaves) -> None:
        """Tell what will be read after all that is known already."""
        with self._turn:
            if self._is_open:
                self._added.append(leaves)

    def read(self, leaf: bytes) -> Data:
        """Return the chunk that a map names; blocks and raises as ``ChunkReader.read``."""
        return self._taken(leaf, self.sealing.open, self._chunks.read)

    def read_sealed(self, leaf: bytes) -> bytes:
        """Return the blob of a chunk; blocks and raises as ``ChunkReader.read_sealed``."""
        return self._taken(leaf, self._chunks.checked, self._chunks.read_sealed)

    def close(self) -> None:
        """Read no more ahead; waits for no request."""
        with self._turn:
            if not self._is_open:
                return
            self._is_open = False
            self._room.leave()
            while self._windows:
                self._forget(self._windows.popleft())

    def _taken(
        self, leaf: bytes, open_: Callable[[Data, bytes], T], alone: Callable[[bytes], T]
    ) -> T:
        if self._is_open:
            id_ = self.sealing.id_of(leaf)
            blob = self._blob(id_)
            if blob is not None:
                try:
                    return open_(blob, id_)
                except CorruptError:
                    pass  # another copy may be good
        return alone(leaf)

    def _blob(self, id_: bytes) -> Data | None:
        """Return the bytes of a blob; None if they were not read ahead."""
        with self._turn:
            self._begin_more()
            blob = self._find(id_) or self._skip_to(id_)
        if blob is None:
            return None
        try:
            data = blob.fetch.data.result()
            return data[blob.start : blob.start + blob.length_bytes]
        except (FileNotFoundError, CorruptError, CancelledError):
            return None
        finally:
            with self._turn:
                self._note_taken(blob)
                self._begin_more()

    def _find(self, id_: bytes) -> _Blob | None:
        for number, window in enumerate(self._windows):
            blob = window.get(id_)
            if blob is None:
                continue
            blob.uses -= 1
            if not blob.uses:
                del window[id_]
            self._is_at_newest = number == len(self._windows) - 1
            self._missed = 0
            return blob
        return None

    def _skip_to(self, id_: bytes) -> _Blob | None:
        """Go on with a chunk, and what follows it, if those before it were not asked for."""
        self._missed += 1
        if self._missed < _MOST_MISSED:
            return None
        self._missed = 0
        for _ in range(_MOST_SKIPPED):
            leaf = self._next_leaf()
            if leaf is None:
                return None
            if self.sealing.id_of(leaf) == id_:
                while self._windows:
                    self._forget(self._windows.popleft())
                self._block = chain((leaf,), self._block)
                self._begin_more()
                return self._find(id_)
        return None

    def _note_taken(self, blob: _Blob, times: int = 1) -> None:
        fetch = blob.fetch
        fetch.left -= times
        if not fetch.left:
            self._held_bytes -= fetch.length_bytes
            fetch.data = _FORGOTTEN

    def _forget(self, window: _Window) -> None:
        for blob in window.values():
            blob.fetch.data.cancel()
            self._note_taken(blob, blob.uses)

    def _begin_more(self) -> None:
        """Begin to read the next windows, as far as there is room."""
        while self._windows and not self._windows[0]:
            self._windows.popleft()
        while self._is_open:
            share_bytes = max(LEAST_BYTES, self._room.share_bytes)
            window_bytes = share_bytes * 3 // 8
            has_room = self._held_bytes + window_bytes <= share_bytes or not self._windows
            if has_room and len(self._windows) < _MOST_WINDOWS:
                window = self._next_window(window_bytes)
                if window is None:
                    return
                self._windows.append(window)
                self._is_at_newest = False
            elif self._is_at_newest and len(self._windows) > 1:
                # Nobody will ask any more for what is left of the oldest.
                self._forget(self._windows.popleft())
            else:
                return

    def _next_window(self, most_bytes: int) -> _Window | None:
        """Begin to read the next chunks, and return their blobs; None if there are none."""
        uses: Counter[bytes] = Counter()
        locations: dict[bytes, Location] = {}
        planned_bytes = 0
        while planned_bytes < most_bytes and uses.total() < _MOST_CHUNKS:
            leaf = self._next_leaf()
            if leaf is None:
                break
            id_ = self.sealing.id_of(leaf)
            uses[id_] += 1
            if uses[id_] == 1 and (location := self._chunks.find(id_)) is not None:
                locations[id_] = location
                planned_bytes += location.length
        return self._begin(locations, uses) if uses else None

    def _next_leaf(self) -> bytes | None:
        while (leaf := next(self._block, None)) is None:
            try:
                block = next(self._leaves, None)
            except VirtBackupError:
                block = None  # its user reads the map as well, and gets the error
            if block is None and self._added:
                block = self._added.popleft()
            if block is None:
                return None
            self._block = iter(block.tolist())
        return leaf

    def _begin(self, locations: Mapping[bytes, Location], uses: Mapping[bytes, int]) -> _Window:
        ids, packs = list(locations), list({at.pack for at in locations.values()})
        numbers = {pack: number for number, pack in enumerate(packs)}
        places = np.zeros(len(ids), dtype=PLACE)
        for number, location in enumerate(locations.values()):
            place = places[number]
            place["number"], place["pack"] = number, numbers[location.pack]
            place["offset"], place["length"] = location.offset, location.length
        window: _Window = {}
        for run in runs_of(places, RUN_BYTES):
            found = [ids[number] for number in run.places["number"].tolist()]
            fetch = self._fetch(packs[run.pack], run, sum(uses[id_] for id_ in found))
            for id_ in found:
                location = locations[id_]
                start = location.offset - run.start
                window[id_] = _Blob(fetch, start, location.length, uses[id_])
        return window

    def _fetch(self, pack: bytes, run: Run, left: int) -> _Fetch:
        length_bytes = run.end - run.start
        self._held_bytes += length_bytes
        return _Fetch(length_bytes, left, self._chunks.begin_run(pack, run.start, length_bytes))


_FORGOTTEN: Final[Future[Data]] = Future()
