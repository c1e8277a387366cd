"""Decides how each disk is to be read, in full or incrementally, before anything is touched.

::

    newest backup that names a checkpoint for the disk      --none--> full read
    same image, and nobody wrote to its backing files       --no----> full read
    an intact base, whose changes since are in the bitmap,
    with a full read that is not too old (``bases.py``)     --none--> full read
    libvirt and QEMU still have the bitmap                  --no----> full read
    all of it                                               --------> incremental read

The definition records the reason for a full read; it is not an error. Tracking needs a repository,
and disks that QEMU exports: ``method: pull``. If the domain is shut off, ``qemu-nbd`` exports them,
with the bitmaps that are stored in its images.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from anyio import to_thread
from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.backup.bases import Candidates, CheckpointedBackup, find_candidates
from virtbackup_async.engine.backup.selection import Selection
from virtbackup_async.engine.ports import DomainPort
from virtbackup_async.errors import ImageError
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.images.identity import is_same_backing, is_same_image
from virtbackup_async.model.domain import BackingImage, Disk, DomainInfo
from virtbackup_async.model.tracking import (
    Base,
    Tracked,
    Tracking,
    checkpoint_name,
    is_checkpoint_of_ours,
)
from virtbackup_async.qemu.qcow2 import Qcow2Head
from virtbackup_async.repository import make_repository

AskForBitmaps = Callable[[str, int, Sequence[str]], Awaitable[frozenset[str]]]

_WITH_BITMAPS: Final = 3


class TrackingRules(Struct, frozen=True):
    """The configuration's rules for incremental backups.

    Attributes:
        full_since: a disk last read in full before this is read in full; seconds since the epoch.
        with_snapshots: whether images with internal snapshots get checkpoints.
    """

    full_since: float = 0
    with_snapshots: bool = False


async def track(  # noqa: PLR0913, PLR0917 -- the facts about a domain, one by one
    images: ImageHost,
    catalog: Catalog,
    domain: DomainPort,
    info: DomainInfo,
    selection: Selection,
    rules: TrackingRules,
) -> Tracking:
    """Find out which parts of each disk have to be read; make the repository if there is none.

    Args:
        images: the machine that has the images.
        catalog: the definitions of the target.
        domain: the domain; the caller holds its lock.
        info: what libvirt reports of it.
        selection: the disks that are about to be backed up.
        rules: the configuration's rules.

    Raises:
        HypervisorError: libvirt cannot be asked.
        ImageError: an image of a domain that is shut off cannot be read.
        StorageError: the target cannot be read.
    """
    repository = await to_thread.run_sync(make_repository, catalog.target)
    asked = domain.redefine_checkpoint
    tracked = await find_readings(images, catalog, info, selection, rules, asked)
    is_any = info.is_active and any(disk.checkpoint for disk in tracked.values())
    return Tracking(tracked, checkpoint_name(repository.id) if is_any else None)


async def find_readings(  # noqa: PLR0913, PLR0917 -- the facts about a domain, one by one
    images: ImageHost,
    catalog: Catalog,
    info: DomainInfo,
    selection: Selection,
    rules: TrackingRules,
    ask: AskForBitmaps,
) -> dict[str, Tracked]:
    """Find out which parts of each disk have to be read, by dev; changes nothing itself.

    ``ask`` returns the disks whose bitmap QEMU still has, of a checkpoint's name, date and disks.
    Other arguments and errors are those of :func:`track`.
    """
    candidates = await find_candidates(catalog, info)
    if info.is_active:
        known = await _known(ask, candidates)
    else:
        known = await _stored(images, candidates, selection.chains)
    tracked = {}
    for disk in selection.disks:
        if disk.dev not in selection.chains:
            continue  # it is copied as the files it is
        chain = selection.chains[disk.dev]
        image = replace(disk, format=chain[0].format)
        head = await read_image_head(images, image)
        seen = await _look_at(images, image, head, chain[1:])
        unfit = why_untrackable(info, image, head, with_snapshots=rules.with_snapshots)
        found = candidates.get(disk.dev)
        base, reason = (None, unfit) if unfit else _base(disk, seen, found, rules.full_since)
        if base is not None and (base.checkpoint, disk.dev) not in known:
            reason = lost_bitmap(base.checkpoint)
            base = None
        tracked[disk.dev] = Tracked(base, reason, unfit is None, seen.image_id, seen.below)
    return tracked


def lost_bitmap(checkpoint: str) -> str:
    """Return the reason for a full read if the changes are recorded nowhere any more."""
    return f"libvirt or QEMU lost the dirty bitmap of checkpoint {checkpoint}"


class _Seen(Struct, frozen=True):
    """The identity of a disk's images, as in ``Reading``."""

    image_id: str | None
    below: tuple[str, ...] | None


async def _look_at(
    images: ImageHost, image: Disk, head: Qcow2Head | None, below: Sequence[BackingImage]
) -> _Seen:
    identity = await images.image_id(image.path) if image.kind == "file" else None
    if not below and head is not None and head.has_backing:
        try:
            below = (await images.chain(BackingImage(image.path, image.format), image.told))[1:]
        except ImageError:  # a running domain's backing file need not be a file
            return _Seen(identity, None)
    return _Seen(identity, tuple([await _backing_id(images, one) for one in below]))


