"""The scan of a target: one pass over its directories, in a worker thread.

:class:`~virtbackup_async.catalog.store.Catalog` is the caller. Invariant: a complete backup
has a readable definition and all of its files; one damaged file never hides another; symlinks are
reported and not followed.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager, suppress

from msgspec import Struct, field

from virtbackup_async.catalog import definition_file, pending_file
from virtbackup_async.catalog.checksum import ChecksumError
from virtbackup_async.catalog.existing import open_existing
from virtbackup_async.catalog.raw_json import FILE_MAX_BYTES, unfit
from virtbackup_async.errors import (
    CorruptError,
    DefinitionError,
    StorageError,
    VirtBackupError,
)
from virtbackup_async.files.reached_path import UnfitFileError
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.model.backup import Definition, Pending
from virtbackup_async.model.names import guest_of_directory, is_temporary
from virtbackup_async.model.packager import package_files
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.repository import Kind, Storage, find_repository, open_storage

REMOVED_SUFFIX = definition_file.SUFFIX + ".removed"
"""Of a definition whose backup is being removed; as long as that of a pending file, so it fits."""

_MOUNT_HINT = "Mount the file system that holds it, or correct `target`."
_BACKUP_FILE = re.compile(r"\d{8}-\d{6}_")


class FoundBackup(Struct, frozen=True, gc=False):
    """A complete backup; ``path`` is its definition, next to its package."""

    definition: Definition
    path: TargetFile


class FoundPending(Struct, frozen=True):
    """A backup that was started and not finished; ``path`` is its pending file.

    That of a target elsewhere is on this host: ``Catalog.definition_of`` says which definition it
    belongs to.
    """

    pending: Pending
    path: TargetFile


class Problem(Struct, frozen=True):
    """A file or directory that should be a backup and cannot be read.

    Attributes:
        message: one line, the path included.
        domain: the domain whose directory it is, or is in, as the directory's name says.
        reason: the same line without the path.
        may_be_trusted: whether only its checksum is wrong.
        uuid: the domain's, if the directory has it.
    """

    path: TargetFile
    message: str
    domain: str
    reason: str
    may_be_trusted: bool = False
    uuid: str | None = None


class Scan(Struct, frozen=True):
    """All that a target holds, oldest first.

    Attributes:
        removed: backups whose removal was begun and not ended; ``path`` is the removal note.
        strays: files with names like this program's that belong to no backup.
    """

    complete: tuple[FoundBackup, ...]
    pending: tuple[FoundPending, ...]
    problems: tuple[Problem, ...]
    removed: tuple[FoundBackup, ...] = ()
    strays: tuple[TargetFile, ...] = ()


class _Findings(Struct):
    complete: list[FoundBackup] = field(default_factory=list)
    pending: list[FoundPending] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    removed: list[FoundBackup] = field(default_factory=list)
    strays: list[TargetFile] = field(default_factory=list)

    @contextmanager
    def problems_of(self, path: TargetFile, directory: str) -> Iterator[None]:
        """Turn an error inside the block into a problem of ``path``, in a domain's directory."""
        guest = guest_of_directory(directory)
        try:
            yield
        except FileNotFoundError:
            pass  # removed since its directory was read
        except DefinitionError as error:
            self.problems.append(
                Problem(
                    path,
                    str(error),
                    guest.name,
                    error.sentences_within(path=path),
                    isinstance(error, ChecksumError),
                    guest.uuid,
                )
            )
        except OSError as error:
            reason = error.strerror or str(error)
            message = f"{path}: {reason}"
            self.problems.append(Problem(path, message, guest.name, reason, uuid=guest.uuid))


def scan_target(target: StorageLocation) -> Scan:
    """Read all definition and pending files in a target. Blocks.

    Raises:
        StorageError: the target is missing or cannot be read.
        ConfigError: it is encrypted and there is no key, or the key does not fit.
    """
    _refuse_encrypted(target)
    storage = open_existing(target)
    if storage is None:
        # Its disk may not be mounted: then it only looks as if it had no files.
        _names(open_storage(target.without_keys), frozenset())
        return Scan((), (), ())
    # Links to directories become problems.
    names = _names(storage, {Kind.DIRECTORY, Kind.LINK})
    return _scan(storage, [TargetFile(target, name) for name in names if name[0] != "."])


def _refuse_encrypted(target: StorageLocation) -> None:
    """Check that a target without a key is not an encrypted one, in which nothing would be found.

    Raises:
        ConfigError: it is.
    """
    if target.is_encrypted:
        return
    with suppress(CorruptError, StorageError):  # of which a scan finds more
        find_repository(target)


def scan_directories(directories: Sequence[TargetFile]) -> Scan:
    """Read the definition and pending files of some directories of a target. Blocks.

    A missing directory has none.
    """
    storage = open_existing(directories[0].target)
    return Scan((), (), ()) if storage is None else _scan(storage, directories)


