"""Predicts the bytes that a backup would read, and whether they fit: ``backup --dry-run``.

Nothing is touched: it freezes no guest, makes no bitmap, writes no file and takes no lock. It asks
libvirt and the images the same questions as the backup, by the same functions. The backup can
differ for two reasons. The guest can write more until then. And QEMU can still have a bitmap whose
checkpoint libvirt forgot, which only a change of libvirt's records would show.
"""

from collections.abc import Mapping, Sequence

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.engine.backup.definition import method_of
from virtbackup_async.engine.backup.inspection import (
    Inspection,
    is_tracked,
    select_of,
    tracking_rules,
)
from virtbackup_async.engine.backup.session import (
    ALLOW_EMPTY_HINT,
    BackupRequest,
    failed_event,
    missing_event,
    plan_run,
)
from virtbackup_async.engine.backup.tracking import find_readings, lost_bitmap
from virtbackup_async.engine.outcome import known_error
from virtbackup_async.engine.plan import PlannedBackup, target_of
from virtbackup_async.engine.ports import DomainPort
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import BackupsFailedError, ImageError, RollbackError
from virtbackup_async.events import BackupFailed, DiskPlanned, RunStarted, TargetPlanned, Warned
from virtbackup_async.files.directories import check_target
from virtbackup_async.files.mounts import space_at
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.model.domain import BackingImage, Disk
from virtbackup_async.model.packager import type_of
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.tracking import Base, Tracked, Tracking
from virtbackup_async.repository import open_inner

_FULL_PERCENT = 100


class BackupPreview(Struct, frozen=True):
    """The prediction of a backup.

    Attributes:
        disks: how each disk would be read, and how much of it.
        targets: whether all the data fits into each.
        failed: domains that could not be backed up.
    """

    disks: tuple[DiskPlanned, ...]
    targets: tuple[TargetPlanned, ...]
    failed: tuple[BackupFailed, ...]


async def run_preview(runtime: Runtime, request: BackupRequest) -> BackupPreview:
    """Predict what :func:`run_backup` would do with the same request.

    Emits a ``DiskPlanned`` for each disk, a ``TargetPlanned`` for each target, and a
    ``BackupFailed`` for each domain that could not be backed up.

    Raises:
        BackupsFailedError: there is nothing to back up, and that is not allowed.
        NotFoundError: a name is neither a group of the configuration nor a domain of one.
        ConfigError: a named domain is in groups with several targets.
        HypervisorError: the domains cannot be listed.
    """
    runtime, recording = runtime.recording(DiskPlanned, TargetPlanned, BackupFailed)
    plan = await plan_run(runtime, request)
    runtime.emit(RunStarted("backup", tuple(dict.fromkeys(one.domain for one in plan.backups))))
    for missing in plan.missing:
        runtime.emit(missing_event(missing))
    targets: dict[StorageLocation, _Target] = {}
    for planned in plan.backups:
        target = targets.setdefault(target_of(planned.group), _Target())
        await _preview(runtime, planned, target)
    for path, target in targets.items():
        runtime.emit(await _of_target(path, target))
    if plan.is_empty and not request.allow_empty:
        message = f"nothing would be backed up: {plan.emptiness}"
        raise BackupsFailedError(message, hint=ALLOW_EMPTY_HINT)
    return BackupPreview(
        recording.of(DiskPlanned), recording.of(TargetPlanned), recording.of(BackupFailed)
    )


class _Target(Struct):
    """The data that would go into a target; ``is_known`` as long as every amount is known."""

    backups: int = 0
    read_bytes: int = 0
    is_known: bool = True
    may_shrink: bool = False


async def _preview(runtime: Runtime, planned: PlannedBackup, target: _Target) -> None:
    """Emit the prediction for one domain's backup, or why there would be none."""
    try:
        await to_thread.run_sync(_check_target, target_of(planned.group))
        disks = await _disks_of(runtime, planned)
    except RollbackError as error:
        message = f"{error.within(planned.domain)}: the backup undoes that before it reads"
        runtime.emit(Warned(message, planned.domain))
        target.is_known = False
        return
    except Exception as error:  # noqa: BLE001 -- no error must hide the other domains
        runtime.emit(failed_event(planned, known_error(planned.domain, error)))
        return
    target.backups += 1
    packager = planned.group.packager
    target.may_shrink |= type_of(packager).may_shrink(packager.opts)
    for disk in disks:
        target.is_known &= disk.read_bytes is not None
        target.read_bytes += disk.read_bytes or 0
        runtime.emit(disk)


def _check_target(target: StorageLocation) -> None:
    if target.is_local:
        check_target(target.directory)
    else:
        open_inner(target).names("", ())


async def _of_target(place: StorageLocation, target: _Target) -> TargetPlanned:
    path = str(place)
    try:
        free_bytes = await to_thread.run_sync(_free_bytes, place)
    except OSError:
        free_bytes = None
    if free_bytes is None:
        return TargetPlanned(path, target.backups, target.read_bytes, None, None)
    fits: bool | None = target.read_bytes <= free_bytes
    if (fits and not target.is_known) or (not fits and target.may_shrink):
        fits = None
    return TargetPlanned(path, target.backups, target.read_bytes, free_bytes, fits)


