"""This host's own notes of the backups it begins; an undo relies on them.

Others can write to a target, so its pending files can contain anything. A note is in a directory of
this host to which only its user can write, so its content is true::

    STATE/undo/<backup>.<8 hexadecimal digits>.note

    create          before the pending file: each one of this host has a note
      ... the backup ...
    note_committed  of a disk: its overlay may be removed, whatever is in it
    remove          after the pending file

A crash between the two leaves a note without a pending file, which ``clean`` handles.
docs/reference/formats.md ("Note") is the reference.
"""

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from anyio import Lock, to_thread
from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.catalog import pending_file, raw_json
from virtbackup_async.catalog.pending_file import PendingWire
from virtbackup_async.compat import pending as compat
from virtbackup_async.errors import DefinitionError, StorageError
from virtbackup_async.files.directories import check_private, make_private
from virtbackup_async.files.durable import file_at, remove_durably, write_atomically
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model.backup import Pending
from virtbackup_async.model.names import is_temporary
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile

SUFFIX = ".note"
_DIRECTORY = "undo"
_TOKEN_BYTES = 4


class TargetWire(msgspec.Struct):
    """The target of a pending file that is not in it."""

    kind: str
    path: str
    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    key_file: str | None = None
    sealed_for: str | None = None


class NoteWire(msgspec.Struct, omit_defaults=True):
    """The complete file: the path of the pending file, and its content without the domain XML."""

    pending_path: str
    pending: PendingWire
    target: TargetWire | None = None


class Note(Struct, frozen=True):
    """The facts that this host recorded of a backup that it began.

    Attributes:
        pending: the facts; ``domain_xml`` is empty.
        pending_path: its pending file, every link in the path resolved.
        path: of the note.
        elsewhere: the target, if the pending file is not in it.
    """

    pending: Pending
    pending_path: Path
    path: Path
    elsewhere: StorageLocation | None = None

    @property
    def target(self) -> StorageLocation:
        """The target of the backup."""
        return self.elsewhere or StorageLocation.of(self.pending_path.parent.parent)


class Notes(Struct, frozen=True):
    """All notes of this host, and the errors of those that cannot be read."""

    notes: tuple[Note, ...]
    problems: tuple[str, ...] = ()

    def of(self, pending: Pending, path: TargetFile) -> Note | None:
        """Return the note of a pending backup that was found at ``path``; None if there is none.

        It is the note of exactly that file, whatever the file contains now. Or it is the note of a
        file that is missing now and had the same content, because a target can be mounted
        elsewhere. Blocks.
        """
        real = TargetPath.at(path).real_path()
        for note in self.notes:
            if note.pending_path == real:
                return note
        alike = [note for note in self.notes if _facts(note.pending) == _facts(pending)]
        return next((note for note in alike if not os.path.lexists(note.pending_path)), None)


