"""Removing files of a target in steps: a crash between any two leaves no false backup.

A backup is removed in this order; the right column shows the state after a crash at that point::

    begin_removal     the definition has become a note: no program lists the backup any more
      ... the package is removed ...
    end_removal       nothing is left

A note is the definition under another name, ``<name>.json.removed``, which virt-backup passes
over; the next ``clean`` finds it by reading the directory, and goes on. Called by the engine.

Only a directory renames in one step and locks packages. Elsewhere a removal begins like this::

    a lease on the package     another remover, or a reader: nothing is done
    the note is written        nothing is removed as long as both are there
    a pin, a reader?           the note is taken back
    the definition goes        from here on nothing brings the backup back

A reader takes its lease before it looks for the note (``repository/storage/package_leases.py``); a
pin is written before its writer looks. So one sees the other, or both do. A crash leaves both
files; the scan counts the note alone, and the next ``clean`` begins again.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress

import msgspec
from anyio import to_thread

from virtbackup_async.catalog.raw_json import FILE_MAX_BYTES
from virtbackup_async.catalog.scanning import (
    definition_path,
    is_removal_note,
    removal_note,
)
from virtbackup_async.errors import LOCK_HINT, CorruptError, LockHeldError
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.repository import (
    Lease,
    Repository,
    Storage,
    find_repository,
    is_used,
    open_storage,
    take_package_lease,
)


async def begin_removal(path: TargetFile, files: Iterable[TargetFile]) -> TargetFile | None:
    """Turn a definition into a note that its backup is being removed.

    The caller holds the definitions of the directory. If the removal was begun before, ``path`` is
    the note, and its definition goes if it is still there.

    Args:
        path: of the definition, or of the note.
        files: of the package.

    Returns:
        The path of the note; None if the backup was pinned this moment.

    Raises:
        LockHeldError: the package is being read; nothing is removed.
        StorageError: the target is not writable.
    """
    return await to_thread.run_sync(_begin, path, tuple(files))


def _begin(path: TargetFile, files: tuple[TargetFile, ...]) -> TargetFile | None:
    storage = open_storage(path.target)
    note, definition = removal_note(path), definition_path(path)
    if path.target.plain_directory is None:
        return _Removal(storage, definition, note, files).begin()
    if not is_removal_note(path):
        storage.rename(definition.stored_name, note.name)
    # Others may read the same directory over ssh.
    if _is_used(find_repository(path.target), files):
        if not is_removal_note(path):
            storage.rename(note.stored_name, definition.name)
        raise _in_use(definition)
    return note


class _Removal:
    """The beginning of a removal where nothing can be renamed or locked."""

    def __init__(
        self,
        storage: Storage,
        definition: TargetFile,
        note: TargetFile,
        files: tuple[TargetFile, ...],
    ) -> None:
        self._storage = storage
        self._definition = definition
        self._note = note
        self._files = files

    def begin(self) -> TargetFile | None:
        repository = find_repository(self._note.target)
        if repository is None:
            return self._begin(lambda: False)
        lease = take_package_lease(repository, [file.stored_name for file in self._files])
        try:
            if _is_used(repository, self._files, lease):
                raise _in_use(self._definition)

            def is_used_now() -> bool:
                lease.check()
                return _is_used(repository, self._files, lease)

            return self._begin(is_used_now)
        finally:
            lease.close()

    def _begin(self, is_used: Callable[[], bool]) -> TargetFile | None:
        content = self._content()
        is_own = content is not None and self._write_note(content)
        # Read again, after the note is there: a pin that comes later sees the note.
        content = self._content()
        if content is not None and _is_pinned(content):
            self._storage.remove(self._note.stored_name)
            return None
        if is_used():
            if is_own and content is not None:
                self._storage.remove(self._note.stored_name)
            raise _in_use(self._definition)
        if content is not None:
            self._storage.remove(self._definition.stored_name)
        return self._note

    def _content(self) -> bytes | None:
        try:
            return self._storage.read(self._definition.stored_name, FILE_MAX_BYTES)
        except CorruptError:
            return b""  # nobody can read it: its name says what is to be removed

    def _write_note(self, content: bytes) -> bool:
        """Write the note; False if there is one."""
        with suppress(FileExistsError):
            self._storage.put_new(self._note.stored_name, content)
            return True
        return False


def _is_pinned(content: bytes) -> bool:
    try:
        return msgspec.json.decode(content, type=dict[str, object]).get("pinned") is True
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False


def _is_used(
    repository: Repository | None, files: Iterable[TargetFile], own: Lease | None = None
) -> bool:
    names = [file.stored_name for file in files]
    return repository is not None and is_used(repository, names, own)


def _in_use(definition: TargetFile) -> LockHeldError:
    return LockHeldError(f"another process reads or removes {definition}", hint=LOCK_HINT)


async def end_removal(note: TargetFile) -> None:
    """Remove the mark, the package being gone."""
    storage = await to_thread.run_sync(open_storage, note.target)
    await to_thread.run_sync(storage.remove, note.stored_name)


async def remove_claim(path: TargetFile) -> bool:
    """Remove an empty pending file; False if it is gone, or was filled this very moment."""
    return await to_thread.run_sync(_remove_claim, path)


def _remove_claim(path: TargetFile) -> bool:
    # Moved aside first: what its owner may write now is another file, and stays.
    place = TargetPath.at(path)
    aside = place.parent.temporary()
    try:
        place.rename(aside.name)
        if aside.status().st_size > 0:
            aside.rename_exclusively(place.name)
            return False
        aside.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error("remove", path.local, error) from error
    return True
