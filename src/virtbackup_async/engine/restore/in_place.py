"""Restoring into a shut-off domain's own images: ``restore --in-place``.

The domain stays locked, and is checked again before each swap: if it was started in the meantime,
its old images come back. Invariants: an image is replaced in one step, by a complete and checked
one (``host/replacement.py``); after a failure or a cancellation every image is the old one; after a
success the old image is kept next to it, unless the request discards it. Backing images are never
written: other domains may use them.
"""

import os
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from anyio import CancelScope, current_time, fail_after
from msgspec import Struct

from virtbackup_async import errors, events
from virtbackup_async.engine.domain_states import check_replaceable
from virtbackup_async.engine.inventory.lacking import refuse_mixture
from virtbackup_async.engine.locks import hold_domain
from virtbackup_async.engine.ports import DomainPort
from virtbackup_async.engine.restore.files import check_space
from virtbackup_async.engine.restore.plan import (
    RestoredDisk,
    RestoredImage,
    RestorePlan,
    encrypted_in,
    plan_restore,
)
from virtbackup_async.engine.restore.read_images import open_package, read_disk, read_state
from virtbackup_async.engine.restore.state import state_paths
from virtbackup_async.engine.restore.to_directory import restore_disks
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.host.interface import ImageHost, Replacement
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model import domain_xml
from virtbackup_async.model.backup import Definition
from virtbackup_async.model.domain import Disk
from virtbackup_async.model.names import is_marked, is_replacement_of
from virtbackup_async.model.qcow2_options import Qcow2Options
from virtbackup_async.model.target_file import AnyFile
from virtbackup_async.packagers.interface import PackageReader, Progress

UNDO_TIMEOUT_S: Final = 60.0
_TOKEN_BYTES: Final = 4


class InPlaceRequest(Struct, frozen=True):
    """The backup to restore, and how.

    Attributes:
        definition: the backup.
        directory: the directory of its package.
        disks: the devs to restore; empty for all.
        discard_old: remove the images that are replaced.
        remove_saved: remove the domain's managed save image, which is its saved memory.
        allow_missing: restore even if the backup lacks disks of the domain.
    """

    definition: Definition
    directory: AnyFile
    disks: tuple[str, ...] = ()
    discard_old: bool = False
    remove_saved: bool = False
    allow_missing: bool = False


class _Work(Struct, frozen=True):
    """One restore in place; ``swaps`` has, by restored name, the image that each file replaces."""

    request: InPlaceRequest
    domain: DomainPort
    plan: RestorePlan
    swaps: Mapping[str, Replacement]
    images: ImageHost
    emit: events.Emit

    @property
    def target(self) -> str:
        names = [disk.images[0].name for disk in self.plan.disks]
        return os.path.commonpath([self.swaps[name].image.parent for name in names])

    @property
    def replaced(self) -> tuple[str, ...]:
        return tuple(str(swap.image) for swap in self.swaps.values())

    async def fill(self, image: RestoredImage, stream: DiskStream, on_progress: Progress) -> None:
        """Write an image next to the one that it replaces."""
        await self.swaps[image.name].fill(stream, on_progress)


async def restore_in_place(runtime: Runtime, request: InPlaceRequest) -> events.RestoreDone:
    """Restore a backup's disks and state in place of the domain's current ones.

    Raises:
        NotFoundError: the backup lacks disks of the domain, and that is not allowed.
        HypervisorError: the domain runs or is saved, was started in the meantime, or is not the
            backup's.
        DiskNotFoundError: the domain has no such disk, or one of another format.
        ImageError: a backing image differs from its state at the backup.
        StorageError: there is too little space, or an image cannot be replaced.
        CorruptError: the package is damaged; nothing was replaced.
        LockHeldError: another process works on the domain.
        RollbackError: after a failure, an old image could not be brought back.
    """
    began_s = current_time()
    if not request.allow_missing:
        refuse_mixture(request.definition, request.disks)
    domain = await runtime.hypervisor.domain(request.definition.domain_name)
    async with hold_domain(runtime.host.images, domain.name, domain.uuid, "restore"):
        work = await _prepare(runtime, request, domain)
        definition = request.definition
        await _check_backing(work, runtime.buffers)
        runtime.emit(
            events.RestoreStarted(
                domain.name, definition.name, work.target, work.plan.devs, definition.domain_uuid
            )
        )
        async with _undo_on_failure(work):
            async with open_package(definition, request.directory, runtime.buffers) as package:
                data_bytes = await restore_disks(
                    work.plan, runtime.disk_slots, lambda disk: _fill(work, disk, package)
                )
                for state in work.plan.state:
                    if state.image.name in work.swaps:
                        data_bytes += await read_state(state, package, work.fill)
            await _swap_all(work)
        kept = await _keep_or_remove_old(work)
    done = events.RestoreDone(
        domain=domain.name,
        backup=definition.name,
        target=work.target,
        files=work.replaced,
        verified=work.plan.is_verifiable,
        data_bytes=data_bytes,
        duration_s=current_time() - began_s,
        kept=kept,
        formats=tuple(_formats(work)),
        uuid=definition.domain_uuid,
    )
    runtime.emit(done)
    return done


