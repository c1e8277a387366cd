"""A storage that seals what another one stores: its files, and their names.

::

    catalog, maps, index  --clear names and content-->  SealedStorage  --sealed-->  the storage

Everything above it works as with any other storage. A few names stay clear: the repository file and
the key slots, which are read before there are keys; leases, which other processes must see; packs,
whose chunks are sealed one by one (``keyed_sealing.py``); and temporary files.

Lengths from ``sizes`` and ``status`` are as the storage has them; those of open files are checked.
Names that were not made with these keys are passed over, as files that nobody knows.
"""

import errno
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from typing import Final

from msgspec.structs import replace

from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.files.refusals import reading
from virtbackup_async.model.names import is_temporary
from virtbackup_async.repository.keys import file_format as wire
from virtbackup_async.repository.keys.keyring import Keys
from virtbackup_async.repository.keys.names import NameSeal
from virtbackup_async.repository.storage.interface import (
    Copying,
    GrowingFile,
    HeldDirectory,
    HiddenFile,
    Kind,
    LeaseFile,
    LeaseLook,
    OpenDirectory,
    Status,
    Storage,
    StoredFile,
)
from virtbackup_async.repository.storage.layout import (
    DIRECTORY,
    INDEX,
    KEYS,
    LEASES,
    PACKS,
    REPOSITORY_FILE,
)
from virtbackup_async.repository.storage.sealed_files import (
    SealedDirectory,
    SealedFile,
    SealedGrowingFile,
    SealedHiddenFile,
    SealedLease,
    readable_segments,
)
from virtbackup_async.repository.storage.times import modified_times

_CLEAR: Final = frozenset({"", DIRECTORY, REPOSITORY_FILE, INDEX})
_CLEAR_BELOW: Final = (KEYS, LEASES, PACKS)


