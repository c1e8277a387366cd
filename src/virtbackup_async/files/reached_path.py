"""Finding and opening files of a target, of which only the target itself can be a link.

The half of ``target_path.py`` that changes nothing.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from msgspec import Struct

from virtbackup_async.errors import StorageError
from virtbackup_async.files.refusals import NOT_FOLLOWED, close, storage_error
from virtbackup_async.model.amounts import size
from virtbackup_async.model.target_file import TargetFile

_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a named pipe would wait for its other end forever.
_FILE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class UnfitFileError(OSError):
    """A file that exists and is not the kind of file to read: no regular file, or too long."""


class ReachedPath(Struct, frozen=True):
    """A directory or a file in a target; the target itself, with no steps.

    Attributes:
        target: the target, a path that can lead over links.
        steps: from there on, each a plain name.
    """

    target: Path
    steps: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path, depth: int) -> Self:
        """Return a path whose last ``depth`` steps are in the target.

        Raises:
            StorageError: one of them is not a plain name.
        """
        if len(path.parts) < depth:
            raise StorageError(f"not in a target: {path}")
        found = cls(path.parents[depth - 1] if depth else path)
        for step in path.parts[len(path.parts) - depth :]:
            found /= step
        return found

    @classmethod
    def in_domain(cls, path: Path) -> Self:
        """Return a file in the directory of a domain: a definition, a part of a package; as ``of``.

        ::

            TARGET/web/20260301-021500_3_web.json
        """
        return cls.of(path, 2)

    @classmethod
    def at(cls, file: TargetFile) -> Self:
        """Return a file of a target that is a local directory.

        Raises:
            StorageError: it is none, or a step is not a plain name.
        """
        found = cls(file.target.directory)
        for step in file.stored_name.split("/") if file.stored_name else ():
            found /= step
        return found

    def __truediv__(self, name: str) -> Self:
        if name in {"", ".", ".."} or "/" in name or "\0" in name:
            raise StorageError(f"not a plain file name in {self}: {name!r:.300}")
        return type(self)(self.target, (*self.steps, name))

    def __str__(self) -> str:
        return str(self.path)

    @property
    def path(self) -> Path:
        """The whole path, for messages. Opening it follows links."""
        return self.target.joinpath(*self.steps)

    def real_path(self) -> Path:
        """Return the same path with only the links resolved that lead to the target."""
        return Path(os.path.realpath(self.target)).joinpath(*self.steps)

    @property
    def name(self) -> str:
        return self.steps[-1]

    @property
    def parent(self) -> Self:
        return type(self)(self.target, self.steps[:-1])

    @contextmanager
    def entered(self) -> Iterator[int]:
        """Yield a descriptor of this directory, for use as ``dir_fd``.

        Raises:
            OSError: it is missing, or it or a directory above it is a link.
        """
        fd = os.open(self.target, _STEP)
        try:
            for count, step in enumerate(self.steps, 1):
                above, fd = fd, -1
                try:
                    fd = self._step(above, step, count)
                finally:
                    close(above)
            yield fd
        finally:
            if fd >= 0:
                close(fd)

    def open_directory(self) -> int:
        """Return a descriptor of this directory, for its names, its lock or its sync.

        Raises:
            OSError: it is missing or unreadable, or it or a directory above it is a link.
        """
        with self.entered() as fd:
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)

    def names(self, is_wanted: Callable[[os.DirEntry[str]], bool]) -> list[str]:
        """Return the names in this directory that are wanted, sorted.

        Raises:
            OSError: it is missing or unreadable, or it or a directory above it is a link.
        """
        fd = self.open_directory()
        try:
            with os.scandir(fd) as entries:
                return sorted(entry.name for entry in entries if is_wanted(entry))
        finally:
            close(fd)

    def file_names(self) -> list[str]:
        """Return the names of the regular files in this directory, sorted; errors as ``names``."""
        return self.names(lambda entry: entry.is_file(follow_symlinks=False))

    def directory_names(self) -> list[str]:
        """Return the names of the directories in this one, sorted; errors as ``names``."""
        return self.names(lambda entry: entry.is_dir(follow_symlinks=False))

    def status(self) -> os.stat_result:
        """Return the status of a file; a link's own status for a link.

        Raises:
            OSError: it is missing, or a directory above it is a link.
        """
        with self.parent.entered() as directory:
            return os.stat(self.name, dir_fd=directory, follow_symlinks=False)

    def statuses(self, names: Sequence[str]) -> list[os.stat_result | None]:
        """Return the status of files in this directory, which is opened once.

        Of a link it is its own; None for a file that is missing.

        Raises:
            OSError: the directory is missing, or it or a directory above it is a link.
        """
        with self.entered() as directory:
            return [_status_in(directory, name) for name in names]

    def exists(self) -> bool:
        """Return whether the name exists; raises as ``status``."""
        with suppress(FileNotFoundError):
            self.status()
            return True
        return False

    def open_file(self, flags: int = os.O_RDONLY) -> int:
        """Return a descriptor of this file.

        Raises:
            FileNotFoundError: it is missing.
            UnfitFileError: it is not a regular file.
            OSError: it cannot be opened, or is below a link.
        """
        with self.parent.entered() as directory:
            return open_file_in(directory, self.name, self.parent.path, flags)

    def read(self, max_bytes: int) -> bytes | None:
        """Return the content of a small file, up to a length; None if it is missing.

        Raises:
            StorageError: it cannot be read.
        """
        try:
            with os.fdopen(self.open_file(), "rb") as file:
                return file.read(max_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("read", self.path, error) from error

    def _step(self, above: int, step: str, count: int) -> int:
        try:
            return os.open(step, _STEP | os.O_NOFOLLOW, dir_fd=above)
        except OSError as error:
            path = self.target.joinpath(*self.steps[:count])
            raise _explained(error, step, above, path) from error


def _status_in(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return None


def open_file_in(directory: int, name: str, where: Path, flags: int = os.O_RDONLY) -> int:
    """Return a descriptor of the file ``name`` in an open directory; raises as ``open_file``.

    Args:
        directory: its descriptor.
        name: the file's.
        where: the path of the directory, for messages.
        flags: of ``os.open``.
    """
    return _opened(directory, name, where, flags)[0]


def _opened(
    directory: int, name: str, where: Path, flags: int = os.O_RDONLY
) -> tuple[int, os.stat_result]:
    try:
        fd = os.open(name, flags | _FILE, dir_fd=directory)
    except OSError as error:
        raise _explained(error, name, directory, where / name) from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        close(fd)
        raise _not_regular(where / name)
    return fd, status


def read_file_in(directory: int, name: str, where: Path, max_bytes: int) -> bytes:
    """Return the content of the file ``name`` in an open directory, whose path is ``where``.

    Raises:
        UnfitFileError: it is not a regular file, or longer than ``max_bytes``.
        OSError: it is missing, a symlink, or cannot be read.
    """
    fd, status = _opened(directory, name, where)
    try:
        size_bytes = status.st_size
        if size_bytes > max_bytes:
            raise UnfitFileError(errno.EFBIG, f"larger than {size(max_bytes)}", str(where / name))
        # Of a regular file, one read returns all of so few bytes.
        return os.read(fd, size_bytes)
    finally:
        close(fd)


def _explained(error: OSError, name: str, directory: int, path: Path) -> OSError:
    """Return the error with the whole path, in plain words where a link or a pipe caused it."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
        with suppress(OSError):
            mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                return OSError(errno.ELOOP, NOT_FOLLOWED, str(path))
    if error.errno == errno.ENXIO:  # a pipe that nobody reads, or a socket
        return _not_regular(path)
    return OSError(error.errno, error.strerror, str(path))


def _not_regular(path: Path) -> OSError:
    return UnfitFileError(errno.EINVAL, "not a regular file", str(path))
