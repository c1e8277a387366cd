"""A storage in memory: what it promises is kept by tests/contract/test_storages.py."""

import errno
import os
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from threading import RLock
from typing import NoReturn

from virtbackup_async.errors import CorruptError, StorageError, StorageFullError
from virtbackup_async.files.reached_path import UnfitFileError
from virtbackup_async.model.amounts import size
from virtbackup_async.repository.storage.held_change import change_held
from virtbackup_async.repository.storage.interface import Kind, LeaseLook, Status

RESERVE_BYTES = 4096


class _Content:
    """The content of a file, told from each other one."""

    versions = count()

    def __init__(self, data: bytes | bytearray, modified_s: float) -> None:
        self.data = bytearray(data)
        self.modified_s = modified_s
        self.version = next(self.versions)
        self.is_locked = False


class MemoryStorage:
    """The files of a target.

    Attributes:
        now_s: what time it is.
        room_bytes: how much can still be written.
        reads_at_once: how many reads should be under way at once.
    """

    def __init__(self, room_bytes: int = 1 << 40, reads_at_once: int = 1) -> None:
        self.reads_at_once = reads_at_once
        self.now_s = 1_000_000.0
        self.room_bytes = room_bytes
        self.files: dict[str, _Content] = {}
        self.directories = {""}
        self.turn = RLock()
        self.held: set[str] = set()
        self._reserve_bytes = 0

    def where(self, name: str = "") -> str:
        return f"memory:{name}"

    def names(self, directory: str, kinds: Container[Kind]) -> list[str]:
        with self.turn:
            if directory not in self.directories:
                self.lack(directory)
            files = (_last(n) for n in self.files if _parent(n) == directory)
            below = (_last(n) for n in self.directories if n and _parent(n) == directory)
            found = [n for n in files if Kind.FILE in kinds]
            return sorted([*found, *(n for n in below if Kind.DIRECTORY in kinds)])

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        with self.turn:
            return {name: len(self.files[name].data) for name in names if name in self.files}

    def status(self, name: str) -> Status:
        with self.turn:
            if name in self.directories:
                return Status(0, name, is_file=False)
            found = self.find(name)
            return Status(len(found.data), found.version, True, found.modified_s)

    def exists(self, name: str) -> bool:
        return name in self.files or name in self.directories

    def open(self, name: str) -> "_OpenFile":
        with self.turn:
            return _OpenFile(self.where(name), bytes(self.find(name).data))

    def open_directory(self, name: str) -> "_OpenDirectory":
        if name not in self.directories:
            self.lack(name)
        return _OpenDirectory(self, name)

    def hold(self, directory: str) -> "_Held | None":
        self.sync_names(directory)
        with self.turn:
            if directory in self.held:
                return None
            self.held.add(directory)
            return _Held(self, directory)

    def read(self, name: str, max_bytes: int) -> bytes | None:
        with self.turn:
            found = self.files.get(name)
            return None if found is None else bytes(found.data[:max_bytes])

    def make_directory(self, name: str) -> None:
        with self.turn:
            if _parent(name) not in self.directories or name in self.files:
                raise StorageError(f"cannot create {self.where(name)}")
            self.directories.add(name)

    def sync_names(self, directory: str) -> None:
        if directory not in self.directories:
            raise StorageError(f"cannot sync {self.where(directory)}")

    def replace(self, name: str, data: bytes, *, keep_owner: bool = False) -> None:
        self.write(name, data)

    def change(self, name: str, max_bytes: int, change: Callable[[bytes], bytes]) -> None:
        change_held(self, name, max_bytes, change)

    def rename(self, name: str, new: str) -> None:
        with self.turn:
            if name not in self.files:
                raise StorageError(f"cannot rename {self.where(name)}")
            self.files[f"{_parent(name)}/{new}"] = self.files.pop(name)

    def put_new(self, name: str, data: bytes) -> None:
        with self.turn:
            if self.exists(name):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.where(name))
            self.write(name, data)

    def overwrite(self, name: str, data: bytes) -> None:
        with self.turn:
            try:
                found = self.find(name)
            except FileNotFoundError as error:
                raise StorageError(f"cannot write {self.where(name)}") from error
            found.data[: len(data)] = data

    def create(self, name: str) -> "_GrowingFile":
        with self.turn:
            self.make_directory(_parent(name))
            if self.exists(name):
                raise StorageError(f"cannot create {self.where(name)}: it exists")
            self.write(name, b"")
        return _GrowingFile(self, name)

    def create_hidden(self, name: str) -> "_HiddenFile":
        self.sync_names(_parent(name))
        return _HiddenFile(self, name)

    def remove(self, name: str) -> None:
        with self.turn:
            self.files.pop(name, None)

    def take_lease(self, name: str, content: bytes, _directories: Sequence[str]) -> "_Lease":
        with self.turn:
            self.put_new(name, content)
            self.files[name].is_locked = True
            return _Lease(self, name, self.files[name])

    def remove_lease_if(self, name: str, is_dead: Callable[[LeaseLook], bool]) -> None:
        with self.turn:
            found = self.find(name)
            if is_dead(LeaseLook(bytes(found.data), found.modified_s, found.is_locked)):
                del self.files[name]

    def clock(self, directory: str) -> float:
        if directory not in self.directories:
            self.lack(directory)
        return self.now_s

    def remove_temporary_files(self, _directories: Iterable[str], _before_s: float) -> None:
        """There are none: what is hidden is seen by nobody."""

    def free_bytes(self) -> int:
        return self.room_bytes

    def keep_reserve(self) -> None:
        with self.turn, suppress(StorageFullError):
            if not self._reserve_bytes:
                self.take_room(RESERVE_BYTES)
                self._reserve_bytes = RESERVE_BYTES

    def release_reserve(self) -> bool:
        with self.turn:
            released, self._reserve_bytes = self._reserve_bytes, 0
            self.room_bytes += released
            return released > 0

    def find(self, name: str) -> _Content:
        if name not in self.files:
            self.lack(name)
        return self.files[name]

    def lack(self, name: str) -> NoReturn:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.where(name))

    def write(self, name: str, data: bytes) -> None:
        """Put a whole file in the place of what was there."""
        with self.turn:
            self.sync_names(_parent(name))
            self.take_room(len(data))
            self.files[name] = _Content(data, self.now_s)

    def take_room(self, length_bytes: int) -> None:
        if length_bytes > self.room_bytes:
            raise StorageFullError("target is full")
        self.room_bytes -= length_bytes


