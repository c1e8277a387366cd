"""Restoring the UEFI variables and TPM state of a domain.

``restore --define`` calls :func:`give_state` when libvirt has the domain and before it starts: the
restored files are copied to where libvirt will look for them. ``restore --in-place`` asks
:func:`state_paths` what they replace. Invariant: nothing is written but into the directories in
which libvirt itself keeps such state, whatever path a backup's XML names; what a domain has already
is never overwritten here; a directory of TPM state appears whole or not at all.
"""

from collections.abc import Sequence
from pathlib import Path

from virtbackup_async.engine.restore.plan import RestoredState, RestorePlan
from virtbackup_async.events import Emit, Warned
from virtbackup_async.host.interface import ImageHost, NewStateFile
from virtbackup_async.model.domain import DomainInfo
from virtbackup_async.model.domain_state import (
    LABELS,
    StatePlace,
    is_libvirts_own,
    state_places,
)


async def give_state(
    images: ImageHost, plan: RestorePlan, target: Path, info: DomainInfo, emit: Emit
) -> None:
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
            await _warn_of_unknown_owners(images, files, restored, info, emit)
            await images.give_to(restored, files[0].owner)
        elif not is_libvirts_own(place, info):
            reason = (
                f"{place.path} is no place where libvirt keeps it, so it is in {restored} alone"
            )
            emit(_not_given(info, kind, reason))
        elif not await images.is_vacant(place.path):
            emit(_not_given(info, kind, f"{place.path} is there already, and stays"))
        else:
            await _warn_of_unknown_owners(images, files, place.path, info, emit)
            new = [NewStateFile(target / f.image.name, f.source_name, f.owner) for f in files]
            if place.is_directory:
                await images.create_directory(place.path, new)
            else:
                await images.create_file(place.path, new[0])


async def state_paths(
    images: ImageHost, plan: RestorePlan, info: DomainInfo, emit: Emit
) -> dict[str, Path]:
    """Return the files of the domain that are replaced, by restored name."""
    paths = {}
    for kind, files in _by_kind(plan).items():
        place = _place(info, kind)
        for file in files:
            path, reason = await _replaced(images, place, file)
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


async def _replaced(
    images: ImageHost, place: StatePlace, file: RestoredState
) -> tuple[Path | None, str]:
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
    if not await images.is_file(path):
        return None, f"the domain has no file {path}"
    return path, ""


def _not_given(info: DomainInfo, kind: str, reason: str) -> Warned:
    return Warned(f"{LABELS.get(kind, kind)} is not what was backed up: {reason}", info.name)


async def _warn_of_unknown_owners(
    images: ImageHost, files: Sequence[RestoredState], path: Path, info: DomainInfo, emit: Emit
) -> None:
    for owner in dict.fromkeys(file.owner for file in files if file.owner is not None):
        if not await images.has_user(owner):
            emit(Warned(f"{path} belongs to you: this host has no user {owner}", info.name))
