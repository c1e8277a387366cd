"""Checks a directory that the admin wants as a target, before anything is created.

``look_at_target`` inspects it; ``judge`` is pure. A problem makes backups there impossible, or
would make the program refuse them; a warning is for the admin to consider. ``doctor`` itself gives
its own warnings about a target, once that exists.
"""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from msgspec import Struct

from virtbackup_async.engine.setup.proposal import names
from virtbackup_async.engine.setup.site import Site
from virtbackup_async.errors import StorageError
from virtbackup_async.events import Finding, Level
from virtbackup_async.files.mounts import (
    ANSWER_TIMEOUT_S,
    Mount,
    Place,
    Space,
    answer_in_time,
    mount_of,
    place_on,
    space_at,
)
from virtbackup_async.model.amounts import size

CHECK = "target"
_OTHER_DISK = "A disk that breaks takes images and backups along: take another one."


class TargetSeen(Struct, frozen=True):
    """The facts about a directory, which might not exist yet.

    Attributes:
        path: as it was typed.
        real: the path with links followed.
        existing: the directory itself, or else its nearest parent that exists.
        is_writable: whether files can be created in ``existing``.
        entries: the names in it; empty if it is missing.
        trouble: why it cannot be inspected; then nothing else is known.
    """

    path: Path
    real: Path
    existing: Path
    is_directory: bool = True
    is_writable: bool = True
    entries: tuple[str, ...] = ()
    mount: Mount | None = None
    place: Place = Place()
    space: Space | None = None
    trouble: str | None = None


async def look_at_target(
    site: Site, path: Path, *, timeout_s: float = ANSWER_TIMEOUT_S
) -> TargetSeen:
    """Inspect a directory; if its file system does not answer, that is its ``trouble``."""
    try:
        return await answer_in_time(partial(_look, site), path, timeout_s=timeout_s)
    except StorageError as error:
        return TargetSeen(path, path, path, trouble=error.reason)
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "no path"
        return TargetSeen(path, path, path, trouble=f"cannot be looked at: {reason}")


def _look(site: Site, path: Path) -> TargetSeen:
    real = Path(os.path.realpath(path))
    existing = next(at for at in (real, *real.parents) if os.path.lexists(at))
    mount = mount_of(existing, site.mounts)
    is_directory = existing.is_dir()
    is_there = is_directory and existing == real
    return TargetSeen(
        path,
        real,
        existing,
        is_directory=is_directory,
        is_writable=os.access(existing, os.W_OK | os.X_OK),
        entries=tuple(sorted(entry.name for entry in os.scandir(real))) if is_there else (),
        mount=mount,
        place=place_on(mount) if mount else Place(),
        space=space_at(existing),
    )


def description(seen: TargetSeen) -> str:
    """Return the facts about a directory's file system, for a comment; empty if unknown."""
    if seen.mount is None or seen.space is None:
        return ""
    free = f"{size(seen.space.free_bytes)} free when this was written"
    return f"{seen.mount.type} on {seen.mount.source}, {free}"


def judge(site: Site, seen: TargetSeen) -> tuple[Finding, ...]:
    """Return the findings against a directory, problems first; none if all is well."""
    if not seen.path.is_absolute() or seen.trouble is not None:
        trouble = seen.trouble or "is not a path from the root on: neither ~ nor $HOME is expanded"
        return (_problem(seen, "target_unfit", trouble, "Name another directory."),)
    return (*_problems(site, seen), *_warnings(site, seen))


def _problems(site: Site, seen: TargetSeen) -> Iterator[Finding]:
    if not seen.is_directory:
        yield _problem(
            seen, "target_no_directory", f"{seen.existing} is not a directory", "Name another one."
        )
    elif seen.mount is not None and seen.mount.is_read_only:
        yield _problem(
            seen,
            "target_read_only",
            f"{seen.mount.point} is mounted read-only",
            "Mount it read-write.",
        )
    elif not seen.is_writable:
        advice = "Run as a user that may write there, or name another directory."
        yield _problem(seen, "target_not_writable", f"{seen.existing} cannot be written to", advice)
    inside = [
        name
        for name, images in site.images.items()
        if any(path.is_relative_to(seen.real) for path in images.paths)
    ]
    if inside:
        message = f"holds images of {names(inside)}: no image in a target is backed up"
        yield _problem(
            seen, "target_holds_images", message, "Name a directory that holds no image."
        )


def _warnings(site: Site, seen: TargetSeen) -> Iterator[Finding]:
    of_file_system = site.on_file_system_of(seen.place)
    if of_file_system:
        message = f"is on the file system of the images of {names(of_file_system)}"
        yield _warning(seen, "target_beside_images", message, _OTHER_DISK)
    if seen.mount is not None and seen.mount.point == Path("/"):
        advice = "Mount a disk of its own there: a full root file system stops the host."
        yield _warning(seen, "file_system_root", "is on the root file system", advice)
    yield from beyond_doctor(site, seen)


def beyond_doctor(site: Site, seen: TargetSeen) -> Iterator[Finding]:
    """Yield the warnings that ``doctor`` does not give about a target."""
    of_disk = site.on_disk_of(seen.place)
    if of_disk and not site.on_file_system_of(seen.place):
        message = f"is on the disk of the images of {names(of_disk)}"
        yield _warning(seen, "target_on_disk_of_images", message, _OTHER_DISK)
    if seen.mount is not None and seen.mount.is_in_memory:
        kind = seen.mount.type
        message = f"is on {kind}, in memory: the backups are gone after the next start"
        yield _warning(seen, "file_system_in_memory", message, "Name a directory on a disk.")
    if seen.space is not None and seen.space.free_bytes < site.used_bytes:
        free, used = size(seen.space.free_bytes), size(site.used_bytes)
        message = f"has {free} free, and the images hold {used}"
        advice = "Compression makes backups smaller, but the first one may not fit."
        yield _warning(seen, "room_little", message, advice)
    if seen.entries:
        advice = "Its files stay. Backups among them are listed, and cleaned by the same rules."
        yield _warning(seen, "target_not_empty", f"is not empty: {names(seen.entries, 3)}", advice)


def _problem(seen: TargetSeen, code: str, message: str, advice: str) -> Finding:
    return Finding(Level.PROBLEM, CHECK, str(seen.path), message, advice, code=code)


def _warning(seen: TargetSeen, code: str, message: str, advice: str) -> Finding:
    return Finding(Level.WARNING, CHECK, str(seen.path), message, advice, code=code)
