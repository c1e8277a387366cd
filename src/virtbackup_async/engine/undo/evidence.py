"""What an undo may touch: what this host noted itself, or what libvirt and the images bear out.

A pending file in a target is a claim: whoever can write there can have made it. With a note of
this host the undo goes by the note. Without one (virt-backup's files, another host's, or where the
state directory was lost) an overlay is put back only if all of this holds:

- libvirt knows the domain, and says that the disk is on that overlay, now or at its next start;
- the overlay is called as the program of that version calls its own, and libvirt knows no
  snapshot, of an admin's own, by that name;
- neither it nor the image lies in a target;
- the overlay's header names that image as the one below it.

Of all else that is there, nothing is touched: a person is told what to look at.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.catalog.definition_file import is_ours
from virtbackup_async.catalog.host_notes import Note, Notes
from virtbackup_async.catalog.scanning import FoundPending
from virtbackup_async.engine.host_state import Host
from virtbackup_async.engine.ports import ImageUser
from virtbackup_async.engine.undo.find_domain import GoneDomain
from virtbackup_async.engine.undo.overlay import (
    OverlaidDisk,
    gone_error,
    overlaid_disks,
    sources_of,
)
from virtbackup_async.errors import ImageError, RollbackError, VirtBackupError
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.model.backup import Pending
from virtbackup_async.model.domain import Sources
from virtbackup_async.model.names import is_overlay_of_ours, is_overlay_of_virt_backup
from virtbackup_async.model.pull import PullJob


class DeadBackup(Struct, frozen=True):
    """A backup whose process died.

    Attributes:
        pending: the facts: the note's, where there is one.
        path: of its pending file, which may be gone.
        note: what this host noted of it; None: nothing.
    """

    pending: Pending
    path: Path
    note: Note | None

    @property
    def overlaid(self) -> list[OverlaidDisk]:
        """The disks that were put, or about to be put, on an overlay."""
        return [*overlaid_disks(self.pending, is_noted=self.note is not None).values()]


async def dead_backup(notes: Notes, found: FoundPending) -> DeadBackup:
    """Return the facts of a backup whose pending file was found."""
    note = await to_thread.run_sync(notes.of, found.pending, found.path)
    return DeadBackup(note.pending if note else found.pending, found.path, note)


async def borne_out(host: Host, domain: ImageUser, dead: DeadBackup) -> list[OverlaidDisk]:
    """Return the disks that an undo without a note may put back: those that all signs are for.

    Raises:
        RollbackError: an overlay is there of which it cannot be told; nothing was touched.
        HypervisorError: libvirt cannot be asked.
    """
    sources = await sources_of(domain)
    version = dead.pending.version
    certain, doubts = [], []
    for disk in dead.overlaid:
        if disk.overlay in _sides(sources, disk.dev):
            doubt = await _doubt(host, domain, version, disk)
        else:
            doubt = await _doubt_unused(host, domain, version, disk)
        if doubt is not None:
            doubts.append(doubt)
        elif disk.overlay in _sides(sources, disk.dev):
            certain.append(disk)
    if doubts:
        raise joined(doubts)
    return certain


async def check_nothing_left(images: ImageHost, job: PullJob) -> None:
    """Make sure that of a pull job without a note nothing is left that would have to be removed.

    Raises:
        RollbackError: files are there that may be another's.
    """
    left = [
        path
        for path in (*job.scratch.values(), job.socket)
        if await images.exists(path, follow=False)
    ]
    if left:
        words = " ".join(shlex.quote(str(path)) for path in left)
        raise RollbackError(
            f"no note of this host tells of {', '.join(map(str, left))}",
            hint=f"If no backup runs, remove what is of this one: `rm {words}`.",
        )


def joined(errors: Sequence[VirtBackupError]) -> RollbackError:
    """Make one error of several: each message and each advice once."""
    messages = dict.fromkeys(error.message for error in errors)
    hints = dict.fromkeys(error.hint for error in errors if error.hint)
    return RollbackError("; ".join(messages), hint=" ".join(hints) or None)


async def _doubt(
    host: Host, domain: ImageUser, version: str, disk: OverlaidDisk
) -> RollbackError | None:
    """Return why an overlay that the domain is on may not be one of that backup's."""
    why = await _implausible(host, version, disk)
    if why is None and not is_ours(version):
        # virt-backup lets libvirt forget its snapshots; one of the same kind that is known is a
        # person's own.
        name = disk.overlay.suffix.removeprefix(".")
        if name in await domain.snapshot_names():
            why = f"{disk.overlay} is a snapshot that libvirt knows"
    return None if why is None else _made_up(domain, disk, why)


async def _implausible(host: Host, version: str, disk: OverlaidDisk) -> str | None:
    """Return what shows that it is no overlay of that backup's; None if nothing does."""
    is_named_well = is_overlay_of_ours if is_ours(version) else is_overlay_of_virt_backup
    if not is_named_well(disk.overlay, disk.image):
        return f"{disk.overlay} is not called as an overlay of that program"
    try:
        paths = (disk.overlay, disk.image)
        await to_thread.run_sync(host.refuse_in_target, disk.dev, paths)
        await host.images.check_overlay(disk.overlay, disk.image)
    except ImageError as error:
        return error.message
    return None


def _made_up(domain: ImageUser, disk: OverlaidDisk, why: str) -> RollbackError:
    # No command to paste: its path would be of his choice who made the file up.
    return RollbackError(
        f"{domain.name}: {disk.dev}: no note of this host tells of that backup, and {why}",
        hint="Somebody may have made the pending file up: see who can write to the target. "
        "If no backup of this domain was killed, remove the file.",
    )


async def _doubt_unused(
    host: Host, domain: ImageUser, version: str, disk: OverlaidDisk
) -> RollbackError | None:
    """Return what is to be said of an overlay that the domain is not on; None if it is gone."""
    if not await host.images.exists(disk.overlay, follow=False):
        return None
    why = await _implausible(host, version, disk)
    if why is not None:
        return _made_up(domain, disk, why)
    if isinstance(domain, GoneDomain):
        return gone_error(domain.name, disk)
    overlay = shlex.quote(str(disk.overlay))
    return RollbackError(
        f"{domain.name}: {disk.dev}: no note of this host tells of {disk.overlay}, and the domain "
        "is not on it",
        hint=f"Look at what is in it (`qemu-img map -U {overlay}`): if the domain has all that it "
        f"needs, `rm {overlay}`.",
    )


def _sides(sources: Sources, dev: str) -> tuple[Path | None, ...]:
    return (sources.live or {}).get(dev), (sources.persistent or {}).get(dev)
