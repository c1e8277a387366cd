"""What a compressor gives goes into the file in the background, so that it need not wait.

Used by ``zstd.py``. Invariants: pieces are written in the order they came; no more than one batch
waits behind the one that is being written; an error is raised by the next ``write`` or ``flush``.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from anyio import Event, create_memory_object_stream

from virtbackup_async.images.background import open_background
from virtbackup_async.packagers.output import OutputFile, Piece


@asynccontextmanager
async def open_write_queue(output: OutputFile) -> AsyncIterator["WriteQueue"]:
    """Write into ``output`` behind the block; what is not flushed may be lost."""
    queue = WriteQueue(output)
    try:
        async with open_background() as tasks:
            tasks.start_soon(queue.write_in_order, name=f"write {output.path.name}")
            yield queue
    finally:
        queue.close()


class WriteQueue:
    """Write as often as you like, then ``flush``."""

    def __init__(self, output: OutputFile) -> None:
        self._output = output
        self._failure: Exception | None = None
        self._sending, self._receiving = create_memory_object_stream[list[Piece] | Event](1)

    async def write(self, pieces: Iterable[Piece]) -> None:
        """Append the pieces, which must not change any more."""
        self._raise_failure()
        await self._sending.send(list(pieces))

    async def flush(self) -> None:
        """Wait until all that was given is in the file."""
        written = Event()
        await self._sending.send(written)
        await written.wait()
        self._raise_failure()

    def close(self) -> None:
        """Take no more."""
        self._sending.close()
        self._receiving.close()

    async def write_in_order(self) -> None:
        """The background task."""
        async for item in self._receiving:
            if isinstance(item, Event):
                item.set()
            elif self._failure is None:
                await self._write(item)

    async def _write(self, pieces: list[Piece]) -> None:
        try:
            await self._output.write(pieces)
        except Exception as error:  # noqa: BLE001 -- raised by the next write or flush
            self._failure = error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
