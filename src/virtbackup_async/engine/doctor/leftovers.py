"""What killed backups and other programs left: pending files, overlays, snapshots, block jobs."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from anyio import to_thread

from virtbackup_async.catalog.host_notes import Notes
from virtbackup_async.catalog.names import is_kept
from virtbackup_async.catalog.scanning import FoundPending, Scan
from virtbackup_async.config.schema import Group
from virtbackup_async.engine.locks import is_held
from virtbackup_async.engine.ports import DomainPort, HypervisorPort
from virtbackup_async.engine.selection import is_overlay_of_ours
from virtbackup_async.engine.swap import is_of_restore
from virtbackup_async.errors import HypervisorError, VirtBackupError
from virtbackup_async.events import Finding, Level
from virtbackup_async.model import domain_xml
from virtbackup_async.model.tracking import is_checkpoint_of_ours

CHECK = "leftover"
_SHOWN = 3


async def check_pending(groups: Sequence[Group], scan: Scan, lock_directory: Path) -> list[Finding]:
    """Say which backups of the groups' domains were begun and not ended."""
    return [
        await judge_pending(found, lock_directory)
        for found in scan.pending
        if any(group.includes(found.pending.domain_name) for group in groups)
    ]


async def judge_pending(found: FoundPending, lock_directory: Path) -> Finding:
    """Tell a backup that runs, and holds its domain's lock, from one that was killed."""
    pending = found.pending
    is_running = await to_thread.run_sync(is_held, lock_directory, pending.domain_uuid or "")
    if is_running:
        message = f"backup {pending.name} is running"
        return Finding(Level.INFO, CHECK, pending.domain_name, message)
    message = f"backup {pending.name} was killed: {found.path}"
    advice = "Run `virtbackup clean -b` to undo it."
    return Finding(Level.PROBLEM, CHECK, pending.domain_name, message, advice)


async def check_domain(domain: DomainPort) -> list[Finding]:
    """Look for block jobs, snapshots and checkpoints that are not of our backups."""
    findings = []
    jobs = sorted((await domain.sources()).devs_with_block_job)
    if jobs:
        message = f"a block job works on {', '.join(jobs)}: a backup would be refused"
        advice = "Wait for it, or end it with virsh blockjob --abort."
        findings.append(Finding(Level.PROBLEM, CHECK, domain.name, message, advice))
    for noun, names in await _metadata(domain):
        shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        message = f"has {noun} of another program, which are not backed up: {shown}"
        findings.append(Finding(Level.INFO, CHECK, domain.name, message))
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
    hypervisor: HypervisorPort, names: Iterable[str], lock_directory: Path
) -> frozenset[Path]:
    """Return the images of all domains that somebody works on now, by whatever configuration.

    A backup's overlays are beside them, and in a pending file of a target that we do not know.
    """
    found: set[Path] = set()
    for name in names:
        with suppress(VirtBackupError):
            domain = await hypervisor.domain(name)
            if await to_thread.run_sync(is_held, lock_directory, domain.uuid):
                sources = domain_xml.disk_sources((await domain.info()).xml)
                found.update(map(_below_overlay, sources.values()))
    return frozenset(found)


def _below_overlay(path: Path) -> Path:
    return path.with_name(path.name.rpartition(".vbk-")[0]) if is_overlay_of_ours(path) else path


async def check_overlays(
    images: Iterable[Path], scans: Iterable[Scan], notes: Notes, at_work: frozenset[Path]
) -> list[Finding]:
    """Look beside the images for overlays that neither a pending file nor a note names.

    Nor may anybody work on them.
    """
    told = [found.pending for scan in scans for found in scan.pending]
    told += [note.pending for note in notes.notes]
    known = {
        Path(disk.snapshot) for pending in told for disk in pending.disks.values() if disk.snapshot
    }
    directories = sorted({image.parent for image in images})
    return await to_thread.run_sync(lambda: list(_strays(directories, known, at_work)))


def _strays(
    directories: Sequence[Path], known: set[Path], at_work: frozenset[Path]
) -> Iterator[Finding]:
    for directory in directories:
        try:
            paths = sorted(directory.iterdir())
        except OSError:
            continue  # told already, where its image was looked at
        for path in paths:
            if is_kept(path.name):
                yield _finding(Level.INFO, path, "kept by a restore in place, as it was before")
            elif is_of_restore(path):
                advice = "Run the restore again; then remove it, if nobody needs it."
                yield _finding(Level.WARNING, path, "left by a restore in place", advice)
            elif (
                is_overlay_of_ours(path)
                and path not in known
                and _below_overlay(path) not in at_work
            ):
                message = "an overlay that no pending file of these targets names"
                advice = "It may hold what a guest wrote: look with virsh domblklist who uses it."
                yield _finding(Level.PROBLEM, path, message, advice)


def _finding(level: Level, path: Path, message: str, advice: str | None = None) -> Finding:
    return Finding(level, CHECK, str(path), message, advice)
