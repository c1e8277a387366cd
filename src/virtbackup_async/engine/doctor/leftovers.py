"""What killed backups and restores, and other programs, left.

Pending files, host notes, snapshots and block jobs. Files next to images are recognized by their
names::

    web.qcow2.vbk-0a0b0c0d            overlay of a backup
    web.qcow2.vbk-0a0b0c0d.scratch    scratch image of a pull job
    web.qcow2.vbk-0a0b0c0d.part       an image that `restore` was writing
    web.qcow2.vbk-restore-0a0b0c0d    an image that `restore --in-place` was writing
    web.qcow2.vbk-old-0a0b0c0d        the image that it replaces
    kept ones of `restore --in-place`, see `model.names`
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.catalog.host_notes import Note, Notes
from virtbackup_async.catalog.scanning import FoundPending, Scan
from virtbackup_async.config.schema import Group
from virtbackup_async.engine.host_state import Host
from virtbackup_async.engine.ports import DomainPort, HypervisorPort
from virtbackup_async.engine.undo.find_domain import lock_name
from virtbackup_async.errors import HypervisorError, StorageError, VirtBackupError
from virtbackup_async.events import Finding, Level
from virtbackup_async.host.interface import DomainLocks, ImageHost
from virtbackup_async.model import domain_xml
from virtbackup_async.model.names import (
    image_beside,
    is_kept,
    is_marked,
    is_of_restore,
    is_part,
    is_scratch,
)
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.model.tracking import is_checkpoint_of_ours

CHECK = "leftover"
_SHOWN = 3


async def check_pending(groups: Sequence[Group], scan: Scan, locks: DomainLocks) -> list[Finding]:
    """Report the groups' backups that were started and not finished."""
    return [
        await judge_pending(found, locks)
        for found in scan.pending
        if any(group.includes(found.pending.domain_name) for group in groups)
    ]


async def judge_pending(found: FoundPending, locks: DomainLocks) -> Finding:
    """Report a backup as running, if its domain's lock is held, or as killed."""
    pending = found.pending
    is_running = await locks.is_domain_locked(lock_name(pending))
    if is_running:
        message = f"backup {pending.name} is running"
        return Finding(Level.INFO, CHECK, pending.domain_name, message, code="backup_running")
    message = f"backup {pending.name} was killed: {found.path}"
    advice = "Run `virtbackup clean -b` to undo it."
    return Finding(Level.PROBLEM, CHECK, pending.domain_name, message, advice, code="backup_killed")


async def check_notes(host: Host) -> tuple[Notes, list[Finding]]:
    """Return the notes, and findings about the directory or a single note.

    A note with a pending file is reported by the check of that file.
    """
    subject = str(host.notes.state_directory)
    try:
        notes = await host.read_notes()
    except StorageError as error:
        finding = Finding(
            Level.PROBLEM, CHECK, subject, error.message, error.hint, code="notes_unreadable"
        )
        return Notes(()), [finding]
    advice = "See what became of the domain, then remove the note."
    findings = [
        Finding(
            Level.PROBLEM,
            CHECK,
            subject,
            f"a note cannot be read: {problem}",
            advice,
            code="note_unreadable",
        )
        for problem in notes.problems
    ]
    forgotten = await to_thread.run_sync(_without_pending_file, notes)
    findings += [await _judge_note(note, host.images) for note in forgotten]
    return notes, findings


def _without_pending_file(notes: Notes) -> list[Note]:
    return [note for note in notes.notes if not os.path.lexists(note.pending_path)]


async def _judge_note(note: Note, locks: DomainLocks) -> Finding:
    """Report a backup as just starting or ending, or as killed."""
    pending = note.pending
    place = TargetFile(note.target, note.pending_path.parent.name)
    message = f"backup {pending.name} into {place} was begun on this host"
    is_running = await locks.is_domain_locked(lock_name(pending))
    if is_running:
        return Finding(
            Level.INFO, CHECK, pending.domain_name, f"{message}, and runs", code="backup_running"
        )
    message += " and killed, and its pending file is gone"
    advice = "Run `virtbackup clean -b` to undo it."
    return Finding(Level.PROBLEM, CHECK, pending.domain_name, message, advice, code="backup_killed")


async def check_domain(domain: DomainPort) -> list[Finding]:
    """Report block jobs, and snapshots and checkpoints of other programs."""
    findings = []
    jobs = sorted((await domain.sources()).devs_with_block_job)
    if jobs:
        message = f"a block job works on {', '.join(jobs)}, which a backup would leave out"
        advice = "Wait for it, or end it with virsh blockjob --abort."
        findings.append(
            Finding(Level.PROBLEM, CHECK, domain.name, message, advice, code="block_job")
        )
    for noun, names in await _metadata(domain):
        shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        message = f"has {noun} of another program, which are not backed up: {shown}"
        findings.append(Finding(Level.INFO, CHECK, domain.name, message, code="foreign_metadata"))
    return findings


async def _metadata(domain: DomainPort) -> list[tuple[str, Sequence[str]]]:
    found: list[tuple[str, Sequence[str]]] = []
    for noun, read in (
        ("snapshots", domain.snapshot_names),
        ("checkpoints", domain.checkpoint_names),
    ):
        try:
            names = await read()
        except HypervisorError:
            continue  # an older libvirt has none
        foreign = [name for name in names if not is_checkpoint_of_ours(name)]
        if foreign:
            found.append((noun, foreign))
    return found


async def images_at_work(
    hypervisor: HypervisorPort, names: Iterable[str], locks: DomainLocks
) -> frozenset[Path]:
    """Return the images of all domains whose lock is held, under any configuration.

    The overlays of such a backup may be named in a target that this configuration lacks.
    """
    found: set[Path] = set()
    for name in names:
        with suppress(VirtBackupError):
            domain = await hypervisor.domain(name)
            if await locks.is_domain_locked(domain.uuid):
                sources = domain_xml.disk_sources((await domain.info()).xml)
                found.update(map(image_beside, sources.values()))
    return frozenset(found)


class _Kind(Struct, frozen=True):
    """The finding for one kind of file."""

    level: Level
    code: str
    message: str
    advice: str | None = None


_KEPT = _Kind(Level.INFO, "image_kept", "kept by a restore in place, as it was before")
_LEFT = _Kind(
    Level.WARNING,
    "image_left",
    "left by a restore in place",
    "Run the restore again; then remove it, if nobody needs it.",
)
_PART = _Kind(
    Level.PROBLEM,
    "restore_part",
    "a part that a restore was writing when it died, or is writing now",
    "Run that restore again, or, if none runs, remove it.",
)
_SCRATCH = _Kind(
    Level.PROBLEM,
    "scratch_left",
    "a scratch image that no pending file and no note of this host names",
    "Nothing in it is missing in the image: if no backup runs, remove it.",
)
_OVERLAY = _Kind(
    Level.PROBLEM,
    "overlay_left",
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
                    finding = Finding(
                        kind.level, CHECK, str(path), kind.message, kind.advice, code=kind.code
                    )
                    findings.append(finding)
    return findings


def _kind_of(path: Path) -> _Kind | None:
    """Return the kind of a file; None if this program did not make it."""
    if is_kept(path.name):
        return _KEPT
    if is_of_restore(path):
        return _LEFT
    if not is_marked(path):
        return None
    if is_part(path):
        return _PART
    return _SCRATCH if is_scratch(path) else _OVERLAY
