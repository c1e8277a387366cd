"""What an incremental backup may go on from, disk by disk, looked up before anything is touched.

::

    newest backup that names a checkpoint for the disk   --none--> read in full
    same image, not read in full too long ago            --no----> read in full
    libvirt and QEMU still know its changes since        --no----> read in full
    all of it                                            --------> only what changed is read

The reason for a full read goes into the definition; it is no error. Only backups into a repository
are tracked, and only where QEMU serves the disks: ``method: pull``. Of a domain that is shut off,
``qemu-nbd`` does, and the bitmaps are those in its images.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from anyio import to_thread
from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.ports import DomainPort
from virtbackup_async.engine.selection import Selection
from virtbackup_async.images import qemu_img
from virtbackup_async.images.qcow2 import HEAD_BYTES, keeps_bitmaps
from virtbackup_async.model.backup import Definition, DiskRecord
from virtbackup_async.model.domain import BackingImage, Disk, DomainInfo
from virtbackup_async.model.tracking import (
    Base,
    Reading,
    Tracked,
    Tracking,
    checkpoint_name,
    image_id,
)
from virtbackup_async.repository.store import make_repository


class Former(Struct, frozen=True):
    """The newest backup of a disk that names a checkpoint."""

    definition: Definition
    record: DiskRecord
    reading: Reading
    checkpoint: str


async def track(
    catalog: Catalog, domain: DomainPort, info: DomainInfo, selection: Selection, full_since: float
) -> Tracking:
    """Find out what of each disk has to be read.

    Args:
        catalog: of the target.
        domain: locked by the caller.
        info: what libvirt says of it.
        selection: what is about to be backed up.
        full_since: what was last read in full before is read in full; seconds since the epoch.

    Raises:
        HypervisorError: libvirt cannot be asked.
        ImageError: an image of a domain that is shut off cannot be read.
        StorageError: the target cannot be read.
    """
    repository = await to_thread.run_sync(make_repository, catalog.target)
    formers = await newest_checkpoints(catalog, info)
    if info.is_active:
        known = await _known(domain, formers)
    else:
        known = await _stored(formers, selection.chains)
    tracked = {}
    for disk in selection.disks:
        image = replace(disk, format=selection.chains[disk.dev][0].format)
        identity = await to_thread.run_sync(image_id, disk.path) if disk.kind == "file" else None
        unfit = await to_thread.run_sync(why_untrackable, info, image)
        former = formers.get(disk.dev)
        reason = (
            unfit
            or _why_another(disk, identity, former)
            or _why_again(former, full_since)
            or _why_unknown(disk.dev, former, known)
        )
        base = _base(former) if former and not reason else None
        tracked[disk.dev] = Tracked(base, reason, unfit is None, identity)
    is_any = info.is_active and any(disk.checkpoint for disk in tracked.values())
    return Tracking(tracked, checkpoint_name(repository.id) if is_any else None)


def untracked(tracking: Tracking, reason: str) -> Tracking:
    """Return the same disks, all of them to be read in full, without a checkpoint."""
    disks = {
        dev: replace(disk, base=None, reason=reason, checkpoint=False)
        for dev, disk in tracking.disks.items()
    }
    return Tracking(disks)


async def newest_checkpoints(catalog: Catalog, info: DomainInfo) -> Mapping[str, Former]:
    """Return by dev the newest backup of a domain that names a checkpoint for the disk.

    Raises:
        StorageError: the target cannot be read.
    """
    formers: dict[str, Former] = {}
    complete = (await catalog.scan_domain(info.name)).complete
    for found in sorted(complete, key=lambda found: found.definition.date):
        if found.definition.domain_uuid == info.uuid:
            for dev, record in found.definition.records.items():
                reading = record.reading
                if reading is not None and reading.checkpoint is not None:
                    former = Former(found.definition, record, reading, reading.checkpoint)
                    formers[dev] = former
    return formers


async def _known(domain: DomainPort, formers: Mapping[str, Former]) -> frozenset[tuple[str, str]]:
    """Return (checkpoint, dev) for all disks whose changes libvirt and QEMU still know."""
    known: set[tuple[str, str]] = set()
    for checkpoint, definition in {
        former.checkpoint: former.definition for former in formers.values()
    }.items():
        devs = [
            dev
            for dev, record in definition.records.items()
            if record.reading is not None and record.reading.checkpoint == checkpoint
        ]
        good = await domain.recall_checkpoint(checkpoint, definition.date, devs)
        known.update((checkpoint, dev) for dev in good)
    return frozenset(known)


async def _stored(
    formers: Mapping[str, Former], chains: Mapping[str, Sequence[BackingImage]]
) -> frozenset[tuple[str, str]]:
    """Return (checkpoint, dev) for all disks whose image alone has all changes, in its bitmap.

    An image below it with the same bitmap has those from before a snapshot: then only QEMU can
    put them together.
    """
    known = set()
    for dev, chain in chains.items():
        checkpoint = formers[dev].checkpoint if dev in formers else None
        with_it = [
            image
            for image in chain
            if image.format == "qcow2"
            and checkpoint in (await qemu_img.image_info(image.path, "qcow2")).good_bitmaps
        ]
        if checkpoint is not None and with_it == [chain[0]]:
            known.add((checkpoint, dev))
    return frozenset(known)


def why_untrackable(info: DomainInfo, image: Disk) -> str | None:
    """Say why no checkpoint can be made of a disk; None if one can. Blocks.

    Args:
        info: the domain.
        image: the disk, with the format of its image.
    """
    if not info.is_persistent:
        return "libvirt keeps no checkpoints of a transient domain"
    if image.format != "qcow2":
        return f"a {image.format} image cannot keep a dirty bitmap, only qcow2 can"
    if not _keeps_bitmaps(image.path):
        return "its qcow2 version cannot keep a dirty bitmap: see `qemu-img amend -o compat=1.1`"
    return None


def _keeps_bitmaps(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return keeps_bitmaps(file.read(HEAD_BYTES))
    except OSError:
        return True  # QEMU may be able to read it, and will say


def _why_another(disk: Disk, identity: str | None, former: Former | None) -> str | None:
    """Say why it is not the image that was backed up; None if it is."""
    if former is None:
        return "no earlier backup of it has a checkpoint"
    if former.record.image.source != str(disk.path):
        return f"it was on {former.record.image.source} at the last backup"
    if former.reading.image_id != identity:
        return "its image was replaced since the last backup"
    return None


def _why_again(former: Former | None, full_since: float) -> str | None:
    """Say why it is time to read all of a disk again; None if it is not."""
    if former is None:
        return None
    verified = former.definition.verified
    if verified is not None and not verified.ok:
        return f"the backup to go on from, {former.definition.name}, is damaged"
    if former.reading.full_date <= full_since:
        return "it was last read in full as long ago as `full_every` says"
    return None


def _why_unknown(dev: str, former: Former | None, known: frozenset[tuple[str, str]]) -> str | None:
    """Say why nobody knows what changed of a disk; None if it is known."""
    if former is None or (former.checkpoint, dev) in known:
        return None
    return f"libvirt or QEMU lost the dirty bitmap of checkpoint {former.checkpoint}"


def _base(former: Former) -> Base:
    return Base(
        former.definition.name,
        former.record.image.file,
        former.checkpoint,
        former.reading.full_date,
    )
