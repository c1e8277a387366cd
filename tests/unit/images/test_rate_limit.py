"""The rate limit of streams, on a clock of its own."""

import pytest
from anyio import Event, create_task_group
from anyio.lowlevel import checkpoint

from virtbackup_async.images import stream as stream_module
from virtbackup_async.images.buffers import BUFFER_BYTES, BufferPool
from virtbackup_async.images.stream import RateLimit, keep_to, open_stream
from virtbackup_async.model.extent import Extent


class Clock:
    """Time passes when all sleep; who wakes first goes first."""

    def __init__(self):
        self.now_s = 100.0
        self._sleepers = []

    def __call__(self):
        return self.now_s

    async def sleep(self, seconds):
        wake = Event()
        self._sleepers.append((self.now_s + seconds, len(self._sleepers), wake))
        await wake.wait()

    async def run(self, until_s):
        """Let tasks run until nothing wakes before that time."""
        while True:
            for _ in range(20):
                await checkpoint()
            due = sorted(self._sleepers)[:1]
            if not due or due[0][0] > until_s:
                self.now_s = until_s
                return
            self._sleepers.remove(due[0])
            self.now_s = due[0][0]
            due[0][2].set()


@pytest.fixture
def clock():
    return Clock()


async def read(clock, limits, length_bytes, counts, name):
    while True:
        await keep_to(limits, length_bytes, sleep=clock.sleep)
        counts[name] = counts.get(name, 0) + length_bytes


async def bytes_in(clock, seconds, readers):
    """Run readers, each (name, limits, bytes at once), for some time."""
    counts = {}
    async with create_task_group() as tasks:
        for name, limits, length_bytes in readers:
            tasks.start_soon(read, clock, limits, length_bytes, counts, name)
        await clock.run(clock.now_s + seconds)
        tasks.cancel_scope.cancel()
    return counts


async def test_one_reader_gets_the_rate(clock):
    limit = RateLimit(1000, clock=clock)
    assert await bytes_in(clock, 10, [("a", [limit], 100)]) == {"a": 10_000}


async def test_readers_share_evenly(clock):
    limit = RateLimit(1000, clock=clock)
    counts = await bytes_in(clock, 12, [(name, [limit], 100) for name in "abc"])
    assert counts == {"a": 4000, "b": 4000, "c": 4000}


async def test_both_limits_hold(clock):
    run, slow = RateLimit(1000, clock=clock), RateLimit(200, clock=clock)
    counts = await bytes_in(clock, 10, [("slow", [run, slow], 100), ("fast", [run], 100)])
    assert counts["slow"] == 2000
    assert counts["fast"] <= 8000
    assert sum(counts.values()) > 9000


async def test_pause_is_not_made_up_for(clock):
    limit = RateLimit(1000, clock=clock)
    await bytes_in(clock, 1, [("a", [limit], 100)])
    clock.now_s += 3600
    assert (await bytes_in(clock, 1, [("a", [limit], 100)]))["a"] == 1000


async def test_without_limits_nothing_waits():
    await keep_to([], 1 << 40)


async def test_stream_asks_before_it_reads_and_holds_no_buffer(monkeypatch):
    asked, go_on = [], Event()

    async def wait(limits, length_bytes):
        asked.append((tuple(limits), length_bytes))
        await go_on.wait()

    class Reader:
        size_bytes = 2 * BUFFER_BYTES
        data_extents = (Extent(0, 4096), Extent(BUFFER_BYTES, BUFFER_BYTES))

        def read(self, wanted):
            assert go_on.is_set()
            for _, target in wanted:
                target[:] = b"x" * len(target)

    monkeypatch.setattr(stream_module, "keep_to", wait)
    limit, buffers = RateLimit(1), BufferPool(BUFFER_BYTES)
    async with (
        open_stream(Reader(), buffers, "test", limits=[limit]) as stream,
        create_task_group() as tasks,
    ):
        tasks.start_soon(drain, stream)
        while not asked:
            await checkpoint()
        assert buffers.available == 1
        go_on.set()
    assert asked == [((limit,), 4096), ((limit,), BUFFER_BYTES)]


async def drain(stream):
    async for _ in stream.pieces():
        pass
