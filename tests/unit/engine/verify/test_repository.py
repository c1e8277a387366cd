"""verify of backups that share chunks: each is read once, each damage told by its place."""

import pytest

from fakes.repository_files import files_of
from fakes.shared_site import SharedSite, flip
from fakes.site import NOW
from page_cache import cached_bytes, drop_from_cache
from virtbackup_async.events import (
    DiskDamaged,
    RepositoryChecked,
    RepositoryDamaged,
    VerifyDone,
    VerifyFailed,
    VerifyStarted,
    Warned,
)
from virtbackup_async.model import read_share
from virtbackup_async.model.backup import Verification
from virtbackup_async.repository.data import read_runs
from virtbackup_async.repository.format.chunks import CHUNK_BYTES
from virtbackup_async.repository.storage.leases import take_lease


@pytest.fixture
def site(tmp_path):
    return SharedSite(tmp_path)


async def test_what_backups_share_is_read_once(site):
    stored = [
        await site.store_chunks([1, 2, 0, 3]),
        await site.store_chunks([1, 2, 0, 4], day=1),
        await site.store_chunks([3, 2, 1], "db"),
    ]
    assert await site.verify() == sorted(one.name for one in stored)
    assert {event.backup for event in site.of(VerifyStarted)} == {one.name for one in stored}
    (checked,) = site.of(RepositoryChecked)
    assert (checked.backups, checked.chunks, checked.damaged_chunks) == (3, 4, 0)
    assert {event.data_bytes for event in site.of(VerifyDone)} == {3 * CHUNK_BYTES}
    for one in stored:
        assert one.read().verified == Verification(int(NOW.timestamp()), ok=True, digests=True)
    assert list(files_of(site.repository).leases.iterdir()) == []


async def test_only_what_the_chosen_backups_need_is_read(site):
    bad = await site.store_chunks([1, 2])
    good = await site.store_chunks([1, 3], day=8)
    (first, _) = site.packs
    flip(first, first.stat().st_size - 1)
    assert await site.verify(newer_than="7d") == [good.name]
    assert site.of(RepositoryChecked)[0].chunks == 2
    assert await site.verify() == [good.name]
    assert [event.backup for event in site.of(VerifyFailed)] == [bad.name]


@pytest.mark.parametrize("quick", [False, True])
async def test_a_missing_pack_is_told_by_backup_disk_and_range(site, quick):
    lost = await site.store_chunks([1, 2, 0, 3])
    also = await site.store_chunks([9, 3, 8, 2, 1], "db", day=1)
    good = await site.store_chunks([8, 9], day=2)
    site.packs[0].unlink()
    assert await site.verify(quick=quick) == [good.name]
    damaged = {event.backup: event for event in site.of(DiskDamaged)}
    assert damaged[lost.name].ranges == ((0, 2 * CHUNK_BYTES), (3 * CHUNK_BYTES, CHUNK_BYTES))
    assert damaged[also.name].ranges == (
        (CHUNK_BYTES, CHUNK_BYTES),
        (3 * CHUNK_BYTES, 2 * CHUNK_BYTES),
    )
    assert damaged[also.name].lost_bytes == 3 * CHUNK_BYTES
    assert {event.backup: event.exit_code for event in site.of(VerifyFailed)} == {
        lost.name: 13,
        also.name: 13,
    }
    (pack,) = site.of(RepositoryDamaged)
    assert "pack is missing" in pack.error
    assert pack.chunks == 3
    assert "bytes 0 to 524287, 786432 to 1048575 of" in lost.read().verified.error
    assert lost.read().verified.ok is False
    assert (good.read().verified is None) == quick


async def test_quick_looks_at_lengths_and_full_at_bytes(site):
    stored = await site.store_chunks([1, 2])
    (pack,) = site.packs
    flip(pack, 150)
    assert await site.verify(quick=True) == [stored.name]
    assert site.of(VerifyDone)[0].quick
    assert stored.read().verified is None
    assert await site.verify() == []
    pack.write_bytes(pack.read_bytes()[:-1])
    assert await site.verify(quick=True) == []
    assert site.of(DiskDamaged)[0].ranges == ((CHUNK_BYTES, CHUNK_BYTES),)


async def test_the_head_of_a_pack_is_told_and_costs_no_backup(site):
    stored = await site.store_chunks([1, 2])
    flip(site.packs[0], 50)
    assert await site.verify() == [stored.name]
    (damaged,) = site.of(RepositoryDamaged)
    assert (damaged.chunks, "its head is damaged" in damaged.error) == (0, True)


async def test_a_damaged_map_costs_its_own_backup(site):
    bad, good = await site.store_chunks([1, 2]), await site.store_chunks([2, 1], day=1)
    flip(bad.package, 60)
    assert await site.verify() == [good.name]
    assert "checksum differs" in bad.read().verified.error


async def test_another_backups_map_is_not_taken_for_ones_own(site):
    bad, good = await site.store_chunks([1, 2]), await site.store_chunks([2, 1], day=1)
    bad.package.write_bytes(good.package.read_bytes())
    assert await site.verify(quick=True) == [good.name]
    assert "is not the map of what was backed up" in site.of(VerifyFailed)[0].error