def newest_definition(directory: TargetFile) -> Definition | None:
    """Read the newest definition of one domain's directory alone; None if that fails. Blocks.

    Its backup need not be complete: this is for estimates.
    """
    try:
        storage = open_storage(directory.target)
        with closing(storage.open_directory(directory.stored_name)) as opened:
            name = max(filter(_is_definition, opened.names()), default="")
            if not name:
                return None
            data = opened.read(name, FILE_MAX_BYTES)
        return definition_file.loads(data, directory / name)
    except (OSError, VirtBackupError):
        return None


def _is_definition(name: str) -> bool:
    return name.endswith(definition_file.SUFFIX) and _BACKUP_FILE.match(name) is not None


def _scan(storage: Storage, directories: Sequence[TargetFile]) -> Scan:
    findings = _Findings()
    for directory in directories:
        with findings.problems_of(directory, directory.name):
            _scan_domain(storage, directory, findings)
    return Scan(
        tuple(sorted(findings.complete, key=lambda found: found.definition.date)),
        tuple(sorted(findings.pending, key=lambda found: found.pending.date)),
        tuple(findings.problems),
        tuple(sorted(findings.removed, key=lambda found: found.definition.date)),
        tuple(findings.strays),
    )


def _names(storage: Storage, kinds: AbstractSet[Kind]) -> list[str]:
    try:
        return storage.names("", kinds)
    except FileNotFoundError as error:
        raise storage_error("read", storage.where(), error).as_kind(
            StorageError, hint=_MOUNT_HINT
        ) from error
    except StorageError as error:
        if isinstance(error.__cause__, NotADirectoryError):
            error.hint = _MOUNT_HINT
        raise


def _scan_domain(storage: Storage, directory: TargetFile, findings: _Findings) -> None:
    with closing(storage.open_directory(directory.stored_name)) as opened:
        present = opened.names()
        named: set[str] = set()
        for name, content in opened.read_each(sorted(_descriptions(present)), FILE_MAX_BYTES):
            path = directory / name
            with findings.problems_of(path, directory.name):
                named.update(_read(path, _sound(content, path), present, findings))
    findings.strays += [directory / name for name in _strays(present, named)]


def _sound(content: bytes | OSError, path: TargetFile) -> bytes:
    """Return the content of a file that could be read; raise why it could not."""
    if isinstance(content, UnfitFileError):
        raise unfit(content, path)
    if isinstance(content, OSError):
        raise content
    return content


def _read(
    path: TargetFile, data: bytes, present: frozenset[str], findings: _Findings
) -> Sequence[str]:
    """Classify one file of a domain's directory; return the files of the package it describes."""
    name = path.name
    if name.endswith(pending_file.SUFFIX):
        pending = pending_file.loads(data, path)
        findings.pending.append(FoundPending(pending, path))
        return package_files(pending)
    if name.endswith(REMOVED_SUFFIX):
        removed = definition_file.loads(data, definition_path(path))
        findings.removed.append(FoundBackup(removed, path))
        return package_files(removed)
    definition = definition_file.loads(data, path)
    files = package_files(definition)
    if _is_finished(definition, files, path, present):
        findings.complete.append(FoundBackup(definition, path))
    return files


def definition_path(path: TargetFile) -> TargetFile:
    """Return the path that a definition has, or had, by its pending file or removal note."""
    stem, suffix, _ = path.name.rpartition(definition_file.SUFFIX)
    return path.with_name(stem + suffix)


def removal_note(path: TargetFile) -> TargetFile:
    """Return the path of the file that marks a backup as being removed."""
    return path.with_name(definition_path(path).stem + REMOVED_SUFFIX)


def is_removal_note(path: TargetFile) -> bool:
    """Tell whether a path is one that ``removal_note`` gives."""
    return path.name.endswith(REMOVED_SUFFIX)


def _strays(present: frozenset[str], named: AbstractSet[str]) -> Iterator[str]:
    """Yield the names that look like files of a backup and belong to none."""
    descriptions = frozenset(_descriptions(present))
    # A description can be unreadable, or older than its files: these are no strays.
    stems = tuple(name.partition(definition_file.SUFFIX)[0] for name in descriptions)
    for name in sorted(present - descriptions - named):
        is_ours = _BACKUP_FILE.match(name) and not name.startswith(stems)
        if is_ours or is_temporary(name):
            yield name


def _descriptions(present: Collection[str]) -> Iterator[str]:
    suffixes = (definition_file.SUFFIX, pending_file.SUFFIX, REMOVED_SUFFIX)
    return (name for name in present if name.endswith(suffixes))


def _is_finished(
    definition: Definition, files: Sequence[str], path: TargetFile, present: frozenset[str]
) -> bool:
    """Tell whether the backup is complete: virt-backup writes its definition before the data.

    Raises:
        DefinitionError: it claims to be finished, and some of its package's ``files`` are missing.
    """
    has_pending = f"{path.name}.pending" in present
    if has_pending and not definition_file.is_ours(definition.version):
        return False
    if removal_note(path).name in present:
        return False  # a removal was begun, see ``removing``
    if not present.issuperset(files):
        missing = [file for file in files if file not in present]
        raise DefinitionError(f"data missing: {', '.join(missing)}", path=path)
    return True
