"""A target in an object store. An object is a file; its key is the name of the file.

What the verbs of ``Storage`` mean here:

*Directories* do not exist: a name has what begins with it. To make one does nothing, a missing one
is empty, and one whose last file is removed is gone, though some servers list its name for a while.
*Durable* is every file that was answered for: there is nothing to sync. *Growing files* have no
name before they are finished, and their name is refused only then. *Overwriting* the beginning of a
file writes all of it again, *changing* one depends on its tag, and *renaming* one writes it under
the new name before it removes the old one. *Temporary files* are on this host, and unnamed; the
store has only those of the clock and of the probe, which no list shows. *Free space* is not known,
so a reserve would free none. *Locks* do not exist, but for those of one host where a store has no
conditions: a lease is as old as the store says, and dead after a day. *The clock* is that of the
store: the time that it gives to a file that is written for the purpose.

A range of a pack that has been removed meanwhile raises FileNotFoundError when it is read.
"""

import errno
import posixpath
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Final

from blake3 import blake3

from virtbackup_async.errors import StorageError
from virtbackup_async.files.reached_path import UnfitFileError
from virtbackup_async.model.amounts import size
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.storage.interface import Kind, LeaseLook, Status
from virtbackup_async.repository.storage.layout import lease_file
from virtbackup_async.repository.storage.leases import PRUNER
from virtbackup_async.repository.storage.objects.answers import LocalWriteError, Range, tag_of
from virtbackup_async.repository.storage.objects.cache import Cache, CopiedFile
from virtbackup_async.repository.storage.objects.calls import ObjectCalls
from virtbackup_async.repository.storage.objects.directory import NothingHeld, ObjectDirectory
from virtbackup_async.repository.storage.objects.failures import Outcome
from virtbackup_async.repository.storage.objects.files import (
    GrowingObject,
    HiddenObject,
    Uploads,
)
from virtbackup_async.repository.storage.objects.lease import (
    HeldHere,
    ObjectLease,
    hold_here,
    remove_lease_if,
)
from virtbackup_async.repository.storage.objects.listed import Listed
from virtbackup_async.repository.storage.objects.probe import (
    RECORD,
    Probed,
    probe,
    recorded,
    weaknesses,
)
from virtbackup_async.repository.storage.objects.ranges import FIRST_BYTES, Blocks, ObjectFile
from virtbackup_async.repository.storage.objects.requests import (
    CallFailedError,
    Connection,
    Patience,
)
from virtbackup_async.repository.storage.objects.traffic import Traffic, kind_of
from virtbackup_async.repository.storage.this_host import host_id

_FREE_BYTES: Final = 1 << 62
_CLOCK: Final = ".clock"
_OWN: Final = re.compile(r"\.clock|\.probe-[0-9a-f]{16}")
_LISTED_ALONE: Final = 3
_COPIED: Final = frozenset({"index", "guests"})
_MAX_OVERWRITTEN_BYTES: Final = 1 << 30
_TRIES: Final = 100
_READS_AT_ONCE: Final = 8


