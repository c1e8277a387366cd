"""The package of a complete backup, kept from being removed while it is read."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from virtbackup_async.catalog.package_files import packed_files
from virtbackup_async.engine.locks import LockWait, hold_package
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.model.backup import Definition
from virtbackup_async.packagers.interface import PackageReader
from virtbackup_async.packagers.registry import open_reader, package_paths

REMOVER_TIMEOUT_S = 60
"""How long a removal may take that is under way; after it the package is gone."""


@asynccontextmanager
async def open_package(
    definition: Definition, directory: Path, buffers: BufferPool
) -> AsyncGenerator[PackageReader]:
    """Open the package for reading; ``clean`` leaves it alone until it is closed.

    Raises:
        DefinitionError: the packager is not known.
        LockHeldError: it is being removed.
    """
    packager, name = definition.packager, definition.name
    paths = package_paths(packager, directory, name, packed_files(definition))
    async with (
        hold_package(paths, exclusive=False, lock_wait=LockWait(REMOVER_TIMEOUT_S)),
        open_reader(packager, directory, name, buffers) as package,
    ):
        yield package
