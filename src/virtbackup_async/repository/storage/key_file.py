"""The key file: a secret on this host, with which the nightly run opens its repositories.

Whoever can read it and the target can read the backups. So it is refused if anybody but its owner
may read or write it, if it is a link, or another user's.
"""

import os
import stat
from pathlib import Path
from typing import Final

from virtbackup_async.errors import ConfigError, StorageError
from virtbackup_async.files.refusals import close
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.repository.keys import written_secret
from virtbackup_async.repository.keys.secret import Secret, new_secret
from virtbackup_async.repository.storage.no_core_dumps import refuse_core_dumps

MAX_BYTES: Final = 4096
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_NOTE: Final = (
    "# A key of virtbackup. Whoever has this file and the backups can read them.\n"
    "# Keep it, and keep the recovery key somewhere else: without any key nobody can read them.\n"
)


def read_key_file(path: Path) -> Secret:
    """Return the secret in a key file. Blocks.

    Raises:
        ConfigError: it is missing, damaged, or not private.
    """
    refuse_core_dumps()
    hint = "Bring it back, or make another with 'virtbackup key add'."
    text = read_own_file(path, "key file", hint, _OTHERS)
    line = line_in(text)
    if line is None:
        raise ConfigError(f"not a key file: {path}")
    try:
        return written_secret.read(written_secret.KEY_FILE, line)
    except ConfigError:
        raise ConfigError(f"damaged key file: {path}", hint="Bring it back from a copy.") from None


def read_own_file(path: Path, what: str, missing_hint: str, forbidden: int) -> str:
    """Return the text in a file that only this user or root may change. Blocks.

    Args:
        path: the file.
        what: what it is, for messages.
        missing_hint: what to do if it is missing.
        forbidden: the bits that its mode must not have.

    Raises:
        ConfigError: it is missing, no regular file, or others may use it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise ConfigError(f"missing {what}: {path}", hint=missing_hint) from error
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror}") from error
    try:
        _refuse_shared(os.fstat(fd), path, what, forbidden)
        return os.read(fd, MAX_BYTES).decode("ascii", "replace")
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror}") from error
    finally:
        close(fd)


def line_in(text: str) -> str | None:
    """Return the one line of a key's file that is no note; None if it has another number."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return lines[0] if len(lines) == 1 else None


def stamp_of(path: Path) -> tuple[int, ...] | None:
    """Return what differs from every other file that has the path or had it; None if it is missing.

    Blocks. A change of the file's owner or mode is a change as well.
    """
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns


def make_key_file(path: Path) -> Secret:
    """Return the secret in a key file; make the file, durably, if it is missing. Blocks.

    Raises:
        ConfigError: it exists, and is damaged or not private.
        StorageError: it cannot be made.
    """
    if os.path.lexists(path):
        return read_key_file(path)
    refuse_core_dumps()
    secret = new_secret()
    place = TargetPath(path.parent) / path.name
    text = f"{_NOTE}{written_secret.write(written_secret.KEY_FILE, secret)}\n"
    try:
        place.create_whole(text.encode())
        place.parent.sync_names()
    except FileExistsError:
        return read_key_file(path)
    except StorageError as error:
        raise error.as_kind(
            StorageError, hint="Make its directory, or name another path in 'encryption'."
        ) from error
    return secret


def _refuse_shared(status: os.stat_result, path: Path, what: str, forbidden: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{what} {path} is not a regular file")
    if status.st_uid != os.geteuid():
        raise ConfigError(
            f"{what} {path} belongs to another user",
            hint="Run virtbackup as that user, or give the file to the user that runs it.",
        )
    if status.st_mode & forbidden:
        mode = stat.S_IMODE(status.st_mode)
        allowed = mode & ~forbidden
        raise ConfigError(
            f"others may use {what} {path} (mode {mode:04o})", hint=f"Run chmod {allowed:o} {path}."
        )
