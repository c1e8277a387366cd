"""Opening a domain's disks at a point in time: the only place that picks the implementation."""

from contextlib import AbstractAsyncContextManager

from msgspec import Struct

from virtbackup_async.engine.point_in_time.interface import (
    Chains,
    DisksRequest,
    PointInTimeDisks,
)
from virtbackup_async.engine.point_in_time.offline import open_offline
from virtbackup_async.engine.point_in_time.offline_nbd import open_offline_nbd
from virtbackup_async.engine.point_in_time.pull_job import open_pull_job
from virtbackup_async.engine.point_in_time.snapshot import open_snapshot
from virtbackup_async.engine.undo.overlay import NoteCommitted, overlaid_disks
from virtbackup_async.events import Phase, PhaseChanged
from virtbackup_async.model.backup import Pending
from virtbackup_async.model.domain import Disk
from virtbackup_async.model.tracking import Tracking


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
