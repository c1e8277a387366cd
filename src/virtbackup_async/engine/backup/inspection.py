"""The facts about a domain that its backup starts from; nothing is touched to learn them.

Whatever the backup will not hold is reported here, before it is made.
"""

from msgspec import Struct

from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.backup.selection import IN_PLAIN_TEXT, Selection, select_disks
from virtbackup_async.engine.backup.state import missing
from virtbackup_async.engine.backup.tracking import TrackingRules, track
from virtbackup_async.engine.domain_states import SAVED, check_free, check_snapshot
from virtbackup_async.engine.plan import PlannedBackup
from virtbackup_async.engine.point_in_time.interface import NOT_QUIESCED
from virtbackup_async.engine.point_in_time.open import is_pulled
from virtbackup_async.engine.ports import DomainPort
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.events import DiskSkipped, Emit, Warned
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.model.domain import DomainInfo
from virtbackup_async.model.packager import type_of
from virtbackup_async.model.tracking import Tracking


class Inspection(Struct, frozen=True):
    """The facts about a domain.

    Attributes:
        images: the machine that has its images.
        domain: the domain; the caller holds its lock.
        catalog: the definitions and pending files of the target.
        info: what libvirt reports of the domain.
        selection: the disks to back up, and the domain's state.
        tracking: how each disk is to be read; empty if disks are always read in full.
    """

    images: ImageHost
    domain: DomainPort
    catalog: Catalog
    info: DomainInfo
    selection: Selection
    tracking: Tracking


async def inspect_domain(
    runtime: Runtime, planned: PlannedBackup, domain: DomainPort, catalog: Catalog
) -> Inspection:
    """Choose the method and the disks of a backup, and report what it will not hold.

    Raises:
        HypervisorError: the domain cannot be backed up in its present state.
        VirtBackupError: no disk can be backed up, or the target cannot be read.
    """
    info, selection = await select_of(runtime, planned, domain)
    tracking = Tracking()
    if is_tracked(planned, selection):
        rules = tracking_rules(runtime, planned)
        tracking = await track(runtime.host.images, catalog, domain, info, selection, rules)
    return Inspection(runtime.host.images, domain, catalog, info, selection, tracking)


async def select_of(
    runtime: Runtime, planned: PlannedBackup, domain: DomainPort
) -> tuple[DomainInfo, Selection]:
    """Return what libvirt reports of a domain, and the disks to back up; changes nothing.

    Errors are those of :func:`inspect_domain`.
    """
    info = await domain.info()
    pull = await _is_pulled(runtime, planned, info)
    selection = await select_disks(info, planned.disks, runtime.host, pull=pull)
    _report(runtime.emit, info, selection)
    if info.is_active:
        if not pull:
            check_snapshot(info)
        await check_free(domain, [disk.dev for disk in selection.disks])
    return info, selection


def is_tracked(planned: PlannedBackup, selection: Selection) -> bool:
    """Return whether disks can be read incrementally: if QEMU serves them, for a repository."""
    return selection.pull and type_of(planned.group.packager).is_incremental


async def _is_pulled(runtime: Runtime, planned: PlannedBackup, info: DomainInfo) -> bool:
    pull, warning = await is_pulled(runtime.hypervisor, planned.group, info, planned.disks)
    if warning is not None:
        runtime.emit(Warned(warning, info.name))
    return pull


def _report(emit: Emit, info: DomainInfo, selection: Selection) -> None:
    for skipped in selection.left_out:
        emit(DiskSkipped(info.name, skipped.dev, skipped.reason))
    for kind, reason in selection.state.missing.items():
        emit(missing(info.name, kind, reason))
    for disk in selection.broken:
        error = disk.error.sentences_within(info.name)
        emit(Warned(f"{disk.dev} will not be in the backup: {error}", info.name))
    for dev in selection.in_plain_text:
        emit(Warned(f"{dev} {IN_PLAIN_TEXT}", info.name))
    if info.is_saved:
        emit(Warned(f"{NOT_QUIESCED}: {SAVED}", info.name))


def tracking_rules(runtime: Runtime, planned: PlannedBackup) -> TrackingRules:
    """Return the rules of a backup's group for incremental reads."""
    group = planned.group
    full_since = (runtime.now() - group.full_every).timestamp() if group.full_every else 0
    return TrackingRules(full_since, with_snapshots=group.track_with_snapshots)
