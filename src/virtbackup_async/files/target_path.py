"""Paths in a target, of which only the target itself can be a link.

::

    /backups            as the admin named it, links followed
    |-- web             opened inside of that, if it is a directory and no link
    |   `-- 2026...     opened inside of that, if it is a regular file and no link

Another user who can write to a target can replace anything in it by a link, at any moment. So each
call walks down from the target again, by descriptors, and works inside the last of them: nobody can
exchange a directory that is open. All code that reads, writes or removes files of a target uses it;
``durable.py`` uses it for files elsewhere. All calls block. No descriptor is held between calls;
``held.py`` notices an exchange.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from virtbackup_async.errors import StorageError
from virtbackup_async.files import lacks
from virtbackup_async.files.reached_path import ReachedPath
from virtbackup_async.files.refusals import close, storage_error
from virtbackup_async.model.names import temporary_name

FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700


class TargetPath(ReachedPath, frozen=True):
    """A directory or a file in a target; the target itself, with no steps."""

    def temporary(self) -> "TargetPath":
        """Return a new path in this directory for a temporary file."""
        return self / temporary_name()

    def create(self, access: int = os.O_RDWR, mode: int = FILE_MODE) -> int:
        """Return a descriptor of a new file of this name.

        Args:
            access: ``os.O_RDWR`` or ``os.O_WRONLY``.
            mode: the file's, whatever the umask.

        Raises:
            StorageError: the name is taken, or the directory missing, not writable or full.
        """
        try:
            return self.claim(access, mode)
        except OSError as error:
            raise storage_error("create", self.path, error) from error

    def claim(self, access: int = os.O_RDWR, mode: int = FILE_MODE) -> int:
        """Do the same as ``create``; errors are the system's, mostly a FileExistsError."""
        with self.parent.entered() as directory:
            flags = access | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(self.name, flags, mode, dir_fd=directory)
        if mode != FILE_MODE:
            try:
                os.fchmod(fd, mode)
            except OSError:
                close(fd)
                raise
        return fd

    def make_directory(self) -> None:
        """Create a private directory, durably, unless it exists.

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
            # Another call that found it would take its name for durable.
            with suppress(OSError), self.parent.entered() as directory:
                os.rmdir(self.name, dir_fd=directory)
            raise

    def check_directory(self) -> None:
        """Check that it is a directory.

        Raises:
            StorageError: it is something else, or missing.
        """
        try:
            with self.entered():
                pass
        except OSError as error:
            raise storage_error("use", self.path, error) from error

    def unlink(self) -> None:
        """Remove the file; nothing is synced.

        Raises:
            OSError: it is missing, or a directory; or a directory above it is a link.
        """
        with self.parent.entered() as directory:
            os.unlink(self.name, dir_fd=directory)

    def drop(self) -> bool:
        """Remove the file, if it is there, and return whether it was; nothing is synced.

        Raises:
            StorageError: the directory is not writable, or the storage failed.
        """
        try:
            self.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise storage_error("remove", self.path, error) from error
        return True

    def remove(self) -> None:
        """Remove the file, durably; a missing one is no error.

        Raises:
            StorageError: the directory is not writable, or the storage failed.
        """
        if self.drop():
            self.parent.sync_names()

    def rename_durably(self, name: str) -> None:
        """Rename the file, durably, and replace a file of that name.

        Raises:
            StorageError: it is missing, or the directory is not writable.
        """
        try:
            self.rename(name)
        except OSError as error:
            raise storage_error("rename", self.path, error) from error
        self.parent.sync_names()

    def rename(self, name: str) -> None:
        """Rename the file, and replace a file of that name; nothing is synced.

        Raises:
            OSError: it is missing, or the directory is not writable.
        """
        new = self.parent / name
        with self.parent.entered() as directory:
            os.rename(self.name, new.name, src_dir_fd=directory, dst_dir_fd=directory)

    def link(self, name: str) -> None:
        """Give the file a second name, which must be free; nothing is synced.

        Raises:
            FileExistsError: the name is taken.
            OSError: it is missing, or the file system has no hard links.
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

    def take_free_name(self, name: str) -> None:
        """Give the file a free name, in one step; nothing is synced.

        The file might keep its old name as well. If there are no hard links, an empty file takes
        the name first, and a process that is killed then leaves that file.

        Raises:
            FileExistsError: the name is taken.
            OSError: the directory is not writable, or full.
        """
        new = self.parent / name
        try:
            self.link(name)
        except OSError as error:
            if error.errno not in lacks.NO_LINKS:
                raise
        else:
            return
        close(new.claim())
        lacks.note(self.target, lacks.Lack.LINKS)
        try:
            self.rename(name)
        except OSError:
            with suppress(OSError):
                new.unlink()
            raise

    def rename_exclusively(self, name: str) -> None:
        """Rename the file to a free name; nothing is synced.

        Raises:
            StorageError: the name is taken, or the directory is not writable.
        """
        new = self.parent / name
        try:
            self.take_free_name(name)
        except FileExistsError as error:
            raise storage_error("create", new.path, error) from error
        except OSError as error:
            raise storage_error("rename", self.path, error) from error
        try:
            self.unlink()
        except FileNotFoundError:
            pass  # it has the new name alone
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            raise storage_error("rename", self.path, error) from error

    def sync_names(self) -> None:
        """Make the names in this directory durable.

        Raises:
            StorageError: it is missing, or the storage failed.
        """
        try:
            fd = self.open_directory()
            try:
                lacks.sync_directory(fd, self.target)
            finally:
                close(fd)
        except OSError as error:
            raise storage_error("sync", self.path, error) from error

    def replace(
        self, data: bytes, like: "TargetPath | None" = None, mode: int | None = None
    ) -> None:
        """Put ``data`` into the file: readers see the old content or the new, never a part.

        Args:
            data: its new content.
            like: a file, mostly this one, whose owner and mode it gets, as far as this user may;
                without it the file belongs to this user, with mode 0600.
            mode: its mode in place of that.

        Raises:
            StorageError: the directory is missing, not writable or full.
        """
        # A short name of its own: the final name may be as long as the file system allows.
        part = self.parent.temporary()
        try:
            try:
                part.write_new(data, like, mode)
                part.rename(self.name)
            except BaseException:
                with suppress(OSError):  # `clean` finds it, and the first failure says more
                    part.unlink()
                raise
        except OSError as error:
            raise storage_error("write", self.path, error) from error
        self.parent.sync_names()

    def write_new(
        self, data: bytes, like: "TargetPath | None" = None, mode: int | None = None
    ) -> None:
        """Write a new file, durable but for its name; owner and mode as for ``replace``.

        Raises:
            OSError: the name is taken, or the directory missing, not writable or full.
        """
        fd = self.claim(os.O_WRONLY)
        with os.fdopen(fd, "wb") as file:
            if like is not None:
                with suppress(FileNotFoundError):
                    give_owner_of(fd, like.status(), self.target)
            if mode is not None:
                lacks.give_mode(fd, mode, self.target)
            file.write(data)
            file.flush()
            os.fsync(fd)

    def create_whole(self, data: bytes) -> None:
        """Create the file with its content in one step; its name is not synced.

        If there are no hard links, it exists for a moment without its content.

        Raises:
            FileExistsError: the name is taken.
            StorageError: the directory is missing, not writable or full.
        """
        part = self.parent.temporary()
        try:
            try:
                part.write_new(data)
                part.take_free_name(self.name)
            finally:
                with suppress(OSError):  # it is missing, or `clean` finds it
                    part.unlink()
        except FileExistsError:
            raise
        except OSError as error:
            raise storage_error("write", self.path, error) from error


def give_owner_of(fd: int, owner: os.stat_result, place: Path) -> None:
    """Give a file the owner, group and mode of ``owner``, as far as this user may.

    Args:
        fd: the file.
        owner: the status of another one.
        place: the directory to name where its file system has no modes.
    """
    # Only root can give files away; other users might still be able to set the group.
    for uid, gid in ((owner.st_uid, owner.st_gid), (-1, owner.st_gid)):
        with suppress(PermissionError):
            os.fchown(fd, uid, gid)
            break
    lacks.give_mode(fd, stat.S_IMODE(owner.st_mode), place)
