"""Choosing the method of a backup, and opening the domain's disks by it.

The configured method counts if it is possible::

    configured   domain is shut off    libvirt or QEMU too old     else
    snapshot     copy                  snapshot                    snapshot
    pull         pull, by qemu-nbd     snapshot, with a warning    pull
    auto         pull, into a          snapshot                    pull, into a repository or if a
                 repository or if a                                wanted disk has no other way;
                 wanted disk has no                                else snapshot
                 other way; else copy

For a repository, auto is the default: only a pull reports the changes. Otherwise snapshot is: it
keeps qcow2 images as the files that they are, with all their features, and needs no scratch space.
A pull reads the data that the guest sees, so its images are raw; but the guest stays on its own
image, and every disk that QEMU can read can be pulled.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from msgspec import Struct

from virtbackup_async.config.schema import Group
from virtbackup_async.engine.point_in_time.interface import (
    Chains,
    DisksRequest,
    PointInTimeDisks,
)
from virtbackup_async.engine.point_in_time.offline import open_offline, open_offline_nbd
from virtbackup_async.engine.point_in_time.pull_job import open_pull_job
from virtbackup_async.engine.point_in_time.snapshot import open_snapshot
from virtbackup_async.engine.ports import HypervisorPort
from virtbackup_async.engine.undo.overlay import NoteCommitted, overlaid_disks
from virtbackup_async.events import Phase, PhaseChanged
from virtbackup_async.model import domain_xml
from virtbackup_async.model.backup import Pending
from virtbackup_async.model.domain import Disk, DomainInfo, HostVersions
from virtbackup_async.model.packager import type_of
from virtbackup_async.model.pull import Method
from virtbackup_async.model.tracking import Tracking

# Earlier ones need an experimental capability for it.
MIN_LIBVIRT = (7, 6, 0)
MIN_QEMU = (6, 1, 0)


async def is_pulled(
    hypervisor: HypervisorPort, group: Group, info: DomainInfo, wanted: Sequence[str]
) -> tuple[bool, str | None]:
    """Return whether a domain is backed up by pull, and a warning if that is not as configured.

    Args:
        hypervisor: asked for its versions if they matter.
        group: has the configured method and packager.
        info: the domain.
        wanted: disk targets; empty for all that can be backed up.
    """
    if group.method is Method.SNAPSHOT:
        return False, None
    is_better = group.method is Method.PULL or type_of(group.packager).is_incremental
    if not (is_better or _needs_pull(info, wanted)):
        return False, None
    if not info.is_active:
        return True, None
    why = _too_old(await hypervisor.versions())
    if why is None:
        return True, None
    return False, f"{why}: its disks are snapshotted instead"


def _needs_pull(info: DomainInfo, wanted: Sequence[str]) -> bool:
    by_copy, by_pull = (
        {disk.dev for disk in domain_xml.disks_of(info, pull=pull)[0]} for pull in (False, True)
    )
    only_by_pull = by_pull - by_copy
    return bool(only_by_pull & set(wanted) if wanted else only_by_pull)


def _too_old(versions: HostVersions) -> str | None:
    for name, found, needed in (
        ("libvirt", versions.libvirt, MIN_LIBVIRT),
        ("QEMU", versions.hypervisor, MIN_QEMU),
    ):
        if found < needed:
            text, least = (".".join(map(str, version)) for version in (found, needed))
            return f"{name} {text} cannot serve disks, it takes {least}"
    return None


class WantedDisks(Struct, frozen=True):
    """The disks to open, and by which method.

    Attributes:
        is_active: whether the domain runs.
        pull: whether QEMU exports the disks.
        disks: all of them.
        chains: the images of the disks that QEMU exports.
        tracking: the facts about their changes.
    """

    is_active: bool
    pull: bool
    disks: tuple[Disk, ...]
    chains: Chains
    tracking: Tracking


def open_disks(
    request: DisksRequest, wanted: WantedDisks, pending: Pending, note: NoteCommitted
) -> AbstractAsyncContextManager[PointInTimeDisks]:
    """Open the disks of a domain; the end of the block releases them all.

    Args:
        request: the domain.
        wanted: the disks.
        pending: names the overlays, or the pull job, that this creates.
        note: records that an overlay is committed.

    Raises:
        HypervisorError: libvirt refused; nothing was created.
        RollbackError: at the end, a disk could not be released; the pending file must stay.
    """
    if not wanted.is_active:
        if wanted.pull:
            return open_offline_nbd(
                request.images, request.domain, wanted.disks, wanted.chains, wanted.tracking
            )
        return open_offline(request.images, request.domain, wanted.disks)
    request.emit(PhaseChanged(request.domain.name, Phase.FREEZING))
    job = pending.pull_job
    if job is not None:
        return open_pull_job(request, job, wanted.tracking)
    return open_snapshot(request, pending.name, overlaid_disks(pending, of_this_run=True), note)
