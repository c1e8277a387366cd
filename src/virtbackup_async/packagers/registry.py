"""The door to the packagers: the engine opens, reads and removes packages here.

Invariant: a package whose writing failed, or was cancelled, is gone when ``open_writer`` is left.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Final

from anyio import fail_after, to_thread

from virtbackup_async.errors import DefinitionError
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.model.backup import Packager
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.directory import DirectoryReader, DirectoryWriter
from virtbackup_async.packagers.interface import PackageReader, PackageWriter
from virtbackup_async.packagers.names import (
    directory_path,
    map_path,
    plain_name,
    tar_path,
    zstd_path,
)
from virtbackup_async.packagers.tar.reader import open_tar_reader
from virtbackup_async.packagers.tar.writer import open_tar_writer
from virtbackup_async.packagers.zstd.reader import open_zstd_reader
from virtbackup_async.packagers.zstd.writer import ZstdWriter

DISCARD_TIMEOUT_S: Final = 60.0


def load_ahead(types: Iterable[str]) -> None:
    """Load what writers of these types of packagers take long to load. Blocks.

    Called beside other work; whoever opens a writer need not wait for it, nor have called this.
    """
    if "repository" in types:
        with suppress(ImportError):  # the one who needs it will say so
            import_module("virtbackup_async.packagers.repository.writer")


@asynccontextmanager
async def open_writer(
    packager: Packager, directory: Path, name: str, cpu: CpuShares
) -> AsyncIterator[PackageWriter]:
    """Start the package of the backup ``name`` in ``directory``, which exists.

    When the block fails or is cancelled, everything that was made is removed, and so is what was
    never finished.

    Args:
        packager: with options that ``check_packager`` lets through.
        directory: where the package goes.
        name: the backup's name.
        cpu: the process's, shared by all packages.
    """
    async with _open_writer(packager, directory, name, cpu) as writer:
        try:
            yield writer
        except BaseException:
            with fail_after(DISCARD_TIMEOUT_S, shield=True):
                await writer.discard()
            raise


@asynccontextmanager
async def open_reader(
    packager: Packager, directory: Path, name: str, buffers: BufferPool
) -> AsyncIterator[PackageReader]:
    """Open the package of the backup ``name`` in ``directory`` for reading."""
    plain_name(name)
    match packager.type:
        case "directory":
            yield DirectoryReader(directory, name, buffers)
        case "tar":
            async with open_tar_reader(tar_path(directory, name, packager), buffers) as reader:
                yield reader
        case "zstd":
            async with open_zstd_reader(directory, name, buffers) as reader:
                yield reader
        case "repository":
            # It loads numpy, which takes as long as all the rest of a backup's modules.
            from virtbackup_async.packagers.repository.reader import (  # noqa: PLC0415 -- see above
                open_repository_reader,
            )

            async with open_repository_reader(directory, name, buffers) as reader:
                yield reader
        case unknown:
            raise DefinitionError(f"unknown packager of {name}: {unknown!r}")


async def remove_package(
    packager: Packager, directory: Path, name: str, files: Iterable[str]
) -> None:
    """Remove a package, whole or half-made, by its names alone; what is gone already is fine."""
    for path in package_paths(packager, directory, name, files):
        await to_thread.run_sync(TargetPath.in_domain(path).remove)


def package_paths(
    packager: Packager, directory: Path, name: str, files: Iterable[str]
) -> tuple[Path, ...]:
    """The files in the target that the package of these disk files consists of."""
    plain_name(name)
    match packager.type:
        case "directory":
            return tuple(directory_path(directory, file) for file in files)
        case "tar":
            return (tar_path(directory, name, packager),)
        case "zstd":
            return tuple(zstd_path(directory, name, file) for file in files)
        case "repository":
            return tuple(map_path(directory, file) for file in files)
        case unknown:
            raise DefinitionError(f"unknown packager of {name}: {unknown!r}")


def _open_writer(
    packager: Packager, directory: Path, name: str, cpu: CpuShares
) -> AbstractAsyncContextManager[PackageWriter]:
    plain_name(name)
    match packager.type:
        case "directory":
            return _nothing_to_close(DirectoryWriter(directory))
        case "tar":
            return open_tar_writer(directory, name, packager, cpu)
        case "zstd":
            return _nothing_to_close(ZstdWriter(directory, name, packager, cpu))
        case "repository":
            from virtbackup_async.packagers.repository.writer import (  # noqa: PLC0415 -- numpy, too
                open_repository_writer,
            )

            return open_repository_writer(directory, packager, cpu)
        case unknown:
            raise DefinitionError(f"unknown packager of {name}: {unknown!r}")


@asynccontextmanager
async def _nothing_to_close(writer: PackageWriter) -> AsyncIterator[PackageWriter]:
    yield writer