def _formats(work: _Work) -> Iterator[events.FileFormat]:
    for disk in work.plan.disks:
        image = disk.images[0]
        swap = work.swaps[image.name]
        if image.record is not None:
            now = "qcow2" if swap.wrap is not None else image.record.format
            size_bytes = image.record.size_bytes
            yield events.FileFormat(
                str(swap.image), disk.dev, now, size_bytes, image.original_format
            )


async def _prepare(runtime: Runtime, request: InPlaceRequest, domain: DomainPort) -> _Work:
    """Check everything that can be checked before a byte is written."""
    images, emit = runtime.host.images, runtime.emit
    plan = plan_restore(request.definition, request.disks)
    recorded = request.definition.domain_uuid or domain_xml.uuid(request.definition.domain_xml)
    if recorded not in (None, domain.uuid):
        raise errors.HypervisorError(
            f"{domain.name} is another domain now: it is {domain.uuid}, the backup of {recorded}",
            hint="Restore into a directory, with --define and --name.",
        )
    await check_replaceable(domain, remove_saved=request.remove_saved)
    token = secrets.token_hex(_TOKEN_BYTES)
    info = await domain.info()
    places = await _places(images, domain, plan, encrypted_in(request.definition), emit)
    state = await state_paths(images, plan, info, emit)
    places |= {name: (path, None) for name, path in state.items()}
    swaps = {
        name: await images.prepare_replacement(path, token, wrap)
        for name, (path, wrap) in places.items()
    }
    paths = [swap.image for swap in swaps.values()]
    if len(set(paths)) < len(paths):
        raise errors.StorageError(
            f"two disks are on one image: {max(paths, key=paths.count)}", domain=domain.name
        )
    for path in paths:
        await _clear_leftovers(images, path, domain.name, emit)
    await _check_space(images, plan, swaps)
    return _Work(request, domain, plan, swaps, images, emit)


async def _places(
    images: ImageHost,
    domain: DomainPort,
    plan: RestorePlan,
    encrypted: frozenset[str],
    emit: events.Emit,
) -> dict[str, tuple[Path, Qcow2Options | None]]:
    """Return, by restored name, the image to replace and the layout of the new one.

    A pulled disk is raw in the package. If the domain has it on qcow2, it becomes qcow2 again.
    """
    xml = (await domain.info()).xml
    there = {disk.dev: disk for disk in domain_xml.disks(xml)[0]}
    places = {}
    for disk in plan.disks:
        now = _replaced_disk(domain.name, disk.dev, there)
        if now.encrypted != (disk.dev in encrypted):
            raise errors.DiskNotFoundError(
                f"{disk.dev} is {_as_encrypted(encrypted=now.encrypted)} now, the "
                f"backup has it {_as_encrypted(encrypted=not now.encrypted)}",
                disk=disk.dev,
                domain=domain.name,
                hint="Restore into a directory.",
            )
        wrap = None
        record = disk.images[0].record
        is_whole = record is not None and record.format == "luks" and now.format == "raw"
        if record is not None and record.format != now.format and not is_whole:
            _check_convertible(domain.name, disk, now, xml)
            wrap = await _layout(
                images, disk, now, lambda text: emit(events.Warned(text, domain.name))
            )
        places[disk.images[0].name] = (now.path, wrap)
    return places


def _replaced_disk(domain: str, dev: str, there: Mapping[str, Disk]) -> Disk:
    """Return the domain's disk of that name, by dev.

    Raises:
        DiskNotFoundError: the domain has none that can be replaced.
        RollbackError: it is on an overlay.
    """
    now = there.get(dev)
    if now is None:
        has = ", ".join(there) or "none"
        raise errors.DiskNotFoundError(
            f"{domain} has no disk {dev} that can be replaced, it has {has}",
            disk=dev,
            hint="Name the disks to restore with --disk, or restore into a directory.",
        )
    if is_marked(now.path):
        raise errors.RollbackError(
            f"{dev} is on the overlay of a killed backup, {now.path}",
            disk=dev,
            domain=domain,
            hint="Run `virtbackup clean -b` first.",
        )
    return now


async def _layout(
    images: ImageHost, disk: RestoredDisk, now: Disk, warn: Callable[[str], None]
) -> Qcow2Options | None:
    """Return the layout of the new qcow2 image: the current image's, or else the recorded one."""
    head = await images.head(now.path)
    if head is not None and head.snapshots:
        warn(f"{disk.dev} loses its internal snapshots: they are in the old image alone")
    if head is not None and head.options.can_be_written:
        return head.options
    return disk.images[0].layout


