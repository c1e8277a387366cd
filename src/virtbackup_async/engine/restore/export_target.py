"""Where an exported image goes: a new file, or standard output.

Called by ``export``. Invariants: no existing file is touched; a file that has its name is whole,
and what a failure or a cancellation leaves of it is nothing. Of standard output nobody can take
back what was written: it is said then that this is not the whole.
"""

import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from anyio import CancelScope, to_thread

from virtbackup_async.engine.restore.files import check_space
from virtbackup_async.errors import StorageError
from virtbackup_async.events import Emit, Warned
from virtbackup_async.files import durable
from virtbackup_async.files.mounts import space_at
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.images.sinks.sequential import (
    SequentialFile,
    create_sequential_file,
    open_stdout,
    write_qcow2,
    write_raw,
)
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.names import temporary_name
from virtbackup_async.packagers.interface import Progress

STDOUT: Final = Path("-")
_DEFAULT_WORK_DIRECTORY: Final = "/var/tmp"  # noqa: S108 -- made there with a random name, private


class Target(Protocol):
    """Takes one image.

    Attributes:
        work_directory: where copies that are needed for moments have room.
    """

    work_directory: Path

    async def take(self, stream: DiskStream, on_progress: Progress, *, wrap: bool) -> None:
        """Write the stream as it is; with ``wrap``, as the data of a new qcow2 image."""


@asynccontextmanager
async def open_target(
    output: Path, domain: str, data_bytes: int, emit: Emit
) -> AsyncGenerator[Target]:
    """Open the target; a new file gets its name when the block ends without an error.

    Args:
        output: the new file, or ``STDOUT``.
        domain: the domain that the disk belongs to.
        data_bytes: the room that the image needs at least; 0 where nobody knows.
        emit: takes the events.

    Raises:
        StorageError: the output exists already, or its directory is missing, not writable, or has
            less room than the image needs.
    """
    if output == STDOUT:
        with open_stdout() as stdout, _saying_that_it_is_not_whole(domain, emit):
            yield _Stdout(stdout)
        return
    await to_thread.run_sync(_check_place, output, data_bytes)
    part = output.parent / temporary_name()
    try:
        yield _NewFile(part)
        await durable.rename_exclusively(part, output)
        await durable.sync_directory(output.parent)
    finally:
        # It may be gone, having its name; one that cannot be removed hides no other error.
        with CancelScope(shield=True), suppress(OSError):
            await to_thread.run_sync(part.unlink)


def _check_place(output: Path, data_bytes: int) -> None:
    if os.path.lexists(output):
        raise StorageError(f"{output} exists already", hint="Give another name, or move it away.")
    try:
        free_bytes = space_at(output.parent).free_bytes
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StorageError(
            f"{output.parent} is not a directory", hint="Create it, or name another one."
        ) from error
    except OSError as error:
        raise storage_error("use", output.parent, error) from error
    check_space(output.parent, free_bytes, data_bytes)


class _NewFile:
    def __init__(self, path: Path) -> None:
        self.work_directory = path.parent
        self._path = path

    async def take(self, stream: DiskStream, on_progress: Progress, *, wrap: bool) -> None:
        if not wrap:
            await write_sparse(stream, self._path, on_progress)
            return
        with create_sequential_file(self._path) as file:
            await write_qcow2(stream, file, on_progress)


class _Stdout:
    def __init__(self, output: SequentialFile) -> None:
        self.work_directory = Path(os.environ.get("TMPDIR") or _DEFAULT_WORK_DIRECTORY)
        self._output = output

    async def take(self, stream: DiskStream, on_progress: Progress, *, wrap: bool) -> None:
        write = write_qcow2 if wrap else write_raw
        await write(stream, self._output, on_progress)


@contextmanager
def _saying_that_it_is_not_whole(domain: str, emit: Emit) -> Iterator[None]:
    try:
        yield
    except BaseException:
        emit(Warned("what was written to standard output is not the whole disk", domain))
        raise
