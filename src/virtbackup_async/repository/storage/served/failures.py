"""Errors of a storage as messages, and messages as errors of a storage."""

import errno
import os
from typing import Final

from virtbackup_async.errors import CorruptError, StorageError, StorageFullError, VirtBackupError
from virtbackup_async.files.reached_path import UnfitFileError
from virtbackup_async.repository.storage.served.messages import Failed, text

STORAGE: Final = "storage"
FULL: Final = "storage_full"
CORRUPT: Final = "corrupt"
MISSING: Final = "missing"
EXISTS: Final = "exists"
UNFIT: Final = "unfit"
SYSTEM: Final = "system"
_MAX_WORDS: Final = 1000


def failed(id_: int, error: Exception) -> Failed:
    """Return the message for an error that a verb raised."""
    if isinstance(error, StorageError | CorruptError):
        kind = CORRUPT if isinstance(error, CorruptError) else STORAGE
        kind = FULL if isinstance(error, StorageFullError) else kind
        hint = None if error.hint is None else text(error.hint)
        cause = error.cause
        number = (cause.errno or 0) if isinstance(cause, OSError) else 0
        if isinstance(cause, FileExistsError):
            number = errno.EEXIST
        return Failed(id_, kind, text(error.message), hint, number)
    if isinstance(error, OSError):
        number = error.errno or errno.EIO
        words = text(error.strerror or os.strerror(number))
        kinds = ((FileNotFoundError, MISSING), (FileExistsError, EXISTS), (UnfitFileError, UNFIT))
        kind = next((kind for type_, kind in kinds if isinstance(error, type_)), SYSTEM)
        return Failed(id_, kind, words, errno=number)
    # Its text might have anything in it, and helps nobody but the server's admin.
    return Failed(id_, STORAGE, f"the store server failed: {type(error).__name__}")


def error_of(message: Failed, where: str, root: str, own_root: str) -> Exception:
    """Return the error that a message stands for.

    Args:
        message: the server's; it is not trusted.
        where: the name of the file in messages.
        root: how the server names its target.
        own_root: how this side names it.
    """
    words = printable(message.message)
    if len(root) > 1:
        words = words.replace(f"{root}/", f"{own_root}/").replace(f"{root} ", f"{own_root} ")
    hint = None if message.hint is None else printable(message.hint)
    number = message.errno if message.errno in errno.errorcode else errno.EIO
    if message.kind in _SYSTEM:
        kind, fixed = _SYSTEM[message.kind]
        if fixed is not None:
            return kind(fixed, os.strerror(fixed), where)
        return kind(number, words, where)
    error = _OWN.get(message.kind, StorageError)(words, hint=hint)
    if message.errno in errno.errorcode:
        # Python makes the error of its number: a FileExistsError, a PermissionError.
        error.__cause__ = OSError(message.errno, os.strerror(message.errno), where)
    return error


_OWN: Final[dict[str, type[VirtBackupError]]] = {FULL: StorageFullError, CORRUPT: CorruptError}
_SYSTEM: Final[dict[str, tuple[type[OSError], int | None]]] = {
    MISSING: (FileNotFoundError, errno.ENOENT),
    EXISTS: (FileExistsError, errno.EEXIST),
    UNFIT: (UnfitFileError, None),
    SYSTEM: (OSError, None),
}


def printable(words: str) -> str:
    """Return a text of the other side as one printable line."""
    return " ".join("".join(c if c.isprintable() else " " for c in words[:_MAX_WORDS]).split())