class ObjectStorage:
    """The files of a target in an object store.

    Attributes:
        location: of the target.
        calls: the calls of the store.
    """

    def __init__(
        self, location: StorageLocation, connection: Connection, patience: Patience | None = None
    ) -> None:
        self.location = location
        self.calls = ObjectCalls(connection, self.where, patience or Patience())
        self._uploads = Uploads()
        self._blocks = Blocks()
        self._cache = Cache(repr(self._identity))
        self._listed = Listed()
        self._probed: Probed | None = None
        self._reading_anew = 0
        self._turn = Lock()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectStorage) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def reads_at_once(self) -> int:
        return _READS_AT_ONCE

    @property
    def traffic(self) -> Traffic:
        """The requests so far."""
        return self.calls.traffic

    def where(self, name: str = "") -> str:
        return f"{self.location}/{name}" if name else str(self.location)

    def names(self, directory: str, kinds: Container[Kind]) -> list[str]:
        files, directories = self.calls.list_directory(directory)
        self._listed.note(directory, files)
        found = [name for name in files if Kind.FILE in kinds and not _OWN.fullmatch(name)]
        found += [name for name in directories if Kind.DIRECTORY in kinds]
        return sorted(found)

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        wanted = set(names)
        directories = {_parent(name) for name in wanted}
        if len(directories) > _LISTED_ALONE:
            directories = {posixpath.commonpath(directories)} if "" not in directories else {""}
        found: dict[str, int] = {}
        for directory in directories:
            found |= self._sizes_below(directory, wanted - found.keys())
        return found

    def modified_times(self, names: Iterable[str]) -> dict[str, float]:
        wanted = set(names)
        found: dict[str, float] = {}
        for directory in {_parent(name) for name in wanted}:
            files, _ = self.calls.list_directory(directory)
            paths = {f"{directory}/{last}" if directory else last: last for last in files}
            found |= {path: files[paths[path]].modified_s for path in wanted & paths.keys()}
        return found

    def status(self, name: str) -> Status:
        meta = self._listed.look(name) or self.calls.head(name)
        if meta is not None:
            version = (meta.e_tag, meta.modified_s)
            return Status(meta.size_bytes, version, is_file=True, modified_s=meta.modified_s)
        if self._has_below(name):
            return Status(0, name, is_file=False)
        raise self._missing(name)

    def exists(self, name: str) -> bool:
        return self.calls.head(name) is not None or self._has_below(name)

    def open(self, name: str) -> ObjectFile | CopiedFile:
        if kind_of(name) not in _COPIED:
            return self._open_ranges(name)
        # The name of a segment has no other content ever.
        is_index = kind_of(name) == "index"
        tag = "" if is_index else self._tag_of(name)
        if is_index and self._reading_anew:
            return self._copy(name, tag, keeps=False) or self._open_ranges(name)
        copied = self._cache.open(name, tag, self.where(name))
        return copied or self._copy(name, tag) or self._open_ranges(name)

    @contextmanager
    def reading_anew(self) -> Iterator[None]:
        with self._turn:
            self._reading_anew += 1
        try:
            yield
        finally:
            with self._turn:
                self._reading_anew -= 1

    def _copy(self, name: str, tag: str, *, keeps: bool = True) -> CopiedFile | None:
        """Copy a file to this host; None if there is no space for it."""
        try:
            with self._cache.new_file() as file:
                meta = self.calls.download(name, file)
                if meta is None:
                    raise self._missing(name)
                if keeps and (not tag or tag == tag_of(meta)):
                    self._cache.keep(name, tag, file, meta)
                return self._cache.opened(file, self.where(name), meta)
        except (LocalWriteError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            return None

    def _tag_of(self, name: str) -> str:
        """Return the tag of a file, as it was listed a moment ago, or as it is now."""
        meta = self._listed.take(name) or self.calls.head(name)
        if meta is None:
            raise self._missing(name)
        return tag_of(meta)

    def _open_ranges(self, name: str) -> ObjectFile:
        try:
            found = self.calls.get_range(name, 0, FIRST_BYTES, None)
        except CallFailedError as failed:
            if failed.failure.outcome is not Outcome.EMPTY_RANGE:
                raise failed.failure.error from failed
            empty = self.calls.get(name, 0)
            found = None if empty is None else Range(memoryview(empty.data), empty.meta)
        if found is None:
            raise self._missing(name)
        return ObjectFile(self.calls, self._blocks, name, self.where(name), found)

    def open_directory(self, name: str) -> ObjectDirectory:
        files, directories = self.calls.list_directory(name)
        shown = {file: meta for file, meta in files.items() if not _OWN.fullmatch(file)}
        return ObjectDirectory(
            self.calls, self._cache, name, self.where(name), (shown, directories)
        )

    def hold(self, directory: str) -> NothingHeld | HeldHere | None:
        """Hold nothing where writes can depend on a condition: ``change`` keeps all changes.

        Elsewhere only one host may change files, and its processes exclude each other.
        """
        probed = self._recorded()
        if probed.has_conditions:
            return NothingHeld()
        return hold_here(self._alone_on(probed, "change backups in", directory))

    def read(self, name: str, max_bytes: int) -> bytes | None:
        found = self.calls.get(name, max_bytes)
        return None if found is None else found.data

    def make_directory(self, name: str) -> None:
        """Do nothing: it is there as soon as it has a file."""

    def sync_names(self, directory: str) -> None:
        """Do nothing: an answered write is durable."""

    def replace(self, name: str, data: bytes, *, keep_owner: bool = False) -> None:
        del keep_owner  # there are none
        self._listed.forget(name)
        self.calls.put(name, [data])

    def change(self, name: str, max_bytes: int, change: Callable[[bytes], bytes]) -> None:
        for _ in range(_TRIES):
            found = self.calls.get(name, max_bytes)
            if found is None:
                raise self._missing(name)
            if found.meta.size_bytes > max_bytes:
                raise UnfitFileError(
                    errno.EFBIG, f"larger than {size(max_bytes)}", self.where(name)
                )
            data = change(found.data)
            self._listed.forget(name)
            if self.calls.put_if(name, data, found.meta.e_tag) is not None:
                return
        raise StorageError(f"cannot write {self.where(name)}: others change it all the time")

    def rename(self, name: str, new: str) -> None:
        found = self.calls.get(name, _MAX_OVERWRITTEN_BYTES)
        if found is None:
            raise StorageError(f"cannot rename {self.where(name)}: it is missing")
        parent = _parent(name)
        self.calls.put(f"{parent}/{new}" if parent else new, [found.data])
        self._listed.forget(name)
        self._listed.forget(f"{parent}/{new}" if parent else new)
        self.calls.delete(name)

    def put_new(self, name: str, data: bytes) -> None:
        self._listed.forget(name)
        self.calls.put_new(name, [data])

    def overwrite(self, name: str, data: bytes) -> None:
        found = self.calls.get(name, _MAX_OVERWRITTEN_BYTES)
        if found is None:
            raise StorageError(f"cannot write {self.where(name)}: it is missing")
        if self.calls.put_if(name, data + found.data[len(data) :], found.meta.e_tag) is None:
            raise StorageError(f"cannot write {self.where(name)}: it was changed meanwhile")

    def create(self, name: str) -> GrowingObject:
        return GrowingObject(self.calls, self._uploads, name, self.where(name))

    def create_hidden(self, name: str) -> HiddenObject:
        return HiddenObject(self.calls, name, self.where(name))

    def remove(self, name: str) -> None:
        self._listed.forget(name)
        self.calls.delete(name)

    def take_lease(self, name: str, content: bytes, directories: Sequence[str]) -> ObjectLease:
        del directories  # nothing can be exchanged
        probed = self._recorded()
        is_alone = None
        if not probed.has_conditions and name == lease_file(PRUNER):
            is_alone = self._alone_on(probed, "clean")
        return ObjectLease(self.calls, name, self.where(name), content, is_alone)

    def probe(self) -> list[str]:
        """Probe the store, and return a sentence for each promise that it does not keep. Blocks.

        Raises:
            StorageError: the store cannot be used.
        """
        return weaknesses(probe(self.calls))

    def remove_lease_if(self, name: str, is_dead: Callable[[LeaseLook], bool]) -> None:
        remove_lease_if(self.calls, name, self.where(name), is_dead)

    def clock(self, directory: str) -> float:
        return self.calls.put(f"{directory}/{_CLOCK}", [b""]).modified_s

    def remove_temporary_files(self, directories: Iterable[str], before_s: float) -> None:
        for directory in directories:
            for name, meta in self.calls.list_directory(directory)[0].items():
                if _OWN.fullmatch(name) and name != _CLOCK and meta.modified_s < before_s:
                    self.calls.delete(f"{directory}/{name}")

    def free_bytes(self) -> int:
        """Return more than any backup needs: a store does not say how much is left."""
        return _FREE_BYTES

    def keep_reserve(self) -> None:
        """Do nothing: where there is a quota, removing files frees space without any."""

    def release_reserve(self) -> bool:
        """Return False: nothing is reserved."""
        return False

    def _recorded(self) -> Probed:
        """Return what the store keeps of its promises, as the repository records it.

        Raises:
            StorageError: it is not fit for a repository.
        """
        with self._turn:
            if self._probed is None:
                self._probed = recorded(self.calls, self.where(RECORD))
        if not self._probed.lists_at_once:
            raise StorageError(
                f"cannot use {self.where()}: it does not list what was written a moment before",
                hint="Use another store, or set this one to strict consistency.",
            )
        return self._probed

    def _alone_on(self, probed: Probed, doing: str, directory: str = "") -> str:
        """Return what only one process of the only host that may remove and change can hold.

        Raises:
            StorageError: this is another host.
        """
        if probed.sweep_host != host_id():
            raise StorageError(
                f"cannot {doing} {self.where()}: the store has no conditional writes, so only host "
                f"{probed.sweep_host_name!r} can",
                hint=f"Do it on that host, or remove {self.where(RECORD)} to let this one do it.",
            )
        place = (*self._identity, directory) if directory else self._identity
        return blake3(repr(place).encode()).hexdigest(length=12)

    @property
    def _identity(self) -> tuple[str, str, str | None]:
        return (self.location.kind, self.location.path, self.location.endpoint)

    def _sizes_below(self, directory: str, wanted: set[str]) -> dict[str, int]:
        """Return the lengths of some files below a directory, by as few pages as there are."""
        below = {name for name in wanted if not directory or name.startswith(f"{directory}/")}
        found: dict[str, int] = {}
        if not below:
            return found
        # No name lies between this one and the first one that is wanted.
        after = min(below)[:-1]
        for name, meta in self.calls.list_below(directory, after):
            if name in below:
                found[name] = meta.size_bytes
                if len(found) == len(below):
                    break
        return found

    def _has_below(self, name: str) -> bool:
        return any(True for _ in self.calls.list_below(name))

    def _missing(self, name: str) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, "No such file or directory", self.where(name))


def _parent(name: str) -> str:
    return name.rpartition("/")[0]
