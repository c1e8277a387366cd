"""Tasks that help a block of code and end with it.

Used where a reader reads ahead or a compressor works behind. A task group alone would wrap even
the body's own error into a group; here it comes out bare. Invariant: when the block is left, by
whatever way, its tasks have ended. The tasks themselves must not raise: what they find goes to
the body as a value.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import create_task_group
from anyio.abc import TaskGroup


@asynccontextmanager
async def open_background() -> AsyncIterator[TaskGroup]:
    """A task group that is cancelled when the block ends, with the body's error left as it is."""
    failure: Exception | None = None
    async with create_task_group() as tasks:
        try:
            yield tasks
        except Exception as error:  # noqa: BLE001 -- raised again below, outside of the group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
