"""Opens packages of every type for writing and reading, and removes them.

Each type of packager is a folder here, by the name that ``model.packager`` gives it::

    packagers/<type>/writer.py   open_writer(location, cpu)
    packagers/<type>/reader.py   open_reader(location, buffers)

They are loaded when they are needed: numpy alone takes as long as all other modules of a backup.
Invariant: a package whose writing fails or is cancelled is removed before ``open_writer`` is left.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from importlib import import_module
from typing import Any, Final, Protocol, cast

from anyio import fail_after, to_thread

from virtbackup_async.errors import DefinitionError, StorageError, VirtBackupError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.names import plain_name
from virtbackup_async.model.packager import Location, type_named, type_of
from virtbackup_async.model.target_file import AnyFile
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.interface import PackageReader, PackageWriter
from virtbackup_async.repository import open_storage

DISCARD_TIMEOUT_S: Final = 60.0


class _WriterModule(Protocol):
    def open_writer(
        self, location: Location, cpu: CpuShares
    ) -> AbstractAsyncContextManager[PackageWriter]: ...


class _ReaderModule(Protocol):
    def open_reader(
        self, location: Location, buffers: BufferPool
    ) -> AbstractAsyncContextManager[PackageReader]: ...


def load_writers(types: Iterable[str]) -> None:
    """Load the writers of these types of packagers, while the caller does something else. Blocks.

    ``open_writer`` loads the modules that are missing by then, and reports those that it cannot
    load.
    """
    for name in types:
        if type_named(name).is_known:
            with suppress(ImportError):
                _import("writer", name)


@asynccontextmanager
async def open_writer(
    packager: Packager, directory: AnyFile, name: str, cpu: CpuShares
) -> AsyncIterator[PackageWriter]:
    """Start the package of the backup ``name`` in ``directory``, which exists.

    If the block fails or is cancelled, everything that was written is removed, and so is a package
    that was never finished.

    Args:
        packager: its options have no ``problems``.
        directory: the domain's, in the target.
        name: the backup's name.
        cpu: the process's, shared by all packages.

    Raises:
        DefinitionError: the packager is unknown, or ``name`` is not a plain one.
    """
    location = Location.below(directory, packager, plain_name(name))
    module = cast("_WriterModule", await _load("writer", location))
    async with module.open_writer(location, cpu) as writer:
        try:
            yield writer
        except BaseException as cause:
            with fail_after(DISCARD_TIMEOUT_S, shield=True):
                await _discard(writer, cause)
            raise


async def _discard(writer: PackageWriter, cause: BaseException) -> None:
    """Discard a package; that this fails, as for a host that may only add, hides no cause."""
    try:
        await writer.discard()
    except StorageError as error:
        if not isinstance(cause, VirtBackupError):
            raise
        cause.reason = f"{cause.reason}; what it stored stays for `clean`: {error.message}"


@asynccontextmanager
async def open_reader(
    packager: Packager, directory: AnyFile, name: str, buffers: BufferPool
) -> AsyncIterator[PackageReader]:
    """Open the package of the backup ``name`` for reading.

    Raises:
        DefinitionError: the packager is unknown, or ``name`` is not a plain one.
    """
    location = Location.below(directory, packager, plain_name(name))
    module = cast("_ReaderModule", await _load("reader", location))
    async with module.open_reader(location, buffers) as reader:
        yield reader


async def remove_package(location: Location, files: Sequence[str]) -> None:
    """Remove a package, complete or not, by the names of its files; missing ones are no error."""
    storage = await to_thread.run_sync(open_storage, location.target)
    for name in location.stored_names(files):
        await to_thread.run_sync(storage.remove, name)


async def _load(kind: str, location: Location) -> Any:  # noqa: ANN401 -- a module; see the callers
    if not type_of(location.packager).is_known:
        raise DefinitionError(f"unknown packager of {location.name}: {location.packager.type!r}")
    return await to_thread.run_sync(_import, kind, location.packager.type)


def _import(kind: str, name: str) -> object:
    return import_module(f"{__package__}.{name}.{kind}")
