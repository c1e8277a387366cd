"""A domain's state outside its disks, in the package: UEFI variables, TPM.

``find_state`` finds the files before anything is touched, so that the pending file can name them.
A part of the state that has no file has a reason instead.

``copy_state`` copies them while the disks are held at a point in time. QEMU and swtpm rewrite these
files when the guest asks for it, and a snapshot does not hold them, so each file is first copied
aside, and again if it changed in the meantime. A file that cannot be copied does not stop the
backup of the disks; a warning and the definition report it.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from anyio import CancelScope, to_thread
from msgspec import Struct

from virtbackup_async.engine.backup.disk_copy import image_record, new_data
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import ChangedMeanwhileError, ImageError
from virtbackup_async.events import Warned
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model import names
from virtbackup_async.model.backup import TPM, StateRecord
from virtbackup_async.model.domain import BackingImage, DomainInfo
from virtbackup_async.model.domain_state import LABELS, StatePlace, state_places
from virtbackup_async.model.names import is_kept
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.packagers.interface import PackageWriter

MAX_TRIES = 3
# swtpm writes under this name before it replaces a file.
_HALF_WRITTEN = "TMP"


class StateFile(Struct, frozen=True):
    """One file of a domain's state, with its path on the host."""

    kind: str
    path: Path
    format: str = "raw"

    def name_in(self, backup: str) -> str:
        """Return its name inside the package of the backup."""
        return names.state_file(backup, self.kind, self.path.name)


class DomainState(Struct, frozen=True):
    """The files of a domain's state; ``missing`` has, by kind, why some have none."""

    files: tuple[StateFile, ...]
    missing: dict[str, str]


async def find_state(images: ImageHost, info: DomainInfo) -> DomainState:
    """Find the files of a domain's state.

    Raises:
        DefinitionError: the domain's XML cannot be read.
    """
    files: list[StateFile] = []
    gone: dict[str, str] = {}
    for place in state_places(info):
        try:
            found = await _files(images, place)
        except ImageError as error:
            gone[place.kind] = error.message
            continue
        files += found
        if not found:
            gone[place.kind] = place.reason or f"nothing is in {place.path}"
    return DomainState(tuple(files), gone)


def missing(domain: str, kind: str, reason: str) -> Warned:
    """Return the warning that the backup will lack a part of the domain's state."""
    return Warned(f"{LABELS[kind]} will not be in the backup: {reason}", domain)


async def _files(images: ImageHost, place: StatePlace) -> list[StateFile]:
    if place.path is None:
        return []
    if not place.is_directory:
        await images.check_exists(place.path)
        return [StateFile(place.kind, place.path, place.format)]
    return [
        StateFile(place.kind, path)
        for path in await images.list_state(place.path)
        if not (path.name.startswith((".", _HALF_WRITTEN)) or is_kept(path.name))
    ]


class StateJob(Struct, frozen=True):
    """A domain's state, with its backup and a local directory in which files are copied aside."""

    domain: str
    state: DomainState
    backup: str
    directory: TargetFile


class CopiedState(Struct, frozen=True):
    """The files in the package; ``missing`` has, by kind, why others are not."""

    records: tuple[StateRecord, ...]
    missing: dict[str, str]


async def copy_state(runtime: Runtime, job: StateJob, package: PackageWriter) -> CopiedState:
    """Put the files into the package.

    Raises:
        StorageError: the target is full or failed.
        ImageError: a file that was copied aside cannot be read back.
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
    image = image_record(
        BackingImage(file.path, file.format), name, stream, stored_bytes, new_data(package, name)
    )
    return StateRecord(file.kind, image, await images.owner(file.path))


@asynccontextmanager
async def _still_copy(
    images: ImageHost, file: StateFile, directory: TargetFile, buffers: BufferPool
) -> AsyncGenerator[TargetPath]:
    """Copy a file aside, as it was at one moment, for the time of the block."""
    for _ in range(MAX_TRIES):
        copy = TargetPath.at(directory).temporary()
        try:
            before = await images.signature(file.path)
            # libvirt makes no links in swtpm's directory; an admin chose the other paths.
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
