"""The scan of a target: one pass over its directories, in a worker thread.

:class:`~virtbackup_async.catalog.store.Catalog` is the caller. Invariant: a complete backup
has a readable definition and all of its files; one damaged file never hides another; symlinks are
reported and not followed.
"""

import os
import re
from collections.abc import Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct, field

from virtbackup_async.catalog import definition_file, pending_file
from virtbackup_async.catalog.checksum import ChecksumError
from virtbackup_async.catalog.raw_json import read_bytes
from virtbackup_async.errors import DefinitionError, StorageError
from virtbackup_async.files.refusals import close, storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model.backup import Definition, Pending
from virtbackup_async.model.names import is_temporary
from virtbackup_async.model.packager import package_files

REMOVED_SUFFIX = definition_file.SUFFIX + ".removed"
"""Of a definition whose backup is being removed; as long as that of a pending file, so it fits."""

_BACKUP_FILE = re.compile(r"\d{8}-\d{6}_")


class FoundBackup(Struct, frozen=True, gc=False):
    """A complete backup; ``path`` is its definition, next to its package."""

    definition: Definition
    path: Path


class FoundPending(Struct, frozen=True):
    """A backup that was started and not finished; ``path`` is its pending file."""

    pending: Pending
    path: Path


class Problem(Struct, frozen=True):
    """A file or directory that should be a backup and cannot be read.

    Attributes:
        message: one line, the path included.
        domain_directory: the name of the directory it is, or is in; mostly a domain's name.
        reason: the same line without the path.
        may_be_trusted: whether only its checksum is wrong.
    """

    path: Path
    message: str
    domain_directory: str
    reason: str
    may_be_trusted: bool = False


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
    strays: tuple[Path, ...] = ()


class _Findings(Struct):
    complete: list[FoundBackup] = field(default_factory=list)
    pending: list[FoundPending] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    removed: list[FoundBackup] = field(default_factory=list)
    strays: list[Path] = field(default_factory=list)

    @contextmanager
    def problems_of(self, path: Path, domain_directory: str) -> Iterator[None]:
        """Turn an error inside the block into a problem of ``path``."""
        try:
            yield
        except FileNotFoundError:
            pass  # removed since its directory was read
        except DefinitionError as error:
            self.problems.append(
                Problem(
                    path,
                    str(error),
                    domain_directory,
                    error.sentences_within(path=path),
                    isinstance(error, ChecksumError),
                )
            )
        except OSError as error:
            reason = error.strerror or str(error)
            self.problems.append(Problem(path, f"{path}: {reason}", domain_directory, reason))


def scan_target(target: Path) -> Scan:
    """Read all definition and pending files below ``target``. Blocks.

    Raises:
        StorageError: the target is missing or cannot be read.
    """
    findings = _Findings()
    try:
        directories = _directories(target)
    except OSError as error:
        raised = storage_error("read", target, error)
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raised.hint = "Mount the file system that holds it, or correct `target`."
        raise raised from error
    return _scan(directories, findings)


def scan_directory(directory: Path) -> Scan:
    """Read the definition and pending files of one domain's directory, if it exists. Blocks."""
    return _scan([directory], _Findings())


def newest_definition(directory: Path) -> Definition | None:
    """Read the newest definition of one domain's directory alone; None if that fails. Blocks.

    Its backup need not be complete: this is for estimates.
    """
    try:
        dir_fd = TargetPath.of(directory, 1).open_directory()
        try:
            with os.scandir(dir_fd) as entries:
                names = [entry.name for entry in entries if _is_definition(entry.name)]
            name = max(names, default="")
            path = directory / name
            return definition_file.loads(read_bytes(path, dir_fd=dir_fd), path) if name else None
        finally:
            close(dir_fd)
    except (OSError, DefinitionError, StorageError):
        return None


def _is_definition(name: str) -> bool:
    return name.endswith(definition_file.SUFFIX) and _BACKUP_FILE.match(name) is not None


def _scan(directories: list[Path], findings: _Findings) -> Scan:
    for directory in directories:
        with findings.problems_of(directory, directory.name):
            _scan_domain(directory, findings)
    return Scan(
        tuple(sorted(findings.complete, key=lambda found: found.definition.date)),
        tuple(sorted(findings.pending, key=lambda found: found.pending.date)),
        tuple(findings.problems),
        tuple(sorted(findings.removed, key=lambda found: found.definition.date)),
        tuple(findings.strays),
    )


def _directories(target: Path) -> list[Path]:
    """Return the visible directories, and symlinks to directories, which become problems."""
    with os.scandir(target) as entries:
        found = [entry.name for entry in entries if entry.name[0] != "." and entry.is_dir()]
    return [target / name for name in sorted(found)]


def _scan_domain(directory: Path, findings: _Findings) -> None:
    dir_fd = TargetPath.of(directory, 1).open_directory()
    try:
        with os.scandir(dir_fd) as entries:
            present = frozenset(entry.name for entry in entries)
        named: set[str] = set()
        for name in sorted(_descriptions(present)):
            path = directory / name
            with findings.problems_of(path, directory.name):
                named.update(_read(path, dir_fd, present, findings))
    finally:
        close(dir_fd)
    findings.strays += [directory / name for name in _strays(present, named)]


def _read(path: Path, dir_fd: int, present: frozenset[str], findings: _Findings) -> Sequence[str]:
    """Classify one file of a domain's directory; return the files of the package it describes."""
    name = path.name
    if name.endswith(pending_file.SUFFIX):
        pending = pending_file.loads(read_bytes(path, dir_fd=dir_fd), path)
        findings.pending.append(FoundPending(pending, path))
        return package_files(pending)
    if name.endswith(REMOVED_SUFFIX):
        removed = definition_file.loads(read_bytes(path, dir_fd=dir_fd), definition_path(path))
        findings.removed.append(FoundBackup(removed, path))
        return package_files(removed)
    definition = definition_file.loads(read_bytes(path, dir_fd=dir_fd), path)
    files = package_files(definition)
    if _is_finished(definition, files, path, present):
        findings.complete.append(FoundBackup(definition, path))
    return files


def definition_path(path: Path) -> Path:
    """Return the path that a definition has, or had, by its pending file or removal note."""
    stem, suffix, _ = path.name.rpartition(definition_file.SUFFIX)
    return path.with_name(stem + suffix)


def removal_note(path: Path) -> Path:
    """Return the path of the file that marks a backup as being removed."""
    return path.with_name(definition_path(path).stem + REMOVED_SUFFIX)


def is_removal_note(path: Path) -> bool:
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
    definition: Definition, files: Sequence[str], path: Path, present: frozenset[str]
) -> bool:
    """Tell whether the backup is complete: virt-backup writes its definition before the data.

    Raises:
        DefinitionError: it claims to be finished, and some of its package's ``files`` are missing.
    """
    has_pending = f"{path.name}.pending" in present
    if has_pending and not definition_file.is_ours(definition.version):
        return False
    if not present.issuperset(files):
        missing = [file for file in files if file not in present]
        raise DefinitionError(f"data missing: {', '.join(missing)}", path=path)
    return True