def _free_bytes(place: StorageLocation) -> int | None:
    return space_at(place.directory).free_bytes if place.is_local else None


async def _disks_of(runtime: Runtime, planned: PlannedBackup) -> Sequence[DiskPlanned]:
    domain = await runtime.hypervisor.domain(planned.domain)
    images, catalog = runtime.host.images, runtime.host.catalog(target_of(planned.group))
    if await images.is_domain_locked(domain.uuid):
        runtime.emit(Warned("another process works on it now", domain.name))
    info, selection = await select_of(runtime, planned, domain)
    changes = _Changes(domain)
    tracked: Mapping[str, Tracked] = {}
    if is_tracked(planned, selection):
        rules = tracking_rules(runtime, planned)
        tracked = await find_readings(images, catalog, info, selection, rules, changes.ask)
    inspection = Inspection(images, domain, catalog, info, selection, Tracking(tracked))
    planner = _Planner(planned, inspection, changes)
    return [await planner.plan(disk) for disk in selection.disks]


class _Changes:
    """The facts about checkpoints that libvirt has without a change of its records."""

    def __init__(self, domain: DomainPort) -> None:
        self._domain = domain
        self.bytes_of: dict[tuple[str, str], int] = {}
        self.forgotten: set[str] = set()

    async def ask(self, name: str, _date: int, devs: Sequence[str]) -> frozenset[str]:
        """Return the disks whose bitmap QEMU still has, as ``redefine_checkpoint`` does."""
        found = await self._domain.changed_bytes(name)
        if found is None:
            self.forgotten.add(name)
            return frozenset()
        self.bytes_of.update({(name, dev): found[dev] for dev in devs if dev in found})
        return frozenset(found) & frozenset(devs)

    def reason(self, reason: str | None) -> str | None:
        """Return the reason for a full read, with a doubt if libvirt forgot the checkpoint."""
        for name in self.forgotten:
            if reason == lost_bitmap(name):
                return f"{reason}, or libvirt alone did: then only the changes are read"
        return reason


class _Size(Struct, frozen=True):
    """The size of a disk, and how much of it holds data; None if unknown."""

    virtual_bytes: int | None
    data_bytes: int | None


class _Planner(Struct, frozen=True):
    """Predicts how each disk of a domain would be read."""

    planned: PlannedBackup
    inspection: Inspection
    changes: _Changes

    async def plan(self, disk: Disk) -> DiskPlanned:
        size = await _size_of(self.inspection.images, disk, self._chain(disk))
        tracked = self.inspection.tracking.disks.get(disk.dev)
        base = tracked.base if tracked is not None else None
        reason = self._why_untracked() if tracked is None else tracked.reason
        return DiskPlanned(
            self.planned.group.name,
            self.planned.domain,
            disk.dev,
            method_of(self.inspection),
            incremental=base is not None,
            base=base.backup if base is not None else None,
            reason=self.changes.reason(reason),
            size_bytes=size.virtual_bytes,
            read_bytes=size.data_bytes if base is None else self._changed_bytes(disk, base, size),
        )

    def _chain(self, disk: Disk) -> Sequence[BackingImage]:
        own = self.inspection.selection.chains.get(disk.dev)
        return own or (BackingImage(disk.path, disk.format), *disk.backing)

    def _why_untracked(self) -> str:
        group, selection = self.planned.group, self.inspection.selection
        if not type_of(group.packager).is_incremental:
            return f"packager {group.packager.type} takes over nothing from earlier backups"
        if not selection.pull:
            return "only `method: pull` knows what changed"
        return "its data is encrypted: it is copied as the files that it is"

    def _changed_bytes(self, disk: Disk, base: Base, size: _Size) -> int | None:
        """Return the bytes changed since the base, and audited; None if only QEMU knows them."""
        changed = self.changes.bytes_of.get((base.checkpoint, disk.dev))
        if changed is None:
            return None
        changed += sum(extent.length for extent in base.changed)
        unchanged = max(0, (size.data_bytes or 0) - changed)
        return changed + int(unchanged * self.planned.group.audit_percent / _FULL_PERCENT)


async def _size_of(images: ImageHost, disk: Disk, chain: Sequence[BackingImage]) -> _Size:
    """Measure the images of a disk; if only QEMU can open them, their size is unknown."""
    try:
        if len(chain) == 1 and disk.kind == "file":
            chain = await images.chain(chain[0], disk.told)
        infos = [await images.info(image) for image in chain]
    except ImageError:
        return _Size(None, None)
    virtual_bytes = infos[0].virtual_size
    if disk.kind != "file":
        return _Size(virtual_bytes, virtual_bytes)  # the holes of a block device are unknown
    data_bytes = sum(info.actual_size for info in infos)
    return _Size(virtual_bytes, data_bytes)