class HostNotes:
    """The notes below this host's own directory."""

    def __init__(self, state_directory: Path) -> None:
        self.state_directory = state_directory
        self._directory = state_directory / _DIRECTORY
        self._noting = Lock()

    async def create(
        self, pending: Pending, pending_path: TargetFile, target: StorageLocation
    ) -> Note:
        """Make a note durable of a backup that is about to begin.

        Args:
            pending: the backup.
            pending_path: its pending file, which need not exist yet.
            target: the target of the backup.

        Raises:
            StorageError: it cannot be written, or the directory is not private.
        """
        await to_thread.run_sync(self._make_directory)
        name = f"{pending.name}.{secrets.token_hex(_TOKEN_BYTES)}{SUFFIX}"
        real = await to_thread.run_sync(TargetPath.at(pending_path).real_path)
        elsewhere = None if pending_path.target == target else target
        note = Note(replace(pending, domain_xml=""), real, self._directory / name, elsewhere)
        await write_atomically(note.path, dumps(note))
        return note

    async def note_committed(self, path: Path, dev: str) -> None:
        """Note that all data of the overlay of ``dev`` are in its image.

        Raises:
            StorageError: it cannot be written.
            DefinitionError: it is damaged.
        """
        async with self._noting:
            note = await to_thread.run_sync(_read, path)
            if note is not None:
                disk = replace(note.pending.disks[dev], committed=True)
                disks = {**note.pending.disks, dev: disk}
                noted = replace(note, pending=replace(note.pending, disks=disks))
                await write_atomically(path, dumps(noted))

    async def read(self, path: Path) -> Note | None:
        """Read one note as it is now; None if it is missing.

        Raises:
            StorageError: it cannot be read.
            DefinitionError: it is damaged.
        """
        return await to_thread.run_sync(_read, path)

    async def remove(self, path: Path) -> None:
        """Remove a note, because nothing is left to undo. A missing one is no error.

        Raises:
            StorageError: the directory is not writable.
        """
        await remove_durably(path)

    async def scan(self) -> Notes:
        """Read all notes, oldest first; none if this host never made any.

        Raises:
            StorageError: the directory is not private, or cannot be read.
        """
        return await to_thread.run_sync(self._scan)

    async def remove_stray_files(self, before_s: float) -> None:
        """Remove temporary files, older than that time, of notes whose writer died.

        Raises:
            StorageError: it cannot be removed.
        """
        await to_thread.run_sync(self._remove_stray_files, before_s)

    def _remove_stray_files(self, before_s: float) -> None:
        try:
            for path in self._directory.glob(".*"):
                with suppress(FileNotFoundError):
                    if is_temporary(path.name) and path.lstat().st_mtime < before_s:
                        file_at(path).remove()
        except OSError as error:
            raise storage_error("read", self._directory, error) from error

    def _make_directory(self) -> None:
        make_private(self.state_directory)
        make_private(self._directory)

    def _scan(self) -> Notes:
        if not (check_private(self.state_directory) and check_private(self._directory)):
            return Notes(())
        notes, problems = [], []
        try:
            paths = sorted(self._directory.glob(f"*{SUFFIX}"))
        except OSError as error:
            raise storage_error("read", self._directory, error) from error
        for path in paths:
            try:
                note = _read(path)
            except (DefinitionError, StorageError) as error:
                problems.append(error.message)
                continue
            if note is not None:
                notes.append(note)
        return Notes(tuple(notes), tuple(problems))


def dumps(note: Note) -> bytes:
    """Return the content of a note."""
    target = None if note.elsewhere is None else _wire_of(note.elsewhere)
    wire = NoteWire(str(note.pending_path), pending_file.to_wire(note.pending), target)
    return raw_json.dump(wire)


def loads(data: bytes, path: Path) -> Note:
    """Return the note in ``data``.

    Raises:
        DefinitionError: it is damaged, or from a newer version.
    """

    def upgrade(raw: dict[str, Any]) -> dict[str, Any]:
        pending = raw.get("pending")
        if not isinstance(pending, Mapping):
            raise DefinitionError("pending is not an object")
        version = pending.get("version")
        return {**raw, "pending": {**compat.upgrade(dict(pending)), "version": version}}

    wire = raw_json.parse(data, path, upgrade, NoteWire)
    pending_path = Path(wire.pending_path)
    if not pending_path.is_absolute():
        raise DefinitionError("pending_path is not an absolute path", path=path)
    elsewhere = None if wire.target is None else _location_of(wire.target)
    pending = pending_file.from_wire(wire.pending, pending_path)
    return Note(pending, pending_path, path, elsewhere)


def _wire_of(target: StorageLocation) -> TargetWire:
    return TargetWire(
        target.kind,
        target.path,
        target.endpoint,
        target.region,
        target.profile,
        key_file=None if target.key_file is None else str(target.key_file),
        sealed_for=None if target.sealed_for is None else str(target.sealed_for),
    )


def _location_of(wire: TargetWire) -> StorageLocation:
    return StorageLocation(
        wire.kind,
        wire.path,
        wire.endpoint,
        wire.region,
        wire.profile,
        key_file=None if wire.key_file is None else Path(wire.key_file),
        sealed_for=None if wire.sealed_for is None else Path(wire.sealed_for),
    )


def _read(path: Path) -> Note | None:
    try:
        return loads(raw_json.read_host_file(path), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("read", path, error) from error


def _facts(pending: Pending) -> Pending:
    """Return the fields that a note and its pending file must share."""
    disks = {dev: replace(disk, committed=False) for dev, disk in pending.disks.items()}
    return replace(pending, domain_xml="", disks=disks)
