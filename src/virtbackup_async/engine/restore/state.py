"""Restoring the UEFI variables and TPM state of a domain.

``restore --define`` calls :func:`give_state` when libvirt has the domain and before it starts: the
restored files are copied to where libvirt will look for them. ``restore --in-place`` asks
:func:`state_paths` what they replace. Invariant: nothing is written but into the directories in
which libvirt itself keeps such state, whatever path a backup's XML names; what a domain has already
is never overwritten here; a directory of TPM state appears whole or not at all.
"""

import os
import pwd
import secrets
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from anyio import CancelScope, to_thread

from virtbackup_async.engine.restore.plan import RestoredState, RestorePlan
from virtbackup_async.events import Emit, Warned
from virtbackup_async.files.directories import make_directory
from virtbackup_async.files.durable import (
    file_at,
    remove_durably,
    rename_exclusively,
    sync_directory,
    sync_file,
)
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.model.domain import DomainInfo
from virtbackup_async.model.domain_state import (
    LABELS,
    StatePlace,
    is_libvirts_own,
    state_places,
)
from virtbackup_async.model.names import beside

_REACHABLE = 0o711
_PRIVATE = 0o700


async def give_state(plan: RestorePlan, target: Path, info: DomainInfo, emit: Emit) -> None:
    """Copy the restored files in ``target`` to where the domain's state belongs.

    Raises:
        StorageError: they cannot be written there.
    """
    for kind, files in _by_kind(plan).items():
        place = _place(info, kind)
        restored = target / files[0].image.name
        if place.path is None:
            emit(_not_given(info, kind, place.reason))
        elif not place.is_directory and len(files) > 1:
            emit(_not_given(info, kind, f"{place.path} is one file, the backup has {len(files)}"))
        elif place.path == restored and not place.is_directory:
            await _say_unknown_owners(files, restored, info, emit)
            await to_thread.run_sync(_give_restored, restored, files[0].owner)
        elif not is_libvirts_own(place, info):
            reason = (
                f"{place.path} is no place where libvirt keeps it, so it is in {restored} alone"
            )
            emit(_not_given(info, kind, reason))
        elif await to_thread.run_sync(_is_taken, place.path):
            emit(_not_given(info, kind, f"{place.path} is there already, and stays"))
        else:
            await _say_unknown_owners(files, place.path, info, emit)
            give = _give_directory if place.is_directory else _give_file
            await give(files, target, place.path)


def state_paths(plan: RestorePlan, info: DomainInfo, emit: Emit) -> dict[str, Path]:
    """Return, by restored name, the files of the domain that are replaced. Blocks."""
    paths = {}
    for kind, files in _by_kind(plan).items():
        place = _place(info, kind)
        for file in files:
            path, reason = _replaced(place, file)
            if path is None:
                emit(_not_given(info, kind, reason))
            else:
                paths[file.image.name] = path
    return paths


def _by_kind(plan: RestorePlan) -> dict[str, list[RestoredState]]:
    files: dict[str, list[RestoredState]] = {}
    for file in plan.state:
        files.setdefault(file.kind, []).append(file)
    return files


def _place(info: DomainInfo, kind: str) -> StatePlace:
    places = (place for place in state_places(info) if place.kind == kind)
    return next(places, StatePlace(kind, None, "the domain has no use for it"))


def _replaced(place: StatePlace, file: RestoredState) -> tuple[Path | None, str]:
    """Return what a restored file replaces, or why it replaces nothing."""
    if place.path is None:
        return None, place.reason
    if not place.is_directory:
        record = file.image.record
        if record is not None and record.format != place.format:
            return None, f"{place.path} is {place.format} now, the backup has {record.format}"
        return place.path, ""
    path = place.path / file.source_name
    # The emulator's user can put links there; ours may write to where they lead.
    if path.is_symlink() or not path.is_file():
        return None, f"the domain has no file {path}"
    return path, ""


def _not_given(info: DomainInfo, kind: str, reason: str) -> Warned:
    return Warned(f"{LABELS.get(kind, kind)} is not what was backed up: {reason}", info.name)


async def _say_unknown_owners(
    files: Sequence[RestoredState], path: Path, info: DomainInfo, emit: Emit
) -> None:
    for owner in await to_thread.run_sync(_unknown_owners, files):
        emit(Warned(f"{path} belongs to you: this host has no user {owner}", info.name))


def _is_taken(path: Path) -> bool:
    """Tell whether something is there; an empty directory is nothing."""
    if not os.path.lexists(path):
        return False
    try:
        return path.is_symlink() or not path.is_dir() or any(path.iterdir())
    except OSError as error:
        raise storage_error("read", path, error) from error


async def _give_file(files: Sequence[RestoredState], target: Path, path: Path) -> None:
    (file,) = files
    part = _part(path)
    try:
        await to_thread.run_sync(_copy, target / file.image.name, part, file.owner)
        await rename_exclusively(part, path)
        await sync_directory(path.parent)
    finally:
        with CancelScope(shield=True):
            await remove_durably(part)


async def _give_directory(files: Sequence[RestoredState], target: Path, path: Path) -> None:
    await to_thread.run_sync(_make_directory, files, target, path)


def _make_directory(files: Sequence[RestoredState], target: Path, path: Path) -> None:
    part = _part(path)
    try:
        for parent in (path.parent.parent, path.parent):
            with suppress(FileExistsError):
                make_directory(parent, _REACHABLE)
        part.mkdir(mode=_PRIVATE)
        for file in files:
            _copy(target / file.image.name, part / file.source_name, file.owner)
        _give_to(part, files[0].owner)
        sync_file(part)
        part.rename(path)
        sync_file(path.parent)
    except OSError as error:
        raise storage_error("write", path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _part(path: Path) -> Path:
    return beside(path, f"restore-{secrets.token_hex(4)}")


def _copy(source: Path, path: Path, owner: str | None) -> None:
    """Copy a small file into a new one that belongs to ``owner``, durably."""
    try:
        fd = file_at(path).claim(os.O_WRONLY)
        with os.fdopen(fd, "wb") as file, open(source, "rb", opener=_open_no_link) as original:
            shutil.copyfileobj(original, file)
            file.flush()
            _give_to(fd, owner)
            os.fsync(fd)
    except OSError as error:
        raise storage_error("write", path, error) from error


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _give_restored(path: Path, owner: str | None) -> None:
    """Give a restored file that the domain uses in place its original owner."""
    try:
        fd = _open_no_link(str(path), os.O_RDONLY | os.O_NONBLOCK)
        try:
            there = os.fstat(fd)
            # Somebody else's file of another name must not be given away through this one.
            if stat.S_ISREG(there.st_mode) and there.st_nlink == 1:
                _give_to(fd, owner)
        finally:
            os.close(fd)
    except OSError as error:
        raise storage_error("use", path, error) from error


def _give_to(what: Path | int, owner: str | None) -> None:
    user = _user(owner)
    if user is not None:
        # Only root may give files away, and for others there is nobody else to give them to.
        with suppress(PermissionError):
            os.chown(what, user.pw_uid, user.pw_gid, follow_symlinks=isinstance(what, int))


def _unknown_owners(files: Sequence[RestoredState]) -> set[str]:
    return {file.owner for file in files if file.owner is not None and _user(file.owner) is None}


def _user(name: str | None) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name or "")
    except (KeyError, ValueError):  # no such user; no name that one could have
        return None
