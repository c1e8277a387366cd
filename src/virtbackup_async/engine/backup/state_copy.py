"""Copying a domain's state outside its disks into the package: UEFI variables, TPM.

It is copied while the disks are held at a point in time. QEMU and swtpm rewrite these files when
the guest asks for it, and a snapshot does not hold them, so each file is first copied aside, and
again if it changed in the meantime. A file that cannot be copied does not stop the backup of the
disks; a warning and the definition report it.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from anyio import CancelScope, to_thread
from msgspec import Struct

from virtbackup_async.engine.backup.disk_copy import image_record
from virtbackup_async.engine.backup.state_files import DomainState, StateFile, missing
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import ChangedMeanwhileError, ImageError
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.backup import TPM, StateRecord
from virtbackup_async.model.domain import BackingImage
from virtbackup_async.packagers.interface import PackageWriter

MAX_TRIES = 3


class StateJob(Struct, frozen=True):
    """A domain's state, with its backup and the directory of the package."""

    domain: str
    state: DomainState
    backup: str
    directory: Path


class CopiedState(Struct, frozen=True):
    """The files in the package; ``missing`` has, by kind, why others are not."""

    records: tuple[StateRecord, ...]
    missing: dict[str, str]


async def copy_state(runtime: Runtime, job: StateJob, package: PackageWriter) -> CopiedState:
    """Put the files into the package.

    Raises:
        StorageError: the target is full or failed.
        ImageError: what was copied aside cannot be read back.
    """
    records = []
    gone = dict(job.state.missing)
    images, buffers = runtime.host.images, runtime.buffers
    for file in job.state.files:
        async with AsyncExitStack() as stack:
            try:
                held = _still_copy(images, file, job.directory, buffers)
                copy = await stack.enter_async_context(held)
            except ImageError as error:
                gone[file.kind] = error.message
                runtime.emit(missing(job.domain, file.kind, error.message))
                continue
            # A failure from here on leaves a package that can only be discarded.
            stream = await stack.enter_async_context(open_image_stream(copy, buffers))
            name = file.name_in(job.backup)
            records.append(await _pack(images, file, name, stream, package))
    return CopiedState(tuple(records), gone)


async def _pack(
    images: ImageHost, file: StateFile, name: str, stream: DiskStream, package: PackageWriter
) -> StateRecord:
    stored_bytes = await package.add_disk(name, stream, _untold)
    image = image_record(BackingImage(file.path, file.format), name, stream, stored_bytes)
    return StateRecord(file.kind, image, await images.owner(file.path))


@asynccontextmanager
async def _still_copy(
    images: ImageHost, file: StateFile, directory: Path, buffers: BufferPool
) -> AsyncGenerator[TargetPath]:
    """Copy a file aside, as it was at one moment, for the time of the block."""
    for _ in range(MAX_TRIES):
        copy = TargetPath.of(directory, 1).temporary()
        try:
            before = await images.signature(file.path)
            # libvirt makes no links in swtpm's directory; the other paths are an admin's.
            follow = file.kind != TPM
            async with images.open_image(file.path, buffers, follow=follow) as stream:
                await write_sparse(stream, copy, _untold)
            if await images.signature(file.path) == before:
                yield copy
                return
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(copy.remove)
    raise ChangedMeanwhileError(f"{file.path} changed each time it was read")


def _untold(_data_bytes: int) -> None:
    """These files are too small for progress."""
