"""A directory for images that are needed for a while only, where there is enough space for them."""

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import CancelScope, to_thread

from virtbackup_async.errors import StorageError
from virtbackup_async.files.mounts import space_at
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.model.amounts import size
from virtbackup_async.model.names import temporary_name


@asynccontextmanager
async def directory_in(parent: Path, dev: str, data_bytes: int) -> AsyncGenerator[Path]:
    """Yield the path of a private directory, and remove it at the end of the block.

    Args:
        parent: where it is to be.
        dev: the disk that it is for.
        data_bytes: the data of the disk's images.

    Raises:
        StorageError: there is not so much space.
    """
    try:
        free_bytes = (await to_thread.run_sync(space_at, parent)).free_bytes
    except OSError as error:
        raise storage_error("use", parent, error) from error
    if free_bytes < data_bytes:
        raise StorageError(
            f"the images of {dev} need {size(data_bytes)} for a while, "
            f"{size(free_bytes)} are free in {parent}",
            disk=dev,
            hint="TMPDIR names another directory, except for an export into a file.",
        )
    place = parent / temporary_name()
    try:
        yield place
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(shutil.rmtree, place, True)  # noqa: FBT003 -- errors ignored