def _as_encrypted(*, encrypted: bool) -> str:
    return "encrypted" if encrypted else "in plain text"


def _check_convertible(domain: str, disk: RestoredDisk, now: Disk, xml: str) -> None:
    record = disk.images[0].record
    if record is None or (record.format, now.format) != ("raw", "qcow2"):
        has = record.format if record else "another format"
        raise errors.DiskNotFoundError(
            f"{disk.dev} is {now.format} now, the backup has {has}",
            disk=disk.dev,
            domain=domain,
            hint="Restore into a directory.",
        )
    if domain_xml.names_backing(xml, disk.dev):
        # QEMU would use that image as the new one's backing file, and it needs none.
        raise errors.DiskNotFoundError(
            f"its XML puts an image below {disk.dev}, the backup holds both in one",
            disk=disk.dev,
            domain=domain,
            hint="Take <backingStore> out of it by `virsh edit`, or restore into a directory.",
        )


async def _clear_leftovers(images: ImageHost, image: Path, domain: str, emit: events.Emit) -> None:
    """Remove a new image that a killed restore left; an old image is left to the admin."""
    for path in await images.replacement_leftovers(image):
        if is_replacement_of(path, image):
            await images.remove(path)
        else:
            message = f"{path} is what a killed restore replaced: remove it if nobody needs it"
            emit(events.Warned(message, domain))


async def _check_space(
    images: ImageHost, plan: RestorePlan, swaps: Mapping[str, Replacement]
) -> None:
    needed: dict[int, tuple[Path, int]] = {}
    for image in plan.images:
        if image.name not in swaps:
            continue
        directory = swaps[image.name].image.parent
        file_system = await images.file_system(directory)
        _, before = needed.get(file_system, (directory, 0))
        new_bytes = image.record.data_bytes if image.record else 0
        needed[file_system] = (directory, before + new_bytes)
    for directory, needed_bytes in needed.values():
        check_space(directory, await images.free_bytes(directory), needed_bytes)


async def _check_backing(work: _Work, buffers: BufferPool) -> None:
    """Compare the backing images with the backup's; they are never written."""
    for disk in work.plan.disks:
        for image in disk.images[1:]:
            path = Path(image.record.source if image.record else "")
            if image.expected_digest is None or not path.is_absolute():
                raise errors.ImageError(
                    f"nothing is recorded to compare {path} of {disk.dev} with", disk=disk.dev
                )
            with errors.about_disk(disk.dev):
                async with work.images.open_image(path, buffers) as stream:
                    async for _chunk in stream.pieces():
                        pass
            if stream.digest != image.expected_digest:
                raise errors.DigestMismatchError(
                    f"{path}, below {disk.dev}, is not what it was at the backup",
                    disk=disk.dev,
                    hint="It may be shared, so it is not replaced: restore into a directory.",
                )


async def _fill(work: _Work, disk: RestoredDisk, package: PackageReader) -> events.DiskDone:
    """Write a disk's own image next to the one that it replaces."""
    own = RestoredDisk(disk.dev, disk.images[:1])
    return await read_disk(own, package, work.fill, work.domain.name, work.emit)


@asynccontextmanager
async def _undo_on_failure(work: _Work) -> AsyncGenerator[None]:
    try:
        yield
    except BaseException:
        with fail_after(UNDO_TIMEOUT_S, shield=True):
            await _undo_all(list(work.swaps.values()))
        raise


async def _undo_all(swaps: Sequence[Replacement]) -> None:
    left = []
    for swap in swaps:
        try:
            await swap.undo()
        except errors.StorageError as error:
            left.append(error.message)
    if left:
        raise errors.RollbackError(
            f"images could not be put back: {'; '.join(left)}",
            hint="Rename <image>.vbk-old-<token> to <image> by hand.",
        )


async def _swap_all(work: _Work) -> None:
    if work.request.remove_saved and (await work.domain.info()).is_saved:
        # Not earlier: a failed restore changes nothing. And not later: a start in between
        # would resume the old memory on new disks.
        await work.domain.remove_saved()
    for swap in work.swaps.values():
        await check_replaceable(work.domain, remove_saved=False)
        with CancelScope(shield=True):
            await swap.swap()
    # If it was started between the check and the swap, it runs on the old images: undo.
    await check_replaceable(work.domain, remove_saved=False)


async def _keep_or_remove_old(work: _Work) -> tuple[str, ...]:
    """Rename the old images to keep them, or remove them.

    An old image that keeps its temporary name takes space and does no harm.
    """
    date = datetime.now(UTC).astimezone().strftime("%Y%m%d-%H%M%S")
    kept = []
    for swap in work.swaps.values():
        try:
            if work.request.discard_old:
                await swap.forget_old()
            elif path := await swap.keep_old(date):
                kept.append(str(path))
        except errors.VirtBackupError as error:
            work.emit(events.Warned(f"the old image stays: {error.message}", work.domain.name))
    return tuple(kept)
