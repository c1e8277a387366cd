"""concurrency.py: workers side by side, so many at once, and nothing lost of their errors."""

import pytest
from anyio import CancelScope, Event, Semaphore, fail_after, sleep_forever

from virtbackup_async.concurrency import open_workers


async def test_so_many_work_at_once():
    now = most = done = 0
    three_are_at_work = Event()

    async def work():
        nonlocal now, most, done
        now += 1
        most = max(most, now)
        if now == 3:
            three_are_at_work.set()
        await three_are_at_work.wait()
        now -= 1
        done += 1

    with fail_after(20):
        async with open_workers(Semaphore(3)) as workers:
            for _ in range(20):
                await workers.start(work, "work")
            await workers.finish()
            assert done == 20
    assert most == 3


async def test_an_error_is_raised_by_the_next_start_and_by_the_end():
    done = []

    async def fail():
        raise ValueError("it broke")

    async def work():
        done.append(True)

    async with open_workers(Semaphore(1)) as workers:
        await workers.start(fail, "fail")
        with pytest.raises(ValueError, match="it broke"):
            await workers.start(work, "work")
        with pytest.raises(ValueError, match="it broke"):
            await workers.finish()
    assert done == [True]


async def test_places_are_free_again_whatever_the_way_out():
    places, both_are_at_work = Semaphore(2), Event()

    async def work():
        if places.value == 0:
            both_are_at_work.set()
        await sleep_forever()

    async def give_up():
        async with open_workers(places) as workers:
            await workers.start(work, "work")
            raise KeyError("given up")

    with pytest.raises(KeyError, match="given up"):
        await give_up()
    with fail_after(20), CancelScope() as scope:
        async with open_workers(places) as workers:
            for _ in range(2):
                await workers.start(work, "work")
            await both_are_at_work.wait()
            scope.cancel()
            await workers.finish()
    assert places.value == 2
