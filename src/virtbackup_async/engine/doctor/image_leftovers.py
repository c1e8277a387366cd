"""Leftovers next to images, recognized by their names, and what to do about each.

::

    web.qcow2.vbk-0a0b0c0d            overlay of a backup
    web.qcow2.vbk-0a0b0c0d.scratch    scratch image of a pull
    web.qcow2.vbk-0a0b0c0d.part       an image that `restore` was writing
    web.qcow2.vbk-restore-0a0b0c0d    an image that `restore --in-place` was writing
    web.qcow2.vbk-old-0a0b0c0d        the image that it replaces
    kept ones of `restore --in-place`, see `model.names`
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from virtbackup_async.catalog.host_notes import Notes
from virtbackup_async.catalog.scanning import Scan
from virtbackup_async.errors import StorageError
from virtbackup_async.events import Finding, Level
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.model.names import (
    image_beside,
    is_kept,
    is_marked,
    is_of_restore,
    is_part,
    is_scratch,
)

CHECK = "leftover"


class _Kind(Struct, frozen=True):
    """The finding for one kind of file."""

    level: Level
    message: str
    advice: str | None = None


_KEPT = _Kind(Level.INFO, "kept by a restore in place, as it was before")
_LEFT = _Kind(
    Level.WARNING,
    "left by a restore in place",
    "Run the restore again; then remove it, if nobody needs it.",
)
_PART = _Kind(
    Level.PROBLEM,
    "a part that a restore was writing when it died, or is writing now",
    "Run that restore again, or, if none runs, remove it.",
)
_SCRATCH = _Kind(
    Level.PROBLEM,
    "a scratch image that no pending file and no note of this host names",
    "Nothing in it is missing in the image: if no backup runs, remove it.",
)
_OVERLAY = _Kind(
    Level.PROBLEM,
    "an overlay that no pending file of these targets and no note of this host names",
    "It may hold what a guest wrote: look with virsh domblklist who uses it.",
)


async def check_image_leftovers(
    host: ImageHost,
    images: Iterable[Path],
    scans: Iterable[Scan],
    notes: Notes,
    at_work: frozenset[Path],
) -> list[Finding]:
    """Find leftovers next to the images that neither a pending file nor a note names.

    Args:
        host: the machine that has the images.
        images: of all domains that are examined.
        scans: of the targets.
        notes: of this host.
        at_work: images of domains that somebody works on now.
    """
    told = [found.pending for scan in scans for found in scan.pending]
    told += [note.pending for note in notes.notes]
    disks = [disk for pending in told for disk in pending.disks.values()]
    known = {Path(file) for disk in disks for file in (disk.snapshot, disk.scratch) if file}
    directories = sorted({image.parent for image in images})
    findings = []
    for directory in directories:
        with suppress(StorageError):  # the check of its image has reported it
            for path in await host.entries(directory):
                kind = _kind_of(path)
                is_known = path in known or image_beside(path) in at_work
                if kind is not None and (kind in (_KEPT, _LEFT) or not is_known):
                    finding = Finding(kind.level, CHECK, str(path), kind.message, kind.advice)
                    findings.append(finding)
    return findings


def _kind_of(path: Path) -> _Kind | None:
    """Return what a file is; None if it is none of ours."""
    if is_kept(path.name):
        return _KEPT
    if is_of_restore(path):
        return _LEFT
    if not is_marked(path):
        return None
    if is_part(path):
        return _PART
    return _SCRATCH if is_scratch(path) else _OVERLAY
