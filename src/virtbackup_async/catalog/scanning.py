"""Finds what a target holds: one pass over its directories, in a worker thread.

:class:`~virtbackup_async.catalog.store.Catalog` is the caller. Invariant: what is called complete
has a readable definition and all of its files; one damaged file never hides another; symlinks are
reported and not followed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from virtbackup_async.catalog import definition_file, pending_file
from virtbackup_async.catalog.package_files import missing_files
from virtbackup_async.catalog.raw_json import read_bytes
from virtbackup_async.errors import DefinitionError
from virtbackup_async.images.durable import storage_error
from virtbackup_async.model.backup import Definition, Pending


@dataclass(frozen=True, slots=True)
class FoundBackup:
    """A complete backup; ``path`` is its definition, its package stands beside it."""

    definition: Definition
    path: Path


@dataclass(frozen=True, slots=True)
class FoundPending:
    """A backup that was started and not finished; ``path`` is its pending file."""

    pending: Pending
    path: Path


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that should be a backup and is none.

    Attributes:
        message: one line, the path included.
        domain_directory: the name of the directory it is, or is in; mostly a domain's name.
    """

    path: Path
    message: str
    domain_directory: str


@dataclass(frozen=True, slots=True)
class Scan:
    """All that a target holds, oldest first."""

    complete: tuple[FoundBackup, ...]
    pending: tuple[FoundPending, ...]
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class _Findings:
    complete: list[FoundBackup] = field(default_factory=list)
    pending: list[FoundPending] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @contextmanager
    def problems_of(self, path: Path, domain_directory: str) -> Iterator[None]:
        """Turn what goes wrong inside into a problem of ``path`` alone."""
        try:
            yield
        except FileNotFoundError:
            pass  # removed by somebody else since its directory was read
        except DefinitionError as error:
            self.problems.append(Problem(path, str(error), domain_directory))
        except OSError as error:
            reason = "a symlink, not followed" if path.is_symlink() else error.strerror or error
            self.problems.append(Problem(path, f"{path}: {reason}", domain_directory))


def scan_target(target: Path) -> Scan:
    """Read all definition and pending files below ``target``. Blocks.

    Raises:
        StorageError: the target is missing or cannot be read.
    """
    findings = _Findings()
    try:
        directories = _directories(target)
    except OSError as error:
        raise storage_error("read", target, error) from error
    return _scan(directories, findings)


def scan_directory(directory: Path) -> Scan:
    """Read the definition and pending files of one domain's directory, if it exists. Blocks."""
    return _scan([directory], _Findings())


def _scan(directories: list[Path], findings: _Findings) -> Scan:
    for directory in directories:
        with findings.problems_of(directory, directory.name):
            _scan_domain(directory, findings)
    return Scan(
        tuple(sorted(findings.complete, key=lambda found: found.definition.date)),
        tuple(sorted(findings.pending, key=lambda found: found.pending.date)),
        tuple(findings.problems),
    )


def _directories(target: Path) -> list[Path]:
    """Return the visible directories, and symlinks to such, which are problems soon."""
    with os.scandir(target) as entries:
        found = [entry.name for entry in entries if entry.name[0] != "." and entry.is_dir()]
    return [target / name for name in sorted(found)]


def _scan_domain(directory: Path, findings: _Findings) -> None:
    dir_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with os.scandir(dir_fd) as entries:
            present = frozenset(entry.name for entry in entries)
        for name in sorted(present):
            path = directory / name
            with findings.problems_of(path, directory.name):
                if name.endswith(pending_file.SUFFIX):
                    pending = pending_file.loads(read_bytes(path, dir_fd=dir_fd), path)
                    findings.pending.append(FoundPending(pending, path))
                elif name.endswith(definition_file.SUFFIX):
                    definition = definition_file.loads(read_bytes(path, dir_fd=dir_fd), path)
                    if _is_finished(definition, path, present):
                        findings.complete.append(FoundBackup(definition, path))
    finally:
        os.close(dir_fd)


def _is_finished(definition: Definition, path: Path, present: frozenset[str]) -> bool:
    """Tell whether the backup is whole; virt-backup writes its definition before the data.

    Raises:
        DefinitionError: it claims to be finished, and files of its package are missing.
    """
    has_pending = f"{path.name}.pending" in present
    if has_pending and not definition_file.is_ours(definition.version):
        return False
    missing = missing_files(definition, present)
    if missing:
        raise DefinitionError(f"{path}: data missing: {', '.join(missing)}")
    return True
