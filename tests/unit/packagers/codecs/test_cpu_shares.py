"""How those who compress share the processors."""

from functools import partial
from threading import Barrier, Event, Lock

import anyio
import pytest

from virtbackup_async.packagers.codecs.cpu_shares import CpuShares


async def test_only_so_many_take_part_at_once():
    shares, now, most = CpuShares(2), 0, 0

    async def share() -> None:
        nonlocal now, most
        async with shares.taking_part():
            now += 1
            most = max(most, now)
            await anyio.lowlevel.checkpoint()
            now -= 1

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(share)
    assert most == 4


async def test_segments_are_spare_only_where_threads_would_have_nothing_to_do():
    shares = CpuShares(2)
    assert [shares.take_segment() for _ in range(4)] == [True, True, True, False]
    shares.give_segment_back()
    assert shares.take_segment()
    for _ in range(3):
        shares.give_segment_back()
    async with shares.taking_part(), shares.taking_part(), shares.taking_part():
        assert [shares.take_segment() for _ in range(2)] == [True, False]
        async with shares.taking_part():
            shares.give_segment_back()
            assert not shares.take_segment()


@pytest.mark.parametrize(("is_long", "at_once"), [(False, 3), (True, 2)])
async def test_one_thread_more_works_than_there_are_processors_unless_it_takes_long(
    is_long, at_once
):
    shares, lock, now, most = CpuShares(2), Lock(), 0, 0
    all_are_at_work = Barrier(at_once)

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        all_are_at_work.wait(20)
        with lock:
            now -= 1

    async with anyio.create_task_group() as tasks:
        for _ in range(12):
            tasks.start_soon(partial(shares.run, work, is_long=is_long))
    assert most == at_once
    assert shares.is_at_rest


async def test_whose_turn_comes_begins_while_the_event_loop_does_something_else():
    shares, both_have_begun, go_on, third_has_begun = CpuShares(1), Barrier(3), Event(), Event()

    def work() -> None:
        both_have_begun.wait(20)
        assert go_on.wait(20)

    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(shares.run, work)
        await anyio.to_thread.run_sync(both_have_begun.wait, 20)
        tasks.start_soon(shares.run, third_has_begun.set)
        for _ in range(10):  # until it stands ready in its thread
            await anyio.lowlevel.checkpoint()
        assert not third_has_begun.is_set()
        go_on.set()
        assert third_has_begun.wait(20), "it waited for the event loop, which is held up here"