async def test_a_segment_that_is_damaged_costs_what_only_it_knows(site):
    bad, good = await site.store_chunks([1, 2]), await site.store_chunks([3], day=1)
    index = files_of(site.repository).index
    by_age = sorted(index.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    flip(by_age[0], 40)
    assert await site.verify() == [good.name]
    (damaged,) = site.of(RepositoryDamaged)
    assert str(by_age[0]) in damaged.error
    assert [event.backup for event in site.of(DiskDamaged)] == [bad.name]


async def test_a_repository_that_is_gone_costs_all(site):
    stored = await site.store_chunks([1])
    (files_of(site.repository).root / "repository").unlink()
    assert await site.verify() == []
    assert "the repository of" in stored.read().verified.error


async def test_a_backup_that_is_removed_meanwhile_is_no_damage_there_either(site):
    gone, good = await site.store_chunks([1]), await site.store_chunks([2], day=1)

    class Clean(list):
        def append(self, event):
            super().append(event)
            if isinstance(event, VerifyStarted) and event.backup == gone.name:
                gone.path.unlink()
                gone.package.unlink()

    site.events = Clean()
    assert await site.verify() == [good.name]
    assert not site.of(VerifyFailed)
    assert [event.message for event in site.of(Warned)] == [
        f"{gone.name} was removed while it was read"
    ]


async def test_without_a_lease_it_is_read_all_the_same(site):
    stored = await site.store_chunks([1])
    files_of(site.repository).leases.rmdir()
    assert await site.verify() == [stored.name]
    assert "a prune may disturb this" in site.of(Warned)[0].message


async def test_what_it_reads_does_not_stay_in_the_page_cache(site):
    stored = await site.store_chunks(range(1, 400))
    (pack,) = site.packs
    drop_from_cache(pack)
    before = cached_bytes(pack)
    assert await site.verify() == [stored.name]
    assert cached_bytes(pack) <= max(before, 2 * 4096)
    pack.read_bytes()
    assert await site.verify() == [stored.name]
    assert cached_bytes(pack) == -(-pack.stat().st_size // 4096) * 4096, "who had it, has it still"


async def test_it_runs_beside_a_sweep(site):
    stored = await site.store_chunks([1])
    lease = take_lease(site.repository.storage, "sweep")
    assert await site.verify() == [stored.name]
    lease.close()


# A share of the data.


@pytest.fixture
def small_runs(monkeypatch):
    """Each chunk is a run of its own, and no share is rounded up."""
    monkeypatch.setattr(read_runs, "RUN_BYTES", 1)
    monkeypatch.setattr(read_share, "LEAST_BYTES", 0)


async def test_a_share_reads_so_much_and_all_must_be_there(site, small_runs):
    stored = await site.store_chunks(range(1, 41))
    assert await site.verify(read_data="10%") == [stored.name]
    (checked,) = site.of(RepositoryChecked)
    assert (checked.chunks, checked.read_chunks) == (40, 4)
    assert checked.read_bytes == checked.stored_bytes // 10
    (done,) = site.of(VerifyDone)
    assert (done.quick, done.partly, done.digests) == (True, True, False)
    # What was read only in part does not count as verified.
    assert stored.read().verified is None
    site.packs[0].unlink()
    assert await site.verify(read_data="10%") == []
    assert stored.read().verified.ok is False


async def test_a_share_of_all_is_a_whole_verification(site):
    """Small targets are read completely: a percentage means at least some MiB."""
    stored = await site.store_chunks(range(1, 41))
    assert await site.verify(read_data="2%") == [stored.name]
    (done,) = site.of(VerifyDone)
    assert (done.quick, done.partly, done.digests) == (False, False, True)
    assert stored.read().verified.ok


async def test_over_many_nights_all_damage_is_found(site, small_runs):
    stored = await site.store_chunks(range(1, 11))
    flip(site.packs[0], site.packs[0].stat().st_size // 2)
    found = 0
    for _ in range(200):
        found += await site.verify(read_data="10%") == []
    assert 1 <= found < 100
    assert stored.read().verified.ok is False


async def test_an_amount_is_read_and_more_than_there_is_means_all(site, small_runs):
    stored = await site.store_chunks(range(1, 21))
    await site.verify(read_data="0.1K")
    assert 0 < site.of(RepositoryChecked)[0].read_chunks < 5
    assert stored.read().verified is None
    await site.verify(read_data="1T")
    assert site.of(RepositoryChecked)[0].read_chunks == 20
    assert stored.read().verified.ok


@pytest.mark.parametrize("asked", [None, "all"])
async def test_the_configuration_says_how_much_and_an_option_overrides_it(site, small_runs, asked):
    await site.store_chunks(range(1, 41))
    site.group["verify_read_data"] = "10%"
    await site.verify(read_data=asked)
    assert site.of(RepositoryChecked)[0].read_chunks == (40 if asked else 4)
