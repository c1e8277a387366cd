"""The definitions and pending files of one target, written so that they survive a crash.

The engine writes through a :class:`Catalog` in this order; the right column shows the state after
a crash at that point::

    create_pending      the file, and this host's own note, name everything that will be made
      ... the data is copied and made durable ...
    write_definition    the backup is complete and listed; clean reverts the domain
    remove_pending      nothing is left to do

``removing`` removes a backup.

Invariant: nothing outside the target is written; directories are 0700, files 0600.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from anyio import CancelScope, to_thread

from virtbackup_async.catalog import definition_file, pending_file
from virtbackup_async.catalog.raw_json import read_bytes
from virtbackup_async.catalog.scanning import (
    Scan,
    definition_path,
    removal_note,
    scan_directory,
    scan_target,
)
from virtbackup_async.errors import StorageError
from virtbackup_async.files.directories import check_target
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model import names
from virtbackup_async.model.backup import Definition, Pending
from virtbackup_async.model.storage_location import StorageLocation

T = TypeVar("T")


class ListedError(StorageError):
    """The definition exists but may not be durable: the backup is listed, so its data must stay."""


class Catalog:
    """The backups below one target."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.location = StorageLocation.of(target)

    async def create_pending(self, pending: Pending) -> Path:
        """Write the intent of a new backup and return the file's path.

        Raises:
            FileExistsError: a backup has that name already; a second later, the name is another.
            StorageError: the target is missing, not writable or full.
        """
        path = self.pending_path(pending)
        await to_thread.run_sync(_make_directory, path.parent)
        await to_thread.run_sync(_create, path, pending_file.dumps(pending))
        return path

    async def write_definition(self, definition: Definition) -> Path:
        """Write the definition, which completes a backup whose data are durable; return its path.

        Raises:
            StorageError: there is no such backup.
            ListedError: there is, and it is listed, though a power cut may undo that.
        """
        path = self.definition_path(definition)
        with CancelScope(shield=True):
            try:
                await _write(path, definition_file.dumps(definition))
            except StorageError as error:
                try:
                    await _remove(path)
                except StorageError:
                    if await to_thread.run_sync(may_be_there, path):
                        raise error.as_kind(ListedError, hint=error.hint) from error
                raise
        return path

    async def remove_definition(self, path: Path) -> None:
        """Remove a definition durably; a missing one is no error."""
        await _remove(path)

    async def remove_pending(self, path: Path) -> None:
        """Remove a pending file durably; a missing one is no error."""
        await _remove(path)

    async def read_definition(self, path: Path) -> Definition | None:
        """Read one definition, or the note of its removal, as it is now; None if it is gone."""
        return await to_thread.run_sync(_read, path, definition_file.loads, definition_path(path))

    async def read_pending(self, path: Path) -> Pending | None:
        """Read one pending file as it is now; None if it is gone."""
        return await to_thread.run_sync(_read, path, pending_file.loads, path)

    async def scan(self) -> Scan:
        """Read all backups of the target; one damaged file never hides another.

        Raises:
            StorageError: the target is missing or cannot be read.
        """
        return await to_thread.run_sync(scan_target, self.target)

    async def scan_domain(self, domain: str) -> Scan:
        """Read the backups of one domain; none if it has no directory yet."""
        return await to_thread.run_sync(scan_directory, self.domain_directory(domain))

    def domain_directory(self, domain: str) -> Path:
        """Return the directory of a domain's backups."""
        return names.domain_directory(self.target, domain)

    def pending_path(self, backup: Definition | Pending) -> Path:
        """Return the path of a backup's pending file."""
        return self.domain_directory(backup.domain_name) / (backup.name + pending_file.SUFFIX)

    def definition_path(self, backup: Definition | Pending) -> Path:
        """Return the path of a backup's definition."""
        return self.domain_directory(backup.domain_name) / (backup.name + definition_file.SUFFIX)


def _read(path: Path, loads: Callable[[bytes, Path], T], named: Path) -> T | None:
    try:
        return loads(read_bytes(path), named)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("read", path, error) from error


async def _write(path: Path, data: bytes) -> None:
    await to_thread.run_sync(TargetPath.in_domain(path).replace, data)


async def _remove(path: Path) -> None:
    await to_thread.run_sync(TargetPath.in_domain(path).remove)


def may_be_there(path: Path) -> bool:
    """Return whether a file of a domain's directory might exist; False only if not. Blocks."""
    try:
        return TargetPath.in_domain(path).exists()
    except OSError:
        return True


def _make_directory(directory: Path) -> None:
    check_target(directory.parent)
    place = TargetPath.of(directory, 1)
    place.make_directory()
    # Whoever made it may have been killed before it was durable.
    place.parent.sync_names()


def _create(path: Path, data: bytes) -> None:
    """Make a pending file, with its content, durably; only one of several can do it."""
    place = TargetPath.in_domain(path)
    place.create_whole(data)
    # Checked last: a process that completes a backup of this name removes the pending file later.
    for taken in (definition_path(path), removal_note(path)):
        if may_be_there(taken):
            place.remove()
            raise FileExistsError(taken)
    try:
        place.parent.sync_names()
    except StorageError:
        with suppress(StorageError):
            place.drop()
        raise
