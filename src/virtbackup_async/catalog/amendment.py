"""Changing ``pinned`` and ``verified`` in the definition of a complete backup.

The keys are in the definition itself and not in another file, so that they disappear with the
backup, whichever program removes it; virt-backup ignores keys that it does not know. Invariants:
all other keys stay as they are, unknown ones included; two changes at the same time are both kept;
a removed definition does not come back; no backup is removed after a pin was reported as done.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import msgspec
from anyio import to_thread

from virtbackup_async.catalog import checksum
from virtbackup_async.catalog.raw_json import FILE_MAX_BYTES, unfit
from virtbackup_async.catalog.scanning import removal_note
from virtbackup_async.errors import DefinitionError, LockHeldError, NotFoundError
from virtbackup_async.files.reached_path import UnfitFileError
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.repository import HeldDirectory, open_storage

LOCK_TIMEOUT_S: Final = 10.0
_POLL_INTERVAL_S: Final = 0.05


@asynccontextmanager
async def hold_definitions(directory: TargetFile) -> AsyncGenerator[None]:
    """Hold the lock for changing or removing definitions in a domain's directory.

    It is held for a short time only, never while data is read or written. Where the storage has no
    locks, no process waits: what changes definitions there finds out whether another one did.

    Raises:
        LockHeldError: another process does not release it.
        StorageError: the directory cannot be opened, or this host may not change it.
    """
    deadline_s = anyio.current_time() + LOCK_TIMEOUT_S
    while (held := await to_thread.run_sync(_hold, directory)) is None:
        if anyio.current_time() > deadline_s:
            raise LockHeldError(f"another process changes the definitions in {directory}")
        await anyio.sleep(_POLL_INTERVAL_S)
    try:
        yield
    finally:
        await to_thread.run_sync(held.close)


async def amend_definition(path: TargetFile, keys: Mapping[str, Any]) -> None:
    """Set top-level keys of the definition at ``path``, durably.

    Raises:
        NotFoundError: the backup was removed in the meantime.
        DefinitionError: it is no JSON object any more, or no regular file, or its checksum is
            wrong: a new checksum would hide the damage.
        StorageError: it cannot be written.
        LockHeldError: another process does not release the directory.
    """
    async with hold_definitions(path.parent):
        await to_thread.run_sync(_amend, path, keys)


def _hold(directory: TargetFile) -> HeldDirectory | None:
    return open_storage(directory.target).hold(directory.stored_name)


def _amend(path: TargetFile, keys: Mapping[str, Any]) -> None:
    storage = open_storage(path.target)
    try:
        storage.change(path.stored_name, FILE_MAX_BYTES, lambda data: _amended(path, data, keys))
    except FileNotFoundError as error:
        raise NotFoundError(f"backup {path.stem} was removed in the meantime") from error
    except UnfitFileError as error:
        raise unfit(error, path) from error
    except OSError as error:
        raise storage_error("read", str(path), error) from error
    if path.target.plain_directory is None:
        # Without a lock, a removal may have begun, or even ended, since the definition was read.
        if storage.exists(removal_note(path).stored_name):
            raise NotFoundError(f"backup {path.stem} is being removed")
        if not storage.exists(path.stored_name):
            raise NotFoundError(f"backup {path.stem} was removed in the meantime")


def _amended(path: TargetFile, data: bytes, keys: Mapping[str, Any]) -> bytes:
    """Return a definition with some keys set; raises as ``amend_definition``."""
    try:
        raw = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise DefinitionError(f"not a definition any more: {error}", path=path) from error
    checksum.check(raw, path)
    raw |= keys
    if checksum.is_sealed(raw):
        raw[checksum.KEY] = checksum.checksum_of(raw)
    return msgspec.json.format(msgspec.json.encode(raw), indent=4) + b"\n"
