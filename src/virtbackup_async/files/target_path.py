"""Paths in a target, of which nothing but the target itself may be a link.

::

    /backups            as the admin named it, links followed
    |-- web             opened inside of that, if it is a directory and no link
    |   `-- 2026...     opened inside of that, if it is a regular file and no link

Who can write to a target can put a link in the place of whatever is in it, at any moment. So each
call goes down from the target anew, by descriptors, and does its work inside the last of them: what
the kernel has opened, nobody can exchange. Used by all who read, write or remove files of a target.
All calls block. Between calls no descriptor is held; ``held.py`` has what notices an exchange.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from virtbackup_async.errors import StorageError
from virtbackup_async.files.refusals import storage_error

FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700
NO_HARD_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What a link to a file gives where the file system has none."""

_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a named pipe would wait for its other end for ever.
_FILE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class TargetPath(Struct, frozen=True):
    """A directory or a file in a target; the target itself, with no steps.

    Attributes:
        target: the target, a path that may lead over links.
        steps: from there on, each a plain name.
    """

    target: Path
    steps: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path, depth: int) -> "TargetPath":
        """Return a path of which the last ``depth`` steps are in the target.

        Raises:
            StorageError: one of them is no plain name.
        """
        if len(path.parts) < depth:
            raise StorageError(f"not in a target: {path}")
        found = cls(path.parents[depth - 1] if depth else path)
        for step in path.parts[len(path.parts) - depth :]:
            found /= step
        return found

    def __truediv__(self, name: str) -> "TargetPath":
        if name in {"", ".", ".."} or "/" in name or "\0" in name:
            raise StorageError(f"not a plain file name in {self}: {name!r:.300}")
        return TargetPath(self.target, (*self.steps, name))

    def __str__(self) -> str:
        return str(self.path)

    @property
    def path(self) -> Path:
        """The whole path: to be shown, or to be opened by others at their own risk."""
        return self.target.joinpath(*self.steps)

    @property
    def name(self) -> str:
        return self.steps[-1]

    @property
    def parent(self) -> "TargetPath":
        return TargetPath(self.target, self.steps[:-1])

    def temporary(self) -> "TargetPath":
        """Return a new path in this directory, for a file that lives for moments."""
        return self / temporary_name()

    @contextmanager
    def entered(self) -> Iterator[int]:
        """Give a descriptor of this directory, in which names can be looked up: ``dir_fd``.

        Raises:
            OSError: it is not there, or it or one above is a link.
        """
        fd = os.open(self.target, _STEP)
        try:
            for count, step in enumerate(self.steps, 1):
                above, fd = fd, -1
                try:
                    fd = self._step(above, step, count)
                finally:
                    os.close(above)
            yield fd
        finally:
            if fd >= 0:
                os.close(fd)

    def open_directory(self) -> int:
        """Return a descriptor of this directory, for its names, its lock or its sync.

        Raises:
            OSError: it is not there, cannot be read, or it or one above is a link.
        """
        with self.entered() as fd:
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)

    def names(self, is_wanted: Callable[[os.DirEntry[str]], bool]) -> list[str]:
        """Return the names in this directory that are wanted, sorted.

        Raises:
            OSError: it is not there, cannot be read, or it or one above is a link.
        """
        fd = self.open_directory()
        try:
            with os.scandir(fd) as entries:
                return sorted(entry.name for entry in entries if is_wanted(entry))
        finally:
            os.close(fd)

    def file_names(self) -> list[str]:
        """Return the names of the regular files in this directory, sorted; errors as ``names``."""
        return self.names(lambda entry: entry.is_file(follow_symlinks=False))

    def directory_names(self) -> list[str]:
        """Return the names of the directories in this one, sorted; errors as ``names``."""
        return self.names(lambda entry: entry.is_dir(follow_symlinks=False))

    def status(self) -> os.stat_result:
        """Return what is there: of a link, the link's own.

        Raises:
            OSError: it is not there, or one above is a link.
        """
        with self.parent.entered() as directory:
            return os.stat(self.name, dir_fd=directory, follow_symlinks=False)

    def exists(self) -> bool:
        """Tell whether there is anything of that name; an error as ``status``."""
        with suppress(FileNotFoundError):
            self.status()
            return True
        return False

    def open_file(self, flags: int = os.O_RDONLY) -> int:
        """Return a descriptor of this file.

        Raises:
            FileNotFoundError: it is not there.
            OSError: it is no regular file, or cannot be opened; or one above is a link.
        """
        with self.parent.entered() as directory:
            try:
                fd = os.open(self.name, flags | _FILE, dir_fd=directory)
            except OSError as error:
                raise _explained(error, self.name, directory, self.path) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise _not_regular(self.path)
        return fd

    def create(self, access: int = os.O_RDWR) -> int:
        """Return a descriptor of a new private file of this name.

        Raises:
            StorageError: the name is taken, or the directory missing, not writable or full.
        """
        try:
            return self.claim(access)
        except OSError as error:
            raise storage_error("create", self.path, error) from error

    def claim(self, access: int = os.O_RDWR) -> int:
        """Do what ``create`` does; what the system refuses is an OSError, FileExistsError first."""
        with self.parent.entered() as directory:
            flags = access | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            return os.open(self.name, flags, FILE_MODE, dir_fd=directory)

    def read(self, max_bytes: int) -> bytes | None:
        """Return the content of a small file, up to a length; None if it is not there.

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

    def make_directory(self) -> None:
        """Make a private directory, durably, if it is not there.

        Raises:
            StorageError: its parent is missing or not writable, or it is no directory.
        """
        try:
            with self.parent.entered() as directory:
                os.mkdir(self.name, DIRECTORY_MODE, dir_fd=directory)
        except FileExistsError:
            self.check_directory()
            return
        except OSError as error:
            raise storage_error("create", self.path, error) from error
        try:
            self.parent.sync_names()
        except StorageError:
            # Whoever finds it would take its name for durable.
            with suppress(OSError), self.parent.entered() as directory:
                os.rmdir(self.name, dir_fd=directory)
            raise

    def check_directory(self) -> None:
        """See that it is a directory.

        Raises:
            StorageError: it is something else, or gone.
        """
        try:
            with self.entered():
                pass
        except OSError as error:
            raise storage_error("use", self.path, error) from error

    def unlink(self) -> None:
        """Remove the file; nothing is synced.

        Raises:
            OSError: it is not there, or a directory; or one above is a link.
        """
        with self.parent.entered() as directory:
            os.unlink(self.name, dir_fd=directory)

    def drop(self) -> None:
        """Remove the file, if it is there; nothing is synced.

        Raises:
            StorageError: the directory is not writable, or the storage failed.
        """
        try:
            self.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise storage_error("remove", self.path, error) from error

    def remove(self) -> None:
        """Remove the file, durably; one that is not there is as good as removed.

        Raises:
            StorageError: the directory is not writable, or the storage failed.
        """
        try:
            self.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error("remove", self.path, error) from error
        self.parent.sync_names()

    def rename(self, name: str) -> None:
        """Give the file another name, in place of what had it; nothing is synced.

        Raises:
            OSError: it is not there, or the directory is not writable.
        """
        new = self.parent / name
        with self.parent.entered() as directory:
            os.rename(self.name, new.name, src_dir_fd=directory, dst_dir_fd=directory)

    def link(self, name: str) -> None:
        """Give the file a second name, which must be free; nothing is synced.

        Raises:
            FileExistsError: the name is taken.
            OSError: it is not there, or the file system has no hard links.
        """
        new = self.parent / name
        with self.parent.entered() as directory:
            os.link(
                self.name,
                new.name,
                src_dir_fd=directory,
                dst_dir_fd=directory,
                follow_symlinks=False,
            )

    def rename_exclusively(self, name: str) -> None:
        """Give the file another name, which must be free; nothing is synced.

        Raises:
            StorageError: the name is taken, or the directory is not writable.
        """
        # A hard link takes a free name in one step: who is killed leaves the whole file, or none.
        new = self.parent / name
        try:
            self.link(name)
            self.unlink()
        except FileExistsError as error:
            raise storage_error("create", new.path, error) from error
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise storage_error("rename", self.path, error) from error
            self._rename_over_claim(new)

    def sync_names(self) -> None:
        """Make the names in this directory durable.

        Raises:
            StorageError: it is gone, or the storage failed.
        """
        try:
            fd = self.open_directory()
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise storage_error("sync", self.path, error) from error

    def replace(self, data: bytes, keep_owner: bool = False) -> None:  # noqa: FBT001, FBT002 -- run_sync passes no keywords
        """Put ``data`` into the file: readers see the old content or the new, never a part.

        Args:
            data: its new content.
            keep_owner: give it the owner and mode of the file that it replaces, as far as we may;
                else it is ours, with mode 0600.

        Raises:
            StorageError: the directory is missing, not writable or full.
        """
        # A short name of its own: the final name may be as long as the file system allows.
        part = self.parent.temporary()
        try:
            try:
                part.write_new(data, self if keep_owner else None)
                part.rename(self.name)
            except BaseException:
                with suppress(OSError):  # it is found by `clean`, and the first failure tells more
                    part.unlink()
                raise
        except OSError as error:
            raise storage_error("write", self.path, error) from error
        self.parent.sync_names()

    def write_new(self, data: bytes, like: "TargetPath | None" = None) -> None:
        """Write a new file, durably but for its name; with the owner and mode of ``like``.

        Raises:
            OSError: the name is taken, or the directory missing, not writable or full.
        """
        fd = self.claim(os.O_WRONLY)
        with os.fdopen(fd, "wb") as file:
            if like is not None:
                with suppress(FileNotFoundError):
                    _give_owner(fd, like.status())
            file.write(data)
            file.flush()
            os.fsync(fd)

    def _rename_over_claim(self, new: "TargetPath") -> None:
        # Without hard links an empty file takes the name: only a file of ours is ever replaced.
        os.close(new.create())
        try:
            self.rename(new.name)
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            raise storage_error("rename", self.path, error) from error

    def _step(self, above: int, step: str, count: int) -> int:
        try:
            return os.open(step, _STEP | os.O_NOFOLLOW, dir_fd=above)
        except OSError as error:
            path = self.target.joinpath(*self.steps[:count])
            raise _explained(error, step, above, path) from error


def temporary_name() -> str:
    """Return a name for a file that lives for moments; what a crash leaves, ``clean`` finds."""
    return f".virtbackup-{secrets.token_hex(8)}.tmp"


def _give_owner(fd: int, owner: os.stat_result) -> None:
    # Only root may give files away; for others the group alone may still be theirs to set.
    for uid, gid in ((owner.st_uid, owner.st_gid), (-1, owner.st_gid)):
        with suppress(PermissionError):
            os.fchown(fd, uid, gid)
            break
    os.fchmod(fd, stat.S_IMODE(owner.st_mode))


def _explained(error: OSError, name: str, directory: int, path: Path) -> OSError:
    """Name the whole path, and say in plain words what stood in the way of it."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
        with suppress(OSError):
            mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                return OSError(errno.ELOOP, "a symlink, not followed", str(path))
    if error.errno == errno.ENXIO:  # a pipe that nobody reads, or a socket
        return _not_regular(path)
    return OSError(error.errno, error.strerror, str(path))


def _not_regular(path: Path) -> OSError:
    return OSError(errno.EINVAL, "not a regular file", str(path))
