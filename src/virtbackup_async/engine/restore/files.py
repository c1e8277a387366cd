r"""The files of one restore: written as parts, renamed at the end, removed after a failure.

::

    web.qcow2.vbk-<token>.part  --all disks complete, checked-->  web.qcow2
          \--failure, cancellation-->  removed, as are the files that have their names already
          \--SIGKILL-->  removed by the next restore into the directory

Invariant: a restore knows each of its files from the moment it exists, and touches no other file
but the parts of a dead restore. A file to which a dead restore gave its name is complete, and
stays: it may be in use.

Each restore holds a shared ``flock`` on the directory. A restore that gets it exclusively is alone
there, so all parts are dead. On a file system without locks, they are left to the admin.
"""

import fcntl
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from anyio import fail_after, to_thread

from virtbackup_async.engine.restore.plan import RestoredImage, RestorePlan
from virtbackup_async.errors import RollbackError, StorageError
from virtbackup_async.files.directories import make_directories, remove_empty
from virtbackup_async.files.durable import (
    remove_durably,
    rename_exclusively,
    sync_directory,
    write_exclusively,
)
from virtbackup_async.files.mounts import space_at
from virtbackup_async.files.refusals import close, storage_error
from virtbackup_async.images.sinks.sequential import create_sequential_file, write_qcow2
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.amounts import size
from virtbackup_async.model.names import is_part, part_path
from virtbackup_async.packagers.interface import Progress

REMOVE_TIMEOUT_S: Final = 60.0


@asynccontextmanager
async def open_restored_files(
    target: Path, plan: RestorePlan, mode: int
) -> AsyncIterator["RestoredFiles"]:
    """Check ``target``, or make it with ``mode``, and yield the files to fill.

    Raises:
        StorageError: it cannot be written, a file exists already, or there is too little space.
        RollbackError: the block failed, and some file could not be removed.
    """
    made = await to_thread.run_sync(_make_target, target, mode)
    files = RestoredFiles(target)
    try:
        async with _shared_directory(target):
            files.others = await to_thread.run_sync(_check_target, target, plan)
            yield files
    except BaseException:
        with fail_after(REMOVE_TIMEOUT_S, shield=True):
            await files.remove()
            await to_thread.run_sync(remove_empty, made)
        raise


@asynccontextmanager
async def _shared_directory(target: Path) -> AsyncIterator[None]:
    """Share ``target`` with other restores, after removing the parts that dead ones left."""
    descriptor = await to_thread.run_sync(_share, target)
    try:
        yield
    finally:
        close(descriptor)


class RestoredFiles:
    """The files of one restore: fill them, then publish them.

    Attributes:
        others: how many other files the directory had before.
    """

    def __init__(self, target: Path) -> None:
        self.others = 0
        self._target = target
        self._token = secrets.token_hex(4)
        self._parts: dict[Path, Path] = {}
        self._named: list[Path] = []

    async def fill(self, image: RestoredImage, stream: DiskStream, on_progress: Progress) -> None:
        """Write a stream into an image's part file."""
        part = self._part(image.name)
        if image.wrapped:
            with create_sequential_file(part) as file:
                await write_qcow2(stream, file, on_progress, image.layout)
        else:
            await write_sparse(stream, part, on_progress)
        self._parts[part] = self._target / image.name

    async def publish(self, xml_name: str, domain_xml: bytes) -> None:
        """Rename all parts to their final names, add the domain's XML, and make it all durable."""
        xml_part = self._part(xml_name)
        await write_exclusively(xml_part, domain_xml)
        self._parts[xml_part] = self._target / xml_name
        while self._parts:
            part, path = next(iter(self._parts.items()))
            await rename_exclusively(part, path)
            self._named.append(path)
            del self._parts[part]
        await sync_directory(self._target)

    async def remove(self) -> None:
        """Remove all files made so far, continuing after an error."""
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

    def _part(self, name: str) -> Path:
        return part_path(self._target / name, self._token)


def _make_target(target: Path, mode: int) -> list[Path]:
    try:
        return make_directories(target, mode)
    except OSError as error:
        raise storage_error("create", target, error) from error


def _share(target: Path) -> int:
    try:
        descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise storage_error("use", target, error) from error
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove_dead_parts(descriptor)
    with suppress(OSError):
        # This waits only while another restore removes dead parts.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def _remove_dead_parts(directory: int) -> None:
    for name in os.listdir(directory):
        if is_part(Path(name)):
            os.unlink(name, dir_fd=directory)


def _check_target(target: Path, plan: RestorePlan) -> int:
    """Return how many files there are in ``target``, without those of other restores."""
    try:
        there = {entry.name for entry in target.iterdir()}
        free_bytes = space_at(target).free_bytes
    except OSError as error:
        raise storage_error("use", target, error) from error
    for name in plan.names:
        if name in there:
            raise StorageError(
                f"file exists already: {target / name}",
                hint="Nothing is ever overwritten: restore into another directory.",
            )
    check_space(target, free_bytes, plan.data_bytes)
    return sum(not is_part(Path(name)) for name in there)


def check_space(directory: Path, available_bytes: int, needed_bytes: int) -> None:
    """Check that ``directory`` has enough space.

    Raises:
        StorageError: it has too little.
    """
    if available_bytes < needed_bytes:
        raise StorageError(
            f"too little room: {directory} has {size(available_bytes)} free, "
            f"the backup needs {size(needed_bytes)}",
            hint="Free some space, or restore into another file system.",
        )