class _OpenFile:
    def __init__(self, where: str, data: bytes) -> None:
        self.where = where
        self.size_bytes = len(data)
        self._data = data

    def read(self, length_bytes: int, offset: int) -> bytes:
        data = self.read_up_to(length_bytes, offset)
        if len(data) < length_bytes:
            raise CorruptError("it is cut off")
        return data

    def read_up_to(self, length_bytes: int, offset: int) -> bytes:
        return self._data[offset : offset + length_bytes]

    read_once = read

    def close(self) -> None:
        """Nothing is held."""


class _OpenDirectory:
    def __init__(self, storage: MemoryStorage, name: str) -> None:
        self._storage = storage
        self._name = name

    def names(self) -> frozenset[str]:
        return frozenset(self._storage.names(self._name, frozenset(Kind)))

    def read(self, name: str, max_bytes: int) -> bytes:
        full = f"{self._name}/{name}"
        if full in self._storage.directories:
            raise UnfitFileError(errno.EINVAL, "not a regular file", self._storage.where(full))
        data = bytes(self._storage.find(full).data)
        if len(data) > max_bytes:
            where = self._storage.where(full)
            raise UnfitFileError(errno.EFBIG, f"larger than {size(max_bytes)}", where)
        return data

    def read_each(
        self, names: Iterable[str], max_bytes: int
    ) -> Iterator[tuple[str, bytes | OSError]]:
        for name in names:
            try:
                yield name, self.read(name, max_bytes)
            except OSError as error:
                yield name, error

    def close(self) -> None:
        """Nothing is held."""


class _Held:
    def __init__(self, storage: MemoryStorage, name: str) -> None:
        self._storage = storage
        self._name = name

    def close(self) -> None:
        self._storage.held.discard(self._name)


class _GrowingFile:
    def __init__(self, storage: MemoryStorage, name: str) -> None:
        self._storage = storage
        self._name = name
        self._content = storage.files[name]

    def append(self, data: bytes | bytearray) -> None:
        with self._storage.turn:
            self._storage.take_room(len(data))
            self._content.data += data

    def finish_soon(self) -> None:
        """Memory is as durable as it gets."""

    def finish(self) -> None:
        """Memory is as durable as it gets."""

    def discard(self) -> None:
        with self._storage.turn:
            if self._storage.files.get(self._name) is self._content:
                self._storage.remove(self._name)


class _HiddenFile:
    def __init__(self, storage: MemoryStorage, name: str) -> None:
        self._storage = storage
        self._name = name
        self._data = bytearray()

    def append(self, data: bytes | bytearray) -> None:
        with self._storage.turn:
            self._storage.take_room(len(data))
            self._data += data

    def finish(self) -> None:
        """Memory is as durable as it gets."""

    def publish(self, on_named: Callable[[], None]) -> None:
        with self._storage.turn:
            self._storage.files[self._name] = _Content(self._data, self._storage.now_s)
        on_named()

    def publish_exclusively(self) -> None:
        with self._storage.turn:
            if self._storage.exists(self._name):
                message = f"cannot create {self._storage.where(self._name)}: it exists"
                raise StorageError(message) from FileExistsError()
            self.publish(lambda: None)

    def discard(self) -> None:
        """What has no name is gone."""


class _Lease:
    def __init__(self, storage: MemoryStorage, name: str, content: _Content) -> None:
        self.where = storage.where(name)
        self._storage = storage
        self._name = name
        self._content = content

    def refresh(self) -> None:
        self._content.modified_s = self._storage.now_s

    def is_held(self) -> bool:
        return self._storage.files.get(self._name) is self._content

    def remove(self) -> None:
        with self._storage.turn:
            self._content.is_locked = False
            if self.is_held():
                self._storage.remove(self._name)


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _last(name: str) -> str:
    return name.rpartition("/")[2]
