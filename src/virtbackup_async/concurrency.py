"""Background tasks and threads that end with the block that started them.

Used where a reader reads ahead, a compressor works in the background, or buffers are written in
parallel. A task group alone would wrap even the body's own error into a group; here it is raised
as it is. Invariant: whenever the block is left, its tasks have ended.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final

from anyio import Event, Semaphore, create_task_group
from anyio.abc import TaskGroup

CPU_THREADS: Final = min(8, os.cpu_count() or 1)
"""How many threads decode one package, or search one index. More would only wait for memory."""


def open_cpu_threads(name: str) -> ThreadPoolExecutor:
    """Return ``CPU_THREADS`` threads, which start when they have work; the block waits for them."""
    return ThreadPoolExecutor(CPU_THREADS, thread_name_prefix=name)


@asynccontextmanager
async def open_background() -> AsyncIterator[TaskGroup]:
    """Open a task group that is cancelled when the block ends; the body's error stays as it is.

    The tasks must not raise: they pass their errors to the body as values.
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
    """Do work in parallel, as much as there are ``places``, which other blocks can share."""
    async with open_background() as tasks:
        yield Workers(places, tasks)


class Workers:
    """Call ``start`` any number of times, then ``finish``."""

    def __init__(self, places: Semaphore, tasks: TaskGroup) -> None:
        self._places = places
        self._tasks = tasks
        self._at_work = 0
        self._one_has_ended = Event()
        self._failure: Exception | None = None

    async def start(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        """Begin some work as soon as there is a place for it.

        Raises:
            Exception: earlier work failed; this work is done anyway.
        """
        await self._places.acquire()
        self._at_work += 1
        self._tasks.start_soon(self._do, work, name=name)
        self._raise_failure()

    async def finish(self) -> None:
        """Wait until all work has ended.

        Raises:
            Exception: the first failure, if any work failed.
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
