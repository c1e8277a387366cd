"""How those who compress share the processors."""

import anyio

from virtbackup_async.packagers.cpu_shares import CpuShares


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
    assert [shares.take_segment() for _ in range(3)] == [True, True, False]
    shares.give_segment_back()
    assert shares.take_segment()
    for _ in range(2):
        shares.give_segment_back()
    async with shares.taking_part(), shares.taking_part():
        assert [shares.take_segment() for _ in range(2)] == [True, False]
        async with shares.taking_part():
            shares.give_segment_back()
            assert not shares.take_segment()
