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

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from virtbackup_async.errors import StorageError
from virtbackup_async.files import lacks
from virtbackup_async.files.closing import close
from virtbackup_async.files.reached_path import ReachedPath
from virtbackup_async.files.refusals import storage_error

FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700


class TargetPath(ReachedPath, frozen=True):
    """A directory or a file in a target; the target itself, with no steps."""

    def temporary(self) -> "TargetPath":
        """Return a new path in this directory, for a file that lives for moments."""
        return self / temporary_name()

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
        """Remove the file, durably; one that is not there is as good as removed.

        Raises:
            StorageError: the directory is not writable, or the storage failed.
        """
        if self.drop():
            self.parent.sync_names()

    def rename_durably(self, name: str) -> None:
        """Give the file another name, durably, in place of what had it.

        Raises:
            StorageError: it is gone, or the directory is not writable.
        """
        try:
            self.rename(name)
        except OSError as error:
            raise storage_error("rename", self.path, error) from error
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

    def take_free_name(self, name: str) -> None:
        """Give the file a name that nobody has, in one step; nothing is synced.

        It may keep its old name beside that. Where there are no hard links an empty file takes the
        name first: who is killed then leaves that one.

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
        """Give the file another name, which must be free; nothing is synced.

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
            StorageError: it is gone, or the storage failed.
        """
        try:
            fd = self.open_directory()
            try:
                lacks.sync_directory(fd, self.target)
            finally:
                close(fd)
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
                    _give_owner(fd, like.status(), self.target)
            file.write(data)
            file.flush()
            os.fsync(fd)

    def create_whole(self, data: bytes) -> None:
        """Make the file, its content with it, in one step; its name is not synced.

        Where there are no hard links it is there for a moment without its content.

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
                with suppress(OSError):  # gone, or it is found by `clean`
                    part.unlink()
        except FileExistsError:
            raise
        except OSError as error:
            raise storage_error("write", self.path, error) from error


def temporary_name() -> str:
    """Return a name for a file that lives for moments; what a crash leaves, ``clean`` finds."""
    return f".virtbackup-{secrets.token_hex(8)}.tmp"


def _give_owner(fd: int, owner: os.stat_result, place: Path) -> None:
    # Only root may give files away; for others the group alone may still be theirs to set.
    for uid, gid in ((owner.st_uid, owner.st_gid), (-1, owner.st_gid)):
        with suppress(PermissionError):
            os.fchown(fd, uid, gid)
            break
    lacks.give_mode(fd, stat.S_IMODE(owner.st_mode), place)
