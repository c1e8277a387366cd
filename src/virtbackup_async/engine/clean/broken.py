"""Removing what should be a backup and is none: its definition is unreadable, or files are missing.

Called by ``forget``, and by ``clean`` for a removal that was begun. The steps are those of
``removal.py``. Which files belong to an unreadable definition is known by their names alone, so a
file that any other backup names stays.
"""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from errno import ENOENT
from functools import partial
from os import strerror

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.catalog import definition_file, pending_file
from virtbackup_async.catalog.amendment import hold_definitions
from virtbackup_async.catalog.raw_json import read_bytes
from virtbackup_async.catalog.removing import begin_removal, end_removal
from virtbackup_async.catalog.scanning import REMOVED_SUFFIX, Scan, definition_path
from virtbackup_async.catalog.store import may_be_there
from virtbackup_async.engine.clean.removal import remove_files
from virtbackup_async.engine.inventory.occupied import occupied_bytes
from virtbackup_async.engine.locks import LockWait, acquired, hold_package
from virtbackup_async.errors import DefinitionError, LockHeldError
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.model.backup import Definition, Pending
from virtbackup_async.model.packager import backup_files, package_files
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.repository import Kind, open_storage

_FILES = frozenset(Kind) - {Kind.DIRECTORY}
_DESCRIPTIONS = (definition_file.SUFFIX, pending_file.SUFFIX, REMOVED_SUFFIX)


class BrokenPackage(Struct, frozen=True):
    """What is left of a broken backup.

    Attributes:
        path: its definition, or the note of its removal.
        files: those that belong to it and to no other backup.
        content: the definition as it was read; None if it could not be.
        pinned: whether the definition says so; an unreadable one does not.
    """

    path: TargetFile
    files: tuple[TargetFile, ...]
    content: bytes | None
    pinned: bool = False

    @property
    def name(self) -> str:
        """The backup's name, by its file."""
        return definition_path(self.path).stem


async def find_broken(path: TargetFile, scan: Scan) -> BrokenPackage:
    """Return what belongs to a broken backup.

    Args:
        path: its definition, or the note of its removal.
        scan: of its target, as it is now.

    Raises:
        DefinitionError: something else has the definition's name, or its pending file exists.
        StorageError: its directory cannot be read.
    """
    return await to_thread.run_sync(_find_broken, path, scan)


async def remove_broken(broken: BrokenPackage, lock_wait: LockWait) -> int | None:
    """Remove a broken backup, or end a removal that was begun.

    Returns:
        How many bytes are free again; None if it is gone already.

    Raises:
        LockHeldError: somebody reads one of its files, or its definition has changed; nothing was
            done.
        StorageError: the target is not writable; the next ``clean`` ends what was begun.
    """
    async with AsyncExitStack() as locks:
        for file in broken.files:
            held = hold_package([file], exclusive=True, lock_wait=lock_wait)
            await locks.enter_async_context(held)
        freed_bytes = await occupied_bytes([*broken.files, broken.path])
        note = await acquired(partial(_begin, broken), lock_wait)
        if note is None:
            return None
        await to_thread.run_sync(remove_files, broken.files)
        await end_removal(note)
    return freed_bytes


async def _begin(broken: BrokenPackage) -> TargetFile | None:
    async with hold_definitions(broken.path.parent):
        if not await to_thread.run_sync(may_be_there, broken.path):
            return None
        if await to_thread.run_sync(_content, broken.path) != broken.content:
            raise LockHeldError("another process changes it", path=broken.path)
        return await begin_removal(broken.path, broken.files)


def _find_broken(path: TargetFile, scan: Scan) -> BrokenPackage:
    storage, directory = open_storage(path.target), path.parent.stored_name
    try:
        # A link is removed itself; a directory is nobody's backup.
        if path.name in storage.names(directory, {Kind.DIRECTORY}):
            raise DefinitionError("is a directory", path=path, hint="Inspect it, and move it away.")
        names = frozenset(storage.names(directory, _FILES))
        if path.name not in names:
            raise FileNotFoundError(ENOENT, strerror(ENOENT), str(path))
    except OSError as error:
        raise storage_error("read", str(path), error) from error
    name = definition_path(path).stem
    pending = {found.path.stored_name for found in scan.pending}
    if (
        f"{name}{pending_file.SUFFIX}" in names
        or f"{directory}/{name}{pending_file.SUFFIX}" in pending
    ):
        hint = "Run 'virtbackup clean -b' first."
        raise DefinitionError("its pending file is still there", path=path, hint=hint)
    content = _content(path)
    definition = _understood(content, path)
    others = _named_by_others(path, scan) | _of_longer_names(name, names)
    own = {file for file in names if file.startswith((f"{name}_", f"{name}."))}
    if definition is not None:
        own |= {file.name for file in _paths(definition, path.parent)} & names
    files = (file for file in sorted(own - others) if not file.endswith(_DESCRIPTIONS))
    return BrokenPackage(
        path,
        tuple(path.parent / file for file in files),
        content,
        pinned=definition is not None and definition.pinned,
    )


def _content(path: TargetFile) -> bytes | None:
    try:
        return read_bytes(path)
    except (DefinitionError, OSError):
        return None


def _understood(content: bytes | None, path: TargetFile) -> Definition | None:
    """Return the definition, whatever its checksum; None if it cannot be understood at all."""
    if content is None:
        return None
    try:
        return definition_file.loads(content, definition_path(path), trusted=True)
    except DefinitionError:
        return None


def _paths(definition: Definition, directory: TargetFile) -> tuple[TargetFile, ...]:
    try:
        return backup_files(definition, directory)
    except DefinitionError:
        return ()


def _named_by_others(path: TargetFile, scan: Scan) -> frozenset[str]:
    """Return the files that the readable descriptions of a directory name, but for ``path``."""
    backups: list[tuple[TargetFile, Definition | Pending]] = [
        (found.path, found.definition) for found in (*scan.complete, *scan.removed)
    ]
    backups += [(found.path, found.pending) for found in scan.pending]
    directory = path.parent.stored_name
    beside = (backup for at, backup in backups if at.parent.stored_name == directory and at != path)
    return frozenset(file for backup in beside for file in _files(backup))


def _files(backup: Definition | Pending) -> Iterator[str]:
    try:
        yield from package_files(backup)
    except DefinitionError:
        return


def _of_longer_names(name: str, names: frozenset[str]) -> frozenset[str]:
    """Return the files of backups whose names begin with this one's, broken ones too."""
    stems = {
        file.removesuffix(end) for file in names for end in _DESCRIPTIONS if file.endswith(end)
    }
    longer = tuple(stem for stem in stems if len(stem) > len(name) and stem.startswith(name))
    return frozenset(file for file in names if longer and file.startswith(longer))
