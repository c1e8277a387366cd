"""The definitions and pending files of one target, written so that they survive a crash.

The engine writes through a :class:`Catalog` in this order; the right column shows the state after
a crash at that point::

    create_pending      the file, and this host's own note, name everything that will be made
      ... the data is copied and made durable ...
    write_definition    the backup is complete and listed; clean reverts the domain
    remove_pending      nothing is left to do

``removing`` removes a backup.

A pending file says what an undo on this host must do. So it is in the target only if that is a
local directory; otherwise it is in a directory of this host::

    STATE/pending/<target>.<16 hexadecimal digits>/web.<UUID>/20260301-021500_3_web.json.pending

Invariant: nothing else outside the target is written; directories are 0700, files 0600.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from anyio import CancelScope, to_thread
from msgspec.structs import replace

from virtbackup_async.catalog import definition_file, host_names, pending_file
from virtbackup_async.catalog.raw_json import read_bytes
from virtbackup_async.catalog.scanning import (
    FoundBackup,
    Scan,
    definition_path,
    removal_note,
    scan_directories,
    scan_target,
)
from virtbackup_async.errors import StorageError
from virtbackup_async.files.directories import check_target, make_private
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model import names
from virtbackup_async.model.backup import Definition, Pending
from virtbackup_async.model.guest import Guest, guest_of
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.repository import make_repository, open_storage

T = TypeVar("T")
_PENDING: Final = "pending"


class ListedError(StorageError):
    """The definition exists but may not be durable: the backup is listed, so its data must stay."""


class Catalog:
    """The backups in one target.

    Attributes:
        target: where its files are.
        pending_target: where its pending files are, which is always a local directory: the target
            itself, or one of this host; None if nobody said which one that is.
    """

    def __init__(self, target: StorageLocation, state_directory: Path | None = None) -> None:
        self.target = target
        self.pending_target = _pending_target(target, state_directory)
        self._state_directory = state_directory

    async def create_pending(self, pending: Pending) -> TargetFile:
        """Write the intent of a new backup and return the file's path.

        Raises:
            FileExistsError: a backup has that name already; a second later, the name is another.
            StorageError: the target is missing, not writable or full.
        """
        path = self.pending_path(pending)
        await to_thread.run_sync(self._make_directories, path)
        definition = self.definition_of(path)
        await to_thread.run_sync(_create, path, definition, pending_file.dumps(pending))
        return path

    async def write_definition(self, definition: Definition) -> TargetFile:
        """Write the definition, which completes a backup whose data are durable; return its path.

        Raises:
            StorageError: there is no such backup.
            ListedError: there is, and it is listed, though a power cut may undo that.
        """
        path = self.definition_path(definition)
        with CancelScope(shield=True):
            try:
                await to_thread.run_sync(_write_new, path, definition_file.dumps(definition))
            except FileExistsError as error:
                raise StorageError(f"cannot write {path}: it exists") from error
            except StorageError as error:
                try:
                    await _remove(path)
                except StorageError:
                    if await to_thread.run_sync(may_be_there, path):
                        raise error.as_kind(ListedError, hint=error.hint) from error
                raise
        return path

    async def remove_definition(self, path: TargetFile) -> None:
        """Remove a definition durably; a missing one is no error."""
        await _remove(path)

    async def remove_pending(self, path: TargetFile) -> None:
        """Remove a pending file durably; a missing one is no error."""
        await to_thread.run_sync(TargetPath.at(path).remove)

    async def read_definition(self, path: TargetFile) -> Definition | None:
        """Read one definition, or the note of its removal, as it is now; None if it is gone."""
        return await to_thread.run_sync(_read, path, definition_file.loads, definition_path(path))

    async def read_pending(self, path: TargetFile) -> Pending | None:
        """Read one pending file as it is now; None if it is gone."""
        return await to_thread.run_sync(_read, path, pending_file.loads, path)

    async def scan(self) -> Scan:
        """Read all backups of the target; one damaged file never hides another.

        Raises:
            StorageError: the target is missing or cannot be read.
        """
        found = await to_thread.run_sync(scan_target, self.target)
        elsewhere = self._pending_elsewhere()
        if elsewhere is None or not await to_thread.run_sync(elsewhere.directory.is_dir):
            return found
        return _with_pending(found, await to_thread.run_sync(scan_target, elsewhere))

    async def scan_guest(self, guest: Guest) -> Scan:
        """Read the backups of one guest; none if it has no directory yet.

        In a plain directory, these are all backups of its name: who gives two guests one name there
        mixes them.
        """
        directories = self.directories(guest)
        found = await to_thread.run_sync(scan_directories, directories)
        if self.target.plain_directory is None:
            found = replace(
                found,
                complete=tuple(one for one in found.complete if _may_be_of(one, guest)),
                removed=tuple(one for one in found.removed if _may_be_of(one, guest)),
            )
        if self._pending_elsewhere() is None:
            return found
        return _with_pending(found, await self.scan_pending(guest))

    async def scan_pending(self, guest: Guest) -> Scan:
        """Read the pending files of one guest; those of a target elsewhere alone."""
        if self._pending_elsewhere() is None:
            return await self.scan_guest(guest)
        return await to_thread.run_sync(scan_directories, self.pending_directories(guest))

    def directories(self, guest: Guest) -> tuple[TargetFile, ...]:
        """Return the directories that may hold a guest's backups; new ones go into the last."""
        return self._places(self.target, guest)

    def directory(self, guest: Guest) -> TargetFile:
        """Return the directory of a guest's new backups."""
        return self.directories(guest)[-1]

    def pending_directories(self, guest: Guest) -> tuple[TargetFile, ...]:
        """Return the local directories that may hold a guest's pending files, as above.

        Raises:
            StorageError: nobody said where this host keeps them.
        """
        if self.pending_target is None:
            raise StorageError(f"no directory is known for the pending files of {self.target}")
        return self._places(self.pending_target, guest)

    def _places(self, where: StorageLocation, guest: Guest) -> tuple[TargetFile, ...]:
        # Pending files are in directories of the same names as the definitions.
        places = names.guest_directories(self.target, guest)
        return tuple(TargetFile(where, place.stored_name) for place in places)

    def pending_path(self, backup: Definition | Pending) -> TargetFile:
        """Return the path of a backup's pending file; raises as ``pending_directories``."""
        directory = self.pending_directories(guest_of(backup))[-1]
        return directory / (backup.name + pending_file.SUFFIX)

    def definition_path(self, backup: Definition | Pending) -> TargetFile:
        """Return the path of a new backup's definition."""
        return self.directory(guest_of(backup)) / (backup.name + definition_file.SUFFIX)

    def definition_of(self, pending_path: TargetFile) -> TargetFile:
        """Return the path of the definition that belongs to a pending file."""
        return TargetFile(self.target, definition_path(pending_path).stored_name)

    def _pending_elsewhere(self) -> StorageLocation | None:
        return None if self.pending_target == self.target else self.pending_target

    def _make_directories(self, path: TargetFile) -> None:
        """Make the domain's directories, for its pending file and for its package."""
        if self.target.plain_directory is None:
            if self._state_directory is not None:
                place = path.target.directory
                for directory in (self._state_directory, place.parent, place):
                    make_private(directory)
            if self.target.is_encrypted:
                make_repository(self.target)  # without it nothing can be encrypted
            open_storage(self.target).make_directory(path.parent.stored_name)
        _make_directory(path.parent)


