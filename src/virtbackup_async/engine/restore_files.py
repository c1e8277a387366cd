r"""The files of one restore: written as parts, named at the end, removed if it comes to nothing.

::

    web.qcow2.part  --all disks whole and checked-->  web.qcow2
          \--failure, cancellation-->  removed, as is all that has its name already

Used by ``restore.py``. Invariant: every file it made is known to it from the moment it exists, and
no other file is touched.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from anyio import fail_after, to_thread

from virtbackup_async.catalog.names import COMPONENT_MAX_BYTES, path_component
from virtbackup_async.engine.restore_plan import RestoredImage, RestorePlan
from virtbackup_async.errors import RollbackError, StorageError
from virtbackup_async.images.durable import (
    remove_durably,
    rename_exclusively,
    storage_error,
    sync_directory,
    write_exclusively,
)
from virtbackup_async.images.sparse import write_sparse
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.packagers.interface import Progress

REMOVE_TIMEOUT_S: Final = 60.0
_PART: Final = ".part"


@asynccontextmanager
async def open_restored_files(
    target: Path, plan: RestorePlan, mode: int
) -> AsyncIterator["RestoredFiles"]:
    """Check ``target``, make it if it is missing, with ``mode``, and take the plan's files in.

    Raises:
        StorageError: it cannot be written, a file exists already, or there is too little space.
        RollbackError: the block failed, and some file could not be removed.
    """
    made_target = await to_thread.run_sync(_make_target, target, mode)
    files = RestoredFiles(target)
    try:
        await to_thread.run_sync(_check_target, target, plan)
        yield files
    except BaseException:
        with fail_after(REMOVE_TIMEOUT_S, shield=True):
            await files.remove()
            if made_target:
                await to_thread.run_sync(_remove_empty, target)
        raise


class RestoredFiles:
    """Fill the images, then publish them."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._parts: dict[Path, Path] = {}
        self._named: list[Path] = []

    async def fill(self, image: RestoredImage, stream: DiskStream, on_progress: Progress) -> None:
        """Write a stream into what will be the file of an image."""
        name = image.name
        part = self._target / (path_component(name, COMPONENT_MAX_BYTES - len(_PART)) + _PART)
        await write_sparse(stream, part, on_progress)
        self._parts[part] = self._target / name

    async def publish(self, xml_name: str, domain_xml: bytes) -> None:
        """Give all images their names, put the domain's XML beside them, make it durable."""
        while self._parts:
            part, path = next(iter(self._parts.items()))
            await rename_exclusively(part, path)
            self._named.append(path)
            del self._parts[part]
        path = self._target / xml_name
        await write_exclusively(path, domain_xml)
        self._named.append(path)
        await sync_directory(self._target)

    async def remove(self) -> None:
        """Remove all files made so far; every one is tried."""
        left = []
        for path in (*self._parts, *self._named):
            try:
                await remove_durably(path)
            except StorageError as error:
                left.append(error.message)
        if left:
            raise RollbackError(
                f"restore left files behind: {'; '.join(left)}", hint="Remove them by hand."
            )


def _make_target(target: Path, mode: int) -> bool:
    try:
        if target.is_dir():
            return False
        target.mkdir(mode=mode, parents=True)
    except OSError as error:
        raise storage_error("create", target, error) from error
    return True


def _check_target(target: Path, plan: RestorePlan) -> None:
    try:
        there = {entry.name for entry in target.iterdir()}
        status = os.statvfs(target)
    except OSError as error:
        raise storage_error("use", target, error) from error
    for name in plan.names:
        if name in there:
            raise StorageError(
                f"file exists already: {target / name}",
                hint="Nothing is ever overwritten: restore into another directory.",
            )
    check_space(target, status, plan.data_bytes)


def check_space(directory: Path, status: os.statvfs_result, needed_bytes: int) -> None:
    """Raise StorageError if the file system of ``directory`` has less than that free."""
    available_bytes = status.f_bavail * status.f_frsize
    if available_bytes < needed_bytes:
        raise StorageError(
            f"target is too small: {directory} has {available_bytes} bytes free, "
            f"the backup needs {needed_bytes}",
            hint="Free some space or restore into another file system.",
        )


def _remove_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        return  # somebody else put something there meanwhile
