"""The evidence that an undo needs before it touches anything.

A pending file in a target is only a claim: anyone who can write there can have made it. If this
host has a note of the backup, the undo relies on the note. Without one (for files of virt-backup or
of another host, or after the loss of the state directory), an overlay is reverted only if:

- libvirt knows the domain, and the disk is on that overlay now, or will be at its next start;
- the overlay's name is one that the program of that version gives, and libvirt knows no snapshot
  of that name, which would be an admin's;
- neither the overlay nor the image is in a target;
- the overlay's header names that image as its backing file.

Nothing else is touched: an error says what a person has to check.

A virt-backup holds no lock, and its pending files look the same while it works and after a kill. To
undo a backup that is still running would remove its overlay, so nothing of virt-backup's is undone
while any virt-backup runs. Source: proc(5), ``/proc/PID/cmdline``.
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
from virtbackup_async.errors import ImageError, LockHeldError, RollbackError, VirtBackupError
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.model.backup import Pending
from virtbackup_async.model.domain import Sources
from virtbackup_async.model.names import is_overlay_of_ours, is_overlay_of_virt_backup
from virtbackup_async.model.pull import PullJob
from virtbackup_async.model.target_file import TargetFile

_VIRT_BACKUP_NAMES = frozenset({b"virt-backup", b"virt_backup"})
_MAX_WORDS = 6


class DeadBackup(Struct, frozen=True):
    """A backup whose process died.

    Attributes:
        pending: the names of everything that it created; from the note, if there is one.
        path: its pending file, which can be gone.
        note: this host's note; None for none.
    """

    pending: Pending
    path: TargetFile
    note: Note | None

    @property
    def overlaid(self) -> list[OverlaidDisk]:
        """The disks that it put, or was about to put, on an overlay."""
        return [*overlaid_disks(self.pending, is_noted=self.note is not None).values()]


async def dead_backup(notes: Notes, found: FoundPending) -> DeadBackup:
    """Return the backup of a pending file, with this host's note of it, if there is one."""
    note = await to_thread.run_sync(notes.of, found.pending, found.path)
    return DeadBackup(note.pending if note else found.pending, found.path, note)


async def borne_out(host: Host, domain: ImageUser, dead: DeadBackup) -> list[OverlaidDisk]:
    """Return the disks that an undo without a note can revert: all evidence is for them.

    Raises:
        RollbackError: the evidence for an overlay is not enough; nothing was touched.
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
    """Check that a pull job without a note left no file to remove.

    Raises:
        RollbackError: there are files that may belong to another backup.
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
    """Join several errors into one; equal messages and hints appear once."""
    messages = dict.fromkeys(error.message for error in errors)
    hints = dict.fromkeys(error.hint for error in errors if error.hint)
    return RollbackError("; ".join(messages), hint=" ".join(hints) or None)


async def _doubt(
    host: Host, domain: ImageUser, version: str, disk: OverlaidDisk
) -> RollbackError | None:
    """Return why an overlay that the domain uses might not belong to that backup."""
    why = await _implausible(host, version, disk)
    if why is None and not is_ours(version):
        # virt-backup lets libvirt forget its snapshots: one that libvirt knows is a person's.
        name = disk.overlay.suffix.removeprefix(".")
        if name in await domain.snapshot_names():
            why = f"{disk.overlay} is a snapshot that libvirt knows"
    return None if why is None else _made_up(domain, disk, why)


async def _implausible(host: Host, version: str, disk: OverlaidDisk) -> str | None:
    """Return why the file cannot be an overlay of that backup; None if it can."""
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
    # No command to paste: its path would come from the person who made the file up.
    return RollbackError(
        f"{disk.dev}: no note of this host tells of that backup, and {why}",
        disk=disk.dev,
        domain=domain.name,
        hint="Somebody may have made the pending file up: see who can write to the target. "
        "If no backup of this domain was killed, remove the file.",
    )


async def _doubt_unused(
    host: Host, domain: ImageUser, version: str, disk: OverlaidDisk
) -> RollbackError | None:
    """Return the error for an overlay that the domain does not use; None if it is gone."""
    if not await host.images.exists(disk.overlay, follow=False):
        return None
    why = await _implausible(host, version, disk)
    if why is not None:
        return _made_up(domain, disk, why)
    if isinstance(domain, GoneDomain):
        return gone_error(domain.name, disk)
    overlay = shlex.quote(str(disk.overlay))
    return RollbackError(
        f"{disk.dev}: no note of this host tells of {disk.overlay}, and the domain is not on it",
        disk=disk.dev,
        domain=domain.name,
        hint=f"Look at what is in it (`qemu-img map -U {overlay}`): if the domain has all that it "
        f"needs, `rm {overlay}`.",
    )


def _sides(sources: Sources, dev: str) -> tuple[Path | None, ...]:
    return (sources.live or {}).get(dev), (sources.persistent or {}).get(dev)


async def refuse_while_virt_backup_runs(backup: str) -> None:
    """Refuse to undo ``backup``, a pending one of virt-backup, while any virt-backup runs.

    Raises:
        LockHeldError: one runs; it cannot be known whether the backup is its own.
    """
    pid = await to_thread.run_sync(_running_virt_backup)
    if pid is not None:
        raise LockHeldError(
            f"virt-backup runs as process {pid}, and {backup} may be what it works on",
            hint="Let it end, or stop it, then run the command again.",
        )


def _running_virt_backup() -> int | None:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended, or belongs to another user
        if any(word.rsplit(b"/", 1)[-1] in _VIRT_BACKUP_NAMES for word in words[:_MAX_WORDS]):
            return int(process.name)
    return None