def _pending_target(
    target: StorageLocation, state_directory: Path | None
) -> StorageLocation | None:
    """Return where the pending files of a target are; docs/reference/formats.md has the names."""
    if target.plain_directory is not None:
        return target
    if state_directory is None:
        return None
    return StorageLocation.of(state_directory / _PENDING / host_names.name_of_target(target))


def _may_be_of(found: FoundBackup, guest: Guest) -> bool:
    """Return whether a backup in a guest's directory is of that guest, as far as it says."""
    made = guest_of(found.definition)
    return made.name == guest.name and (made.uuid is None or made.uuid == guest.uuid)


def _with_pending(scan: Scan, pending: Scan) -> Scan:
    """Return what a target holds, and what this host knows of its pending backups."""
    return replace(
        scan,
        pending=pending.pending,
        problems=(*scan.problems, *pending.problems),
        strays=(*scan.strays, *pending.strays),
    )


def _read(path: TargetFile, loads: Callable[[bytes, TargetFile], T], named: TargetFile) -> T | None:
    try:
        return loads(read_bytes(path), named)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("read", str(path), error) from error


def _write_new(path: TargetFile, data: bytes) -> None:
    storage = open_storage(path.target)
    if path.target.plain_directory is None:
        # A writer may be allowed to put new objects alone, and has to say that this is one.
        storage.put_new(path.stored_name, data)
    else:
        storage.replace(path.stored_name, data)


async def _remove(path: TargetFile) -> None:
    storage = await to_thread.run_sync(open_storage, path.target)
    await to_thread.run_sync(storage.remove, path.stored_name)


def may_be_there(path: TargetFile) -> bool:
    """Return whether a file of a target might exist; False only if not. Blocks."""
    try:
        return open_storage(path.target).exists(path.stored_name)
    except (OSError, StorageError):
        return True


def _make_directory(directory: TargetFile) -> None:
    check_target(directory.target.directory)
    place = TargetPath.at(directory)
    place.make_directory()
    # Whoever made it may have been killed before it was durable.
    place.parent.sync_names()


def _create(path: TargetFile, definition: TargetFile, data: bytes) -> None:
    """Make a pending file, with its content, durably; only one of several can do it."""
    place = TargetPath.at(path)
    place.create_whole(data)
    # Checked last: a process that completes a backup of this name removes the pending file later.
    for taken in (definition, removal_note(definition)):
        if may_be_there(taken):
            place.remove()
            raise FileExistsError(str(taken))
    try:
        place.parent.sync_names()
    except StorageError:
        with suppress(StorageError):
            place.drop()
        raise
