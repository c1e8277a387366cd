"""The disks of a domain: which can be backed up, from which images, and the space for overlays."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from virtbackup_async.config.schema import Group
from virtbackup_async.engine.backup.selection import IN_PLAIN_TEXT, Selection, select_disks
from virtbackup_async.engine.backup.state import missing
from virtbackup_async.engine.backup.tracking import read_image_head, why_untrackable
from virtbackup_async.engine.host_state import Host
from virtbackup_async.engine.plan import PlannedBackup
from virtbackup_async.engine.point_in_time.open import is_pulled
from virtbackup_async.engine.point_in_time.pull_paths import plan_pull
from virtbackup_async.engine.ports import HypervisorPort
from virtbackup_async.errors import HypervisorError, StorageError, VirtBackupError
from virtbackup_async.events import Finding, Level
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.model import host_paths
from virtbackup_async.model.amounts import size
from virtbackup_async.model.domain import NOT_WANTED, BackingImage, Disk, DomainInfo
from virtbackup_async.model.packager import type_of
from virtbackup_async.model.tracking import is_checkpoint_of_ours

CHECK = "disk"
USUAL_SKIPS = (
    "a cdrom",
    "a floppy",
    NOT_WANTED,
    *(f"a {kind} device of the host" for kind in ("pci", "usb", "mdev")),
)
_ANY_NAME = "0" * 8
OVERLAY_LEAST_BYTES = 256 * 1024**2
OVERLAY_USUAL_BYTES = 1024**3


async def check_disks(
    hypervisor: HypervisorPort, info: DomainInfo, planned: PlannedBackup, host: Host
) -> list[Finding]:
    """Choose the disks as a backup would, and open each image of their chains.

    Disks that QEMU exports are not opened: they need not be files.
    """
    try:
        pull, warning = await is_pulled(hypervisor, planned.group, info, planned.disks)
        selection = await select_disks(info, planned.disks, host, pull=pull)
    except VirtBackupError as error:
        message = error.within(info.name)
        return [
            Finding(Level.PROBLEM, CHECK, info.name, message, error.hint, code="disks_unusable")
        ]
    findings = [
        *_broken(info, selection),
        *_left_out(info, selection),
        *_in_plain_text(info, selection),
        *_missing_state(info, selection),
        *_needed(info),
    ]
    if warning is not None:
        findings.append(
            Finding(
                Level.WARNING,
                CHECK,
                info.name,
                warning,
                "Set `method: snapshot`.",
                code="method_changed",
            )
        )
    if pull and type_of(planned.group.packager).is_incremental:
        has_checkpoint = await _has_checkpoint(hypervisor, info)
        findings += [
            finding
            async for finding in _untrackable(
                host.images, info, selection, planned.group, has_checkpoint=has_checkpoint
            )
        ]
    if pull and info.is_active:
        return findings + await _check_pull(host.images, info, selection, planned.group)
    for disk in selection.disks:
        own = (BackingImage(disk.path, disk.format), *disk.backing)
        findings.append(
            await _check_chain(host.images, info, disk.dev, selection.chains.get(disk.dev, own))
        )
        if info.is_active:
            findings.append(await _check_room(host.images, info.name, disk))
    return findings


async def _has_checkpoint(hypervisor: HypervisorPort, info: DomainInfo) -> bool:
    """Return whether libvirt knows a checkpoint of this program; an older libvirt has none."""
    with suppress(HypervisorError):
        domain = await hypervisor.domain(info.name)
        return any(map(is_checkpoint_of_ours, await domain.checkpoint_names()))
    return False


async def _untrackable(
    images: ImageHost,
    info: DomainInfo,
    selection: Selection,
    group: Group,
    *,
    has_checkpoint: bool,
) -> AsyncIterator[Finding]:
    """Report disks that are read in full each time, and snapshots that cannot be reverted to."""
    tracks_all = group.track_with_snapshots
    for dev, chain in selection.chains.items():
        image = Disk(dev, chain[0].path, chain[0].format)
        head = await read_image_head(images, image)
        reason = why_untrackable(info, image, head, with_snapshots=tracks_all)
        if reason is not None:
            message = f"{dev} is read in full by each backup: {reason}"
            yield Finding(Level.INFO, CHECK, info.name, message, code="disk_read_in_full")
        if head is not None and head.snapshots and (tracks_all or has_checkpoint):
            message = f"{dev} holds internal snapshots, which a dirty bitmap keeps from reverting"
            page = "docs/explanation/incremental.md"
            advice = f"Before `virsh snapshot-revert`, remove the checkpoint: see {page}."
            yield Finding(
                Level.WARNING, CHECK, info.name, message, advice, code="internal_snapshots"
            )


async def _check_pull(
    images: ImageHost, info: DomainInfo, selection: Selection, group: Group
) -> list[Finding]:
    rooms = []
    try:
        job = await plan_pull(images, info, selection.disks, group.scratch, _ANY_NAME)
        for dev, scratch in job.scratch.items():
            directory = (await images.real_path(scratch)).parent
            free_bytes = await images.free_bytes(directory)
            rooms.append(judge_room(info.name, dev, directory, free_bytes, what="scratch image"))
    except HypervisorError as error:
        message = error.within(info.name)
        return [
            Finding(Level.PROBLEM, CHECK, info.name, message, error.hint, code="scratch_refused")
        ]
    except StorageError as error:
        return [
            Finding(
                Level.PROBLEM,
                CHECK,
                info.name,
                error.message,
                "Correct `scratch`.",
                code="scratch_unusable",
            )
        ]
    served = [
        Finding(
            Level.OK,
            CHECK,
            info.name,
            f"{disk.dev}: served by QEMU, {disk.path}",
            code="disk_served",
        )
        for disk in selection.disks
    ]
    return [*served, *rooms]


def _broken(info: DomainInfo, selection: Selection) -> Iterator[Finding]:
    for disk in selection.broken:
        reason = disk.error.within(info.name)
        yield Finding(
            Level.PROBLEM,
            CHECK,
            info.name,
            f"{disk.dev}: {reason}",
            disk.error.hint,
            code="disk_broken",
        )


def _left_out(info: DomainInfo, selection: Selection) -> Iterator[Finding]:
    told = {disk.dev for disk in selection.broken}
    for disk in selection.left_out:
        if disk.dev in told:
            continue
        message = f"{disk.dev} is not backed up: {disk.reason}"
        if disk.reason in USUAL_SKIPS:
            yield Finding(Level.INFO, CHECK, info.name, message, code="disk_skipped")
        else:
            advice = "Back up what is on it by other means."
            yield Finding(Level.WARNING, CHECK, info.name, message, advice, code="disk_left_out")


def _in_plain_text(info: DomainInfo, selection: Selection) -> Iterator[Finding]:
    for dev in selection.in_plain_text:
        yield Finding(
            Level.WARNING, CHECK, info.name, f"{dev} {IN_PLAIN_TEXT}", code="disk_in_plain_text"
        )


def _missing_state(info: DomainInfo, selection: Selection) -> Iterator[Finding]:
    for kind, reason in selection.state.missing.items():
        message = missing(info.name, kind, reason).message
        advice = "Without it the restored guest may not start: save it by other means."
        yield Finding(Level.WARNING, "state", info.name, message, advice, code="state_missing")


def _needed(info: DomainInfo) -> Iterator[Finding]:
    paths = host_paths.needed(info.xml)
    if paths:
        message = f"it needs files of the host that no backup holds: {', '.join(paths)}"
        yield Finding(Level.INFO, "state", info.name, message, code="host_files_needed")


async def _check_chain(
    images: ImageHost, info: DomainInfo, dev: str, chain: Sequence[BackingImage]
) -> Finding:
    own, *below = chain
    try:
        size_bytes = (await images.info(own)).virtual_size
        for image in below:
            await images.info(image)
    except VirtBackupError as error:
        message = f"{dev}: {error.message}"
        advice = error.hint or "See that every image of its backing chain is there."
        return Finding(Level.PROBLEM, CHECK, info.name, message, advice, code="chain_broken")
    images_below = f", {len(below)} below it" if below else ""
    message = f"{dev}: {own.format} of {size(size_bytes)}{images_below}, {own.path}"
    return Finding(Level.OK, CHECK, info.name, message, code="disk")


async def _check_room(images: ImageHost, domain: str, disk: Disk) -> Finding:
    try:
        directory = (await images.real_path(disk.path)).parent
        return judge_room(domain, disk.dev, directory, await images.free_bytes(directory))
    except StorageError as error:
        message = f"{disk.dev}: {error.message}"
        return Finding(
            Level.PROBLEM,
            "overlay",
            domain,
            message,
            "Repair the file system.",
            code="overlay_room_unknown",
        )


def judge_room(
    domain: str, dev: str, directory: Path, free_bytes: int, *, what: str = "overlay"
) -> Finding:
    """Judge the space for an overlay, which grows by the guest's writes during the copy.

    A scratch image grows no more than that: by the data that the guest overwrites.
    """
    message = f"{dev}: {size(free_bytes)} free for its {what} in {directory}"
    if free_bytes >= OVERLAY_USUAL_BYTES:
        return Finding(Level.OK, "overlay", domain, message, code="overlay_room")
    level = Level.WARNING if free_bytes >= OVERLAY_LEAST_BYTES else Level.PROBLEM
    advice = (
        "Free some space there: a guest whose writes have no room is paused, or its backup fails."
    )
    return Finding(level, "overlay", domain, message, advice, code="overlay_room_little")
