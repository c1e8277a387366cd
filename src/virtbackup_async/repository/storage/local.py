"""A target in a directory. Only this module and ``local_files.py`` touch a repository's files.

Each call goes down from the target by descriptors and follows no link (``files/target_path.py``).
Content is synced before its name, and a name by syncing its directory. A name is taken with a hard
link, or with an empty file where the file system has no links.

The reserve is a few files of a few KiB, each with an inode, that nothing reads::

    backups fill the target to the last byte, or take its last inode
    prune       cannot write its lease, or its list of packs: it removes the reserve
    packs       are removed, and there is space again
    the end     the reserve is made again
"""

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Final

from msgspec import Struct

from virtbackup_async.errors import StorageError
from virtbackup_async.files import lacks
from virtbackup_async.files.directories import check_target
from virtbackup_async.files.held import Held
from virtbackup_async.files.refusals import close, storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model.names import is_temporary
from virtbackup_async.repository.storage.held_change import change_held
from virtbackup_async.repository.storage.interface import Kind, LeaseLook, Status
from virtbackup_async.repository.storage.local_files import (
    LocalDirectory,
    LocalFile,
    LocalGrowingFile,
    LocalHeld,
    LocalHiddenFile,
    LocalLease,
    sync,
    write_all,
)

# A lease takes two for a moment, a note one, and a name may need a block of its directory.
RESERVE_FILES: Final = 4
RESERVE_FILE_BYTES: Final = 16 * 1024
_LOOK_BYTES: Final = 4096
_LEAST_INODES: Final = 8
# A lease that has no name yet, or a hidden file.
_OLD_TEMPORARY: Final = re.compile(r"\.[0-9a-f]{16}")


class LocalStorage(Struct, frozen=True):
    """The files of a target in a directory.

    Attributes:
        target: the directory; the path to it may lead over links.
        reserve: the directory in it that holds the reserve.
    """

    target: Path
    reserve: str

    @property
    def reads_at_once(self) -> int:
        return 1

    def path(self, name: str = "") -> Path:
        """Return the full path of a file, for messages; opening it follows links."""
        return self.target / name

    def where(self, name: str = "") -> str:
        return f"{self.target}/{name}" if name else str(self.target)

    def names(self, directory: str, kinds: Container[Kind]) -> list[str]:
        place = self._at(directory)
        try:
            return place.names(lambda entry: _kind_of(entry) in kinds)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise storage_error("read", place.path, error) from error

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for directory, group in groupby(sorted(names), key=_directory_of):
            place = self._at(directory)
            try:
                with place.entered() as fd:
                    found |= _sizes_in(fd, group)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise storage_error("read", place.path, error) from error
        return found

    def status(self, name: str) -> Status:
        place = self._at(name)
        try:
            status = place.status()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise storage_error("read", place.path, error) from error
        version = (status.st_ino, status.st_mtime_ns)
        is_file = stat.S_ISREG(status.st_mode)
        return Status(status.st_size, version, is_file, status.st_mtime)

    def exists(self, name: str) -> bool:
        place = self._at(name)
        try:
            return place.exists()
        except OSError as error:
            raise storage_error("read", place.path, error) from error

    def open(self, name: str) -> LocalFile:
        place = self._at(name)
        return LocalFile(str(place), place.open_file())

    def open_directory(self, name: str) -> LocalDirectory:
        place = self._at(name)
        return LocalDirectory(place, place.open_directory())

    def hold(self, directory: str) -> LocalHeld | None:
        place = self._at(directory)
        try:
            fd = place.open_directory()
        except OSError as error:
            raise storage_error("open", place.path, error) from error
        if lacks.lock(fd, fcntl.LOCK_EX, self.target):
            return LocalHeld(fd)
        close(fd)
        return None

    def read(self, name: str, max_bytes: int) -> bytes | None:
        return self._at(name).read(max_bytes)

    def make_directory(self, name: str) -> None:
        check_target(self.target)
        self._at(name).make_directory()

    def sync_names(self, directory: str) -> None:
        self._at(directory).sync_names()

    def replace(self, name: str, data: bytes, *, keep_owner: bool = False) -> None:
        place = self._at(name)
        place.replace(data, place if keep_owner else None)

    def change(self, name: str, max_bytes: int, change: Callable[[bytes], bytes]) -> None:
        change_held(self, name, max_bytes, change)

    def rename(self, name: str, new: str) -> None:
        self._at(name).rename_durably(new)

    def put_new(self, name: str, data: bytes) -> None:
        place = self._at(name)
        try:
            place.create_whole(data)
        finally:
            # Even if another process has just made the file: the caller relies on its name.
            place.parent.sync_names()

    def overwrite(self, name: str, data: bytes) -> None:
        place = self._at(name)
        try:
            fd = place.open_file(os.O_WRONLY)
            try:
                _refuse_shared(fd, place.path)
                os.pwrite(fd, data, 0)
                os.fsync(fd)
            finally:
                close(fd)
        except OSError as error:
            raise storage_error("write", place.path, error) from error

    def create(self, name: str) -> LocalGrowingFile:
        place = self._at(name)
        place.parent.make_directory()
        return LocalGrowingFile(place)

    def create_hidden(self, name: str) -> LocalHiddenFile:
        return LocalHiddenFile(self._at(name))

    def remove(self, name: str) -> None:
        self._at(name).remove()

    def take_lease(self, name: str, content: bytes, directories: Sequence[str]) -> LocalLease:
        place = self._at(name)
        part = place.parent / f".{secrets.token_hex(8)}"
        fd = part.create()
        try:
            write_all(fd, content, part.path)
            # Without locks, only the time of the file shows whether the holder is alive.
            lacks.lock(fd, fcntl.LOCK_EX, self.target)
            sync(fd, part.path)
            held = self._hold(directories)
            try:
                _name_lease(part, place)
            except BaseException:
                held.close()
                raise
            return LocalLease(place, fd, held)
        except BaseException:
            close(fd)
            raise
        finally:
            # A second name of the lease by now, or nothing: a prune finds what stays.
            with suppress(OSError):
                part.unlink()

    def remove_lease_if(self, name: str, is_dead: Callable[[LeaseLook], bool]) -> None:
        place = self._at(name)
        fd = place.open_file()
        try:
            # A lock that is taken here lasts until the lease is gone.
            is_locked = _is_locked(fd)
            content = os.pread(fd, _LOOK_BYTES, 0)
            if is_dead(LeaseLook(content, os.fstat(fd).st_mtime, is_locked)):
                with suppress(FileNotFoundError):
                    place.unlink()
                    place.parent.sync_names()
        finally:
            close(fd)

    def clock(self, directory: str) -> float:
        # The directory is touched: on a full target no file could be made for it.
        fd = self._at(directory).open_directory()
        try:
            os.utime(fd)
            return os.fstat(fd).st_mtime
        finally:
            close(fd)

    def remove_temporary_files(self, directories: Iterable[str], before_s: float) -> None:
        for directory in directories:
            place = self._at(directory)
            try:
                for name in filter(_is_temporary, place.file_names()):
                    with suppress(FileNotFoundError):
                        if (place / name).status().st_mtime < before_s:
                            (place / name).remove()
            except OSError as error:
                raise storage_error("read", place.path, error) from error

    def free_bytes(self) -> int:
        try:
            with self._at(self.reserve).entered() as fd:
                status = os.fstatvfs(fd)
        except OSError as error:
            raise storage_error("read", self.path(self.reserve), error) from error
        # Some file systems have no fixed number of inodes, and report 0 of 0.
        if status.f_files and status.f_favail < _LEAST_INODES:
            return 0
        return status.f_bavail * status.f_frsize

    def keep_reserve(self) -> None:
        with suppress(StorageError, OSError):
            for file in self._reserve_files():
                if not file.exists():
                    _make_reserve_file(file)

    def release_reserve(self) -> bool:
        found = False
        for file in self._reserve_files():
            with suppress(OSError):
                found |= file.exists()
            file.drop()
        return found

    def _at(self, name: str) -> TargetPath:
        place = TargetPath(self.target)
        for step in name.split("/") if name else ():
            place /= step
        return place

    def _hold(self, directories: Sequence[str]) -> Held:
        places = [self._at(directory) for directory in directories]
        try:
            return Held([place for place in places if place.exists()])
        except OSError as error:
            raise storage_error("read", places[0].path, error) from error

    def _reserve_files(self) -> list[TargetPath]:
        return [self._at(self.reserve) / f"reserve-{number}" for number in range(RESERVE_FILES)]