async def _backing_id(images: ImageHost, image: BackingImage) -> str:
    """Return the identity of a backing file; without times if this program writes to it.

    It does so to remove a bitmap.
    """
    bitmaps: frozenset[str] = frozenset()
    if image.format == "qcow2":
        bitmaps = (await images.info(image)).bitmaps
    with_times = not any(map(is_checkpoint_of_ours, bitmaps))
    return await images.backing_id(image, with_times=with_times)


async def _known(
    ask: AskForBitmaps, candidates: Mapping[str, Candidates]
) -> frozenset[tuple[str, str]]:
    """Return (checkpoint, dev) for all disks whose bitmap libvirt and QEMU still have."""
    devs: dict[str, set[str]] = {}
    dates: dict[str, int] = {}
    for dev, found in candidates.items():
        devs.setdefault(found.checkpoint, set()).add(dev)
        for one in found.with_checkpoint:
            devs[found.checkpoint] |= {
                other
                for other, record in one.definition.records.items()
                if record.reading is not None and record.reading.checkpoint == found.checkpoint
            }
        dates[found.checkpoint] = found.with_checkpoint[0].definition.date
    known: set[tuple[str, str]] = set()
    for checkpoint, of_it in devs.items():
        good = await ask(checkpoint, dates[checkpoint], sorted(of_it))
        known.update((checkpoint, dev) for dev in good)
    return frozenset(known)


async def _stored(
    images: ImageHost,
    candidates: Mapping[str, Candidates],
    chains: Mapping[str, Sequence[BackingImage]],
) -> frozenset[tuple[str, str]]:
    """Return (checkpoint, dev) for all disks whose image alone has the bitmap.

    If a backing file has it too, that one has the changes from before a snapshot, and only QEMU can
    merge the two.
    """
    known = set()
    for dev, chain in chains.items():
        checkpoint = candidates[dev].checkpoint if dev in candidates else None
        with_it = [
            image
            for image in chain
            if image.format == "qcow2" and checkpoint in (await images.info(image)).good_bitmaps
        ]
        if checkpoint is not None and with_it == [chain[0]]:
            known.add((checkpoint, dev))
    return frozenset(known)


async def read_image_head(images: ImageHost, image: Disk) -> Qcow2Head | None:
    """Read the header of a disk's image; None if it cannot be read, or is not qcow2."""
    if image.format != "qcow2" or image.kind == "network":
        return None
    # If it cannot be read here, QEMU might be able to read it; else QEMU reports the error.
    return await images.head(image.path)


def why_untrackable(
    info: DomainInfo, image: Disk, head: Qcow2Head | None, *, with_snapshots: bool
) -> str | None:
    """Return why a disk gets no checkpoint; None if it gets one.

    Args:
        info: the domain.
        image: the disk, with the format of its image.
        head: the image's header.
        with_snapshots: whether a bitmap may make internal snapshots unusable for a revert.
    """
    if not info.is_persistent:
        return "libvirt keeps no checkpoints of a transient domain"
    if image.format != "qcow2":
        return f"a {image.format} image cannot keep a dirty bitmap, only qcow2 can"
    return _why_no_bitmap(head, with_snapshots=with_snapshots) if head is not None else None


def _why_no_bitmap(head: Qcow2Head, *, with_snapshots: bool) -> str | None:
    if head.version < _WITH_BITMAPS:
        return "its qcow2 version cannot keep a dirty bitmap: see `qemu-img amend -o compat=1.1`"
    if head.data_file is not None:
        return "its data is in another file, which can be put back without the dirty bitmap"
    if head.snapshots and not with_snapshots:
        return (
            "it holds internal snapshots, which cannot be reverted to beside a dirty bitmap: "
            "see `track_with_snapshots`"
        )
    return None


def _base(
    disk: Disk, seen: _Seen, candidates: Candidates | None, full_since: float
) -> tuple[Base, None] | tuple[None, str]:
    """Return the base; without one, the reason for a full read."""
    if candidates is None:
        return None, "no earlier backup of it has a checkpoint"
    another = _why_another(disk, seen, candidates.newest)
    if another is not None:
        return None, another
    former = candidates.choose()
    if isinstance(former, str):
        return None, former
    if former.reading.full_date <= full_since:
        return None, "it was last read in full as long ago as `full_every` says"
    return former.base(), None


def _why_another(disk: Disk, seen: _Seen, former: CheckpointedBackup) -> str | None:
    """Return why it is not the image that was backed up; None if it can be."""
    was = former.reading
    if former.record.image.source != str(disk.path):
        return f"it was on {former.record.image.source} at the last backup"
    if not is_same_image(was.image_id, seen.image_id):
        return "its image was replaced since the last backup"
    if not _are_same(was.below, seen.below):
        return "an image below it was changed, or is another one, since the last backup"
    return None


def _are_same(recorded: tuple[str, ...] | None, now: tuple[str, ...] | None) -> bool:
    """Return whether the backing files can be the same; true if nothing is known about them."""
    if recorded is None or now is None:
        return True
    return len(recorded) == len(now) and all(map(is_same_backing, recorded, now))