class SealedStorage:
    """The files of an encrypted target."""

    def __init__(self, inner: Storage, keys: Keys, repository_id: bytes) -> None:
        self._inner = inner
        self._keys = keys
        self._id = repository_id
        self._names = NameSeal(keys, repository_id)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SealedStorage):
            return False
        is_there = (self._inner, self._id) == (other._inner, other._id)
        return is_there and self._keys.are(other._keys)

    def __hash__(self) -> int:
        return hash((self._inner, self._id))

    @property
    def reads_at_once(self) -> int:
        return self._inner.reads_at_once

    def where(self, name: str = "") -> str:
        return self._inner.where(name)

    def names(self, directory: str, kinds: Container[Kind]) -> list[str]:
        with self._clearly(directory):
            found = self._inner.names(self._sealed(directory), kinds)
        opened = (self.opened_step(directory, step) for step in found)
        return sorted(step for step in opened if step is not None)

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        sealed = {self._sealed(name): name for name in names}
        found = self._inner.sizes(sealed)
        return {
            sealed[name]: self._content_bytes(sealed[name], size_bytes)
            for name, size_bytes in found.items()
        }

    def modified_times(self, names: Iterable[str]) -> dict[str, float]:
        sealed = {self._sealed(name): name for name in names}
        found = modified_times(self._inner, sealed)
        return {sealed[name]: modified_s for name, modified_s in found.items()}

    def status(self, name: str) -> Status:
        with self._clearly(name):
            status = self._inner.status(self._sealed(name))
        if not status.is_file:
            return status
        return replace(status, size_bytes=self._content_bytes(name, status.size_bytes))

    def exists(self, name: str) -> bool:
        return self._inner.exists(self._sealed(name))

    def open(self, name: str) -> StoredFile:
        with self._clearly(name):
            file = self._inner.open(self._sealed(name))
        if is_clear(name):
            return file
        try:
            return SealedFile(self.where(name), file, self._keys, self._identity(name))
        except BaseException:
            file.close()
            raise

    def reading_anew(self) -> AbstractContextManager[None]:
        inner = self._inner
        return inner.reading_anew() if isinstance(inner, Copying) else nullcontext()

    def open_stored(self, name: str) -> StoredFile:
        with self._clearly(name):
            return self._inner.open(self._sealed(name))

    def readable_parts(self, name: str) -> Iterator[tuple[int, bytes]]:
        with closing(self.open_stored(name)) as file:
            yield from readable_segments(file, self._keys, self._identity(name))

    def open_directory(self, name: str) -> OpenDirectory:
        with self._clearly(name):
            directory = self._inner.open_directory(self._sealed(name))
        return SealedDirectory(directory, self, name)

    def hold(self, directory: str) -> HeldDirectory | None:
        return self._inner.hold(self._sealed(directory))

    def read(self, name: str, max_bytes: int) -> bytes | None:
        if is_clear(name):
            return self._inner.read(name, max_bytes)
        # One more: so it shows whether the file is longer.
        at_most = wire.sealed_bytes(max_bytes) + 1
        sealed = self._inner.read(self._sealed(name), at_most)
        if sealed is None:
            return None
        with reading("file", self.where(name)):
            if len(sealed) < at_most:
                return wire.open_file(self._keys, self._identity(name), sealed)
            return self._read_start(name, max_bytes)

    def make_directory(self, name: str) -> None:
        self._inner.make_directory(self._sealed(name))

    def sync_names(self, directory: str) -> None:
        self._inner.sync_names(self._sealed(directory))

    def replace(self, name: str, data: bytes, *, keep_owner: bool = False) -> None:
        self._inner.replace(self._sealed(name), self._seal(name, data), keep_owner=keep_owner)

    def change(self, name: str, max_bytes: int, change: Callable[[bytes], bytes]) -> None:
        def change_inside(sealed: bytes) -> bytes:
            try:
                content = self.opened_file(name, sealed)
            except CorruptError as error:
                raise OSError(errno.EIO, error.message, self.where(name)) from error
            return self._seal(name, change(content))

        with self._clearly(name):
            self._inner.change(self._sealed(name), wire.sealed_bytes(max_bytes), change_inside)

    def rename(self, name: str, new: str) -> None:
        directory, _, step = name.rpartition("/")
        renamed = f"{directory}/{new}" if directory else new
        if is_clear(name) and is_clear(renamed):
            self._inner.rename(name, new)
        elif step != new:
            # A file is bound to its name: it is sealed anew.
            try:
                content = self._read_start(name, None)
            except (OSError, CorruptError) as error:
                raise StorageError(f"cannot rename {self.where(name)}: {error}") from error
            self.replace(renamed, content)
            self.remove(name)

    def put_new(self, name: str, data: bytes) -> None:
        with self._clearly(name):
            self._inner.put_new(self._sealed(name), self._seal(name, data))

    def overwrite(self, name: str, data: bytes) -> None:
        if is_clear(name):
            self._inner.overwrite(name, data)
            return
        # A segment is never sealed twice under one key: the whole file is made anew.
        try:
            content = self._read_start(name, None)
        except (OSError, CorruptError) as error:
            raise StorageError(f"cannot write {self.where(name)}: {error}") from error
        self.replace(name, data + content[len(data) :])

    def create(self, name: str) -> GrowingFile:
        file = self._inner.create(self._sealed(name))
        if is_clear(name):
            return file
        return SealedGrowingFile(file, wire.new_cipher(self._keys, self._identity(name)))

    def create_hidden(self, name: str) -> HiddenFile:
        file = self._inner.create_hidden(self._sealed(name))
        if is_clear(name):
            return file
        return SealedHiddenFile(file, wire.new_cipher(self._keys, self._identity(name)))

    def remove(self, name: str) -> None:
        self._inner.remove(self._sealed(name))

    def take_lease(self, name: str, content: bytes, directories: Sequence[str]) -> LeaseFile:
        sealed = [self._sealed(directory) for directory in directories]
        with self._clearly(name):
            lease = self._inner.take_lease(self._sealed(name), self._seal(name, content), sealed)
        return lease if is_clear(name) else SealedLease(self.where(name), lease)

    def remove_lease_if(self, name: str, is_dead: Callable[[LeaseLook], bool]) -> None:
        def is_dead_inside(look: LeaseLook) -> bool:
            if not is_clear(name):
                with suppress(CorruptError):
                    content = wire.open_file(self._keys, self._identity(name), look.content)
                    return is_dead(replace(look, content=content))
            return is_dead(look)

        with self._clearly(name):
            self._inner.remove_lease_if(self._sealed(name), is_dead_inside)

    def clock(self, directory: str) -> float:
        with self._clearly(directory):
            return self._inner.clock(self._sealed(directory))

    def remove_temporary_files(self, directories: Iterable[str], before_s: float) -> None:
        self._inner.remove_temporary_files(map(self._sealed, directories), before_s)

    def free_bytes(self) -> int:
        return self._inner.free_bytes()

    def keep_reserve(self) -> None:
        self._inner.keep_reserve()

    def release_reserve(self) -> bool:
        return self._inner.release_reserve()

    def strangers(self, directory: str) -> list[str]:
        """Return the names in a directory that were not made with these keys, sorted.

        Raises:
            FileNotFoundError: there is no such directory.
            StorageError: it cannot be listed.
        """
        with self._clearly(directory):
            found = self._inner.names(self._sealed(directory), frozenset(Kind))
        return [step for step in found if self.opened_step(directory, step) is None]

    def sealed_step(self, directory: str, step: str) -> str:
        """Return what a step in a directory is called in the inner storage."""
        return self._sealed(f"{directory}/{step}" if directory else step).rpartition("/")[2]

    def opened_step(self, directory: str, step: str) -> str | None:
        """Return the clear form of a step in the inner storage; None if it has none."""
        name = f"{directory}/{step}" if directory else step
        if is_clear(name) or is_temporary(step):
            return step
        return self._names.open(directory, step)

    def opened_file(self, name: str, sealed: bytes) -> bytes:
        """Return the content of a whole file, from what the inner storage has.

        Raises:
            CorruptError: it is damaged, or another file.
        """
        if is_clear(name):
            return sealed
        return wire.open_file(self._keys, self._identity(name), sealed)

    def _sealed(self, name: str) -> str:
        """Return the name that a file has in the inner storage."""
        if is_clear(name):
            return name
        directory, _, step = name.rpartition("/")
        above = self._sealed(directory)
        sealed = step if is_temporary(step) else self._names.seal(directory, step)
        return f"{above}/{sealed}" if above else sealed

    def _identity(self, name: str) -> wire.Identity:
        return wire.Identity(self._id, name)

    def _seal(self, name: str, data: bytes) -> bytes:
        return data if is_clear(name) else wire.seal_file(self._keys, self._identity(name), data)

    def _read_start(self, name: str, max_bytes: int | None) -> bytes:
        file = self.open(name)
        try:
            length_bytes = file.size_bytes if max_bytes is None else max_bytes
            return file.read_up_to(length_bytes, 0)
        finally:
            file.close()

    def _content_bytes(self, name: str, size_bytes: int) -> int:
        if is_clear(name):
            return size_bytes
        try:
            return wire.content_bytes(size_bytes)
        except CorruptError:
            return 0  # whoever opens it finds out

    @contextmanager
    def _clearly(self, name: str) -> Iterator[None]:
        """Let errors of missing and existing files have the clear name."""
        try:
            yield
        except FileNotFoundError as error:
            raise FileNotFoundError(error.errno, error.strerror, self.where(name)) from error
        except FileExistsError as error:
            raise FileExistsError(error.errno, error.strerror, self.where(name)) from error


def is_clear(name: str) -> bool:
    """Return whether a name, and the file's content, are the same in the inner storage."""
    return name in _CLEAR or any(
        name == directory or name.startswith(f"{directory}/") for directory in _CLEAR_BELOW
    )
