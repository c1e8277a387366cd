"""Background tasks that end with the block that started them.

Used where a reader reads ahead, a compressor works behind, or buffers are written side by side. A
task group alone would wrap even the body's own error into a group; here it comes out bare.
Invariant: when the block is left, by whatever way, its tasks have ended.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from anyio import Event, Semaphore, create_task_group
from anyio.abc import TaskGroup

CPU_THREADS: Final = min(8, os.cpu_count() or 1)
"""As many threads as compute at the same time; a few, however many processors there are."""


@asynccontextmanager
async def open_background() -> AsyncIterator[TaskGroup]:
    """A task group that is cancelled when the block ends, with the body's error left as it is.

    The tasks themselves must not raise: what they find goes to the body as a value.
    """
    failure: Exception | None = None
    async with create_task_group() as tasks:
        try:
            yield tasks
        except Exception as error:  # noqa: BLE001 -- raised again below, outside of the group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


@asynccontextmanager
async def open_workers(places: Semaphore) -> AsyncIterator["Workers"]:
    """Do pieces of work side by side, as many as there are ``places``, which may be shared."""
    async with open_background() as tasks:
        yield Workers(places, tasks)


class Workers:
    """Start as often as you like, then ``finish``."""

    def __init__(self, places: Semaphore, tasks: TaskGroup) -> None:
        self._places = places
        self._tasks = tasks
        self._at_work = 0
        self._one_has_ended = Event()
        self._failure: Exception | None = None

    async def start(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        """Begin a piece of work as soon as there is a place for it.

        Raises:
            Exception: an earlier one failed; this one is done all the same.
        """
        await self._places.acquire()
        self._at_work += 1
        self._tasks.start_soon(self._do, work, name=name)
        self._raise_failure()

    async def finish(self) -> None:
        """Wait for all that was started.

        Raises:
            Exception: one of them failed; the first one's.
        """
        while self._at_work:
            self._one_has_ended = Event()
            await self._one_has_ended.wait()
        self._raise_failure()

    async def _do(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 -- raised by the next start or finish
            self._failure = self._failure or error
        finally:
            self._places.release()
            self._at_work -= 1
            self._one_has_ended.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
