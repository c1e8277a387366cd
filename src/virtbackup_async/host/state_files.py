"""UEFI variables and TPM state on this machine: small files with an owner. All functions block.

Invariant: nothing that exists is overwritten, no link is followed from the last component of a
path, and a directory appears complete or not at all.
"""

import os
import pwd
import secrets
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from virtbackup_async.errors import ImageError
from virtbackup_async.files.directories import make_directory
from virtbackup_async.files.durable import file_at, sync_file
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.host.interface import NewStateFile
from virtbackup_async.model.names import beside

_REACHABLE = 0o711
_PRIVATE = 0o700


def list_files(directory: Path) -> tuple[Path, ...]:
    """See ``interface.StateFiles.list_state``."""
    try:
        with os.scandir(directory) as entries:
            files = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except OSError as error:
        raise ImageError(f"{error.strerror}", path=error.filename) from error
    return tuple(directory / name for name in sorted(files))


def owner(path: Path) -> str | None:
    """Return the name of the user that a file belongs to."""
    try:
        return pwd.getpwuid(path.stat().st_uid).pw_name
    except (KeyError, OSError):
        return None


def user(name: str | None) -> pwd.struct_passwd | None:
    """Return the user of that name."""
    try:
        return pwd.getpwnam(name or "")
    except (KeyError, ValueError):  # no such user; not a valid name of one
        return None


def is_vacant(path: Path) -> bool:
    """See ``interface.StateFiles.is_vacant``."""
    if not os.path.lexists(path):
        return True
    try:
        return path.is_dir() and not path.is_symlink() and not any(path.iterdir())
    except OSError as error:
        raise storage_error("read", path, error) from error


def create_file(path: Path, file: NewStateFile) -> None:
    """See ``interface.StateFiles.create_file``."""
    part = _part(path)
    try:
        _copy(file, part)
        file_at(part).rename_exclusively(path.name)
        TargetPath(path.parent).sync_names()
    finally:
        file_at(part).remove()


def create_directory(path: Path, files: Sequence[NewStateFile]) -> None:
    """See ``interface.StateFiles.create_directory``."""
    part = _part(path)
    try:
        for parent in (path.parent.parent, path.parent):
            with suppress(FileExistsError):
                make_directory(parent, _REACHABLE)
        part.mkdir(mode=_PRIVATE)
        for file in files:
            _copy(file, part / file.name)
        _give_to(part, files[0].owner)
        sync_file(part)
        part.rename(path)
        sync_file(path.parent)
    except OSError as error:
        raise storage_error("write", path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def give_to(path: Path, owner: str | None) -> None:
    """See ``interface.StateFiles.give_to``."""
    try:
        fd = _open_no_link(str(path), os.O_RDONLY | os.O_NONBLOCK)
        try:
            there = os.fstat(fd)
            # A hard link must not give away somebody else's file.
            if stat.S_ISREG(there.st_mode) and there.st_nlink == 1:
                _give_to(fd, owner)
        finally:
            os.close(fd)
    except OSError as error:
        raise storage_error("use", path, error) from error


def _part(path: Path) -> Path:
    return beside(path, f"restore-{secrets.token_hex(4)}")


def _copy(new: NewStateFile, path: Path) -> None:
    """Copy a small file into a new one that belongs to its owner, durably."""
    try:
        fd = file_at(path).claim(os.O_WRONLY)
        with os.fdopen(fd, "wb") as file, open(new.source, "rb", opener=_open_no_link) as original:
            shutil.copyfileobj(original, file)
            file.flush()
            _give_to(fd, new.owner)
            os.fsync(fd)
    except OSError as error:
        raise storage_error("write", path, error) from error


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _give_to(place: Path | int, owner: str | None) -> None:
    entry = user(owner)
    if entry is not None:
        # Only root may give files away; other users can only keep them.
        with suppress(PermissionError):
            follow = isinstance(place, int)
            os.chown(place, entry.pw_uid, entry.pw_gid, follow_symlinks=follow)