def _kind_of(entry: os.DirEntry[str]) -> Kind:
    if entry.is_file(follow_symlinks=False):
        return Kind.FILE
    if entry.is_dir(follow_symlinks=False):
        return Kind.DIRECTORY
    if not entry.is_symlink() or entry.is_file():
        return Kind.OTHER
    return Kind.LINK if entry.is_dir() else Kind.LOST_LINK


def _directory_of(name: str) -> str:
    return name.rpartition("/")[0]


def _sizes_in(fd: int, names: Iterable[str]) -> Iterator[tuple[str, int]]:
    for name in names:
        with suppress(FileNotFoundError):  # removed this moment
            status = os.stat(name.rpartition("/")[2], dir_fd=fd, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                yield name, status.st_size


def _name_lease(part: TargetPath, place: TargetPath) -> None:
    try:
        part.take_free_name(place.name)
    except FileExistsError:
        raise
    except OSError as error:
        raise storage_error("write", place.path, error) from error
    try:
        place.parent.sync_names()
    except StorageError:
        with suppress(OSError):
            place.unlink()
        raise


def _is_locked(fd: int) -> bool | None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _refuse_shared(fd: int, path: Path) -> None:
    """Check that a file has no other name, under which it would change as well."""
    if os.fstat(fd).st_nlink > 1:
        raise StorageError(
            f"cannot write {path}: it is a hard link, the file has other names",
            hint="Put a copy of the file in its place, then run 'virtbackup repair' again.",
        )


def _make_reserve_file(file: TargetPath) -> None:
    fd = file.create()
    try:
        # Not zeros: a file system that compresses would reserve no space for them.
        write_all(fd, os.urandom(RESERVE_FILE_BYTES), file.path)
        sync(fd, file.path)
    except BaseException:
        with suppress(OSError):
            file.unlink()
        raise
    finally:
        close(fd)


def _is_temporary(name: str) -> bool:
    return is_temporary(name) or _OLD_TEMPORARY.fullmatch(name) is not None
