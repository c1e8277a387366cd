"""Stray files in a target: ``clean`` reports them, and removes those known to be abandoned.

::

    <name>.json.pending, empty       a name that was claimed: removed after a minute
    <name>.json.pending, unreadable  left, and the run says so
    .virtbackup-*.tmp                a part of a small file: removed after an hour
    any other                        reported, never removed
"""

import stat

from anyio import to_thread

from virtbackup_async.catalog import pending_file
from virtbackup_async.catalog.removing import remove_claim
from virtbackup_async.catalog.scanning import Problem, Scan, is_removal_note
from virtbackup_async.engine.clean.plan import CleanTarget
from virtbackup_async.engine.clean.request import Cleaning
from virtbackup_async.errors import StorageError
from virtbackup_async.events import PendingFound, PendingLeft, PendingUndone, Warned
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model.names import is_temporary
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile

CLAIM_MAX_AGE_S = 60
TEMPORARY_MAX_AGE_S = 3600


async def clean_stray_files(cleaning: Cleaning, target: CleanTarget, scan: Scan) -> None:
    """Report or remove the files of a scan that belong to no backup."""
    for problem in scan.problems:
        # A domain's directory has the domain's name, except for rare names that are escaped.
        group = target.group_of(problem.domain)
        if group is None or is_removal_note(problem.path):
            continue  # `clean` ends the removals of its groups' backups
        if await _is_noted(cleaning, problem.path):
            continue
        if not problem.path.name.endswith(pending_file.SUFFIX):
            cleaning.emit(Warned(f"left alone: {problem.message}", problem.domain))
        elif cleaning.request.broken:
            await _clean_unreadable(cleaning, group, problem)
    for place in await to_thread.run_sync(_temporary_files_in, target.catalog.target):
        await _remove_if_old(cleaning, place)
    for path in scan.strays:
        if target.group_of(path.parent.name) is not None:
            await _clean_stray(cleaning, path)


def report_new_problems(cleaning: Cleaning, target: CleanTarget, before: Scan, now: Scan) -> None:
    """Warn of files that have become unreadable; no rule applies to them."""
    known = {problem.path for problem in before.problems}
    for problem in now.problems:
        if problem.path not in known and target.group_of(problem.domain) is not None:
            cleaning.emit(Warned(f"left alone: {problem.message}", problem.domain))


async def _is_noted(cleaning: Cleaning, path: TargetFile) -> bool:
    """Return whether this host has a note of an unreadable pending file."""
    if path.target.plain_directory is None:
        return False
    real = await to_thread.run_sync(TargetPath.at(path).real_path)
    return any(note.pending_path == real for note in cleaning.notes.notes)


async def _clean_unreadable(cleaning: Cleaning, group: str, problem: Problem) -> None:
    """Remove a pending file that is empty; report any other, and leave it."""
    path, domain = problem.path, problem.domain
    backup = path.name.removesuffix(pending_file.SUFFIX)
    age_s, size_bytes = await to_thread.run_sync(
        _age_and_size, TargetPath.at(path), cleaning.now.timestamp()
    )
    if size_bytes == 0 and age_s < CLAIM_MAX_AGE_S:
        return  # its owner is about to write it
    cleaning.emit(PendingFound(group, domain, backup, str(path)))
    if cleaning.request.dry_run:
        return
    error = problem.message
    try:
        if size_bytes == 0 and await remove_claim(path):
            cleaning.emit(PendingUndone(group, domain, backup))
            return
    except StorageError as failure:
        error = str(failure)
    cleaning.emit(PendingLeft(group, domain, backup, str(path), error))


async def _clean_stray(cleaning: Cleaning, path: TargetFile) -> None:
    if not is_temporary(path.name) or path.target.plain_directory is None:
        cleaning.emit(Warned(f"left alone, belongs to no backup: {path}", path.parent.name))
        return
    await _remove_if_old(cleaning, TargetPath.at(path))


async def _remove_if_old(cleaning: Cleaning, place: TargetPath) -> None:
    """Remove a temporary file that nobody can still be writing."""
    age_s, _ = await to_thread.run_sync(_age_and_size, place, cleaning.now.timestamp())
    if age_s > TEMPORARY_MAX_AGE_S and not cleaning.request.dry_run:
        await to_thread.run_sync(place.remove)


def _temporary_files_in(target: StorageLocation) -> list[TargetPath]:
    """Return those that a run left which was writing a file of the target itself."""
    directory = target.plain_directory
    if directory is None:
        return []  # other storages show no file before it is complete
    place = TargetPath(directory)
    try:
        names = place.names(lambda entry: is_temporary(entry.name))
    except OSError as error:
        raise storage_error("read", directory, error) from error
    return [place / name for name in names]


def _age_and_size(place: TargetPath, now_s: float) -> tuple[float, int]:
    try:
        status = place.status()
    except OSError:
        return 0, 0  # gone, so it counts as new
    if not stat.S_ISREG(status.st_mode):
        return 0, 1  # not a file of this program
    return now_s - status.st_mtime, status.st_size
