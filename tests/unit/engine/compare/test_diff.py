"""engine/compare/diff.py: changed bytes by disk, from maps, digests or the images themselves."""

import pytest
from msgspec.structs import replace

from fakes.forget_site import flip_bit
from fakes.shared_site import SharedSite
from fakes.site import DAY_S, NOW
from fakes.small_repository import content
from fakes.stored_backup import DATE
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.compare.diff import DiffRequest, run_diff
from virtbackup_async.engine.compare.images import differing
from virtbackup_async.errors import ConfigError, CorruptError, DefinitionError, NotFoundError
from virtbackup_async.images.digest import LEAF_BYTES
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.storage_location import StorageLocation

PACKAGERS = ["directory", "tar", "zstd", "repository"]


class DiffSite(SharedSite):
    async def put(self, packager, chunks, day=0, end=b"", domain="web"):
        (self.root / "of.raw").write_bytes(content(chunks) + end)
        date = DATE + day * DAY_S
        return await self.store(Packager(packager), domain, date, "of.raw")

    async def diff(self, older, newer, **settings):
        self.settings |= settings
        names = (f"{one.domain}@{one.name}" for one in (older, newer))
        return await run_diff(self.runtime(now=lambda: NOW), DiffRequest(*names))


@pytest.fixture
def site(tmp_path):
    return DiffSite(tmp_path)


@pytest.mark.parametrize("packager", PACKAGERS)
@pytest.mark.parametrize(
    ("before", "after", "chunks"),
    [
        ([1, 2, 3], [1, 2, 3], 0),
        ([1, 2, 3], [1, 9, 3], 1),
        ([1, 0, 3], [1, 2, 3], 1),
        ([1, 2, 3], [0, 0, 0], 3),
        ([0, 0], [0, 0], 0),
        ([1, 2], [1, 2, 3, 4], 2),
        ([1, 2, 3, 4], [1, 2], 2),
        ([1, 2, 3], [2, 3, 1], 3),
    ],
)
async def test_the_blocks_that_differ_are_counted(site, packager, before, after, chunks):
    older, newer = await site.put(packager, before), await site.put(packager, after, 1)
    (disk,) = await site.diff(older, newer)
    assert disk.changed_bytes == chunks * LEAF_BYTES
    usual = "map" if packager == "repository" else "read"
    assert disk.method == ("digest" if before == after else usual)
    assert (disk.older, disk.newer, disk.disk) == (older.name, newer.name, "vda")
    assert disk.newer_size_bytes == len(after) * LEAF_BYTES


@pytest.mark.parametrize("packager", PACKAGERS)
async def test_a_short_end_counts_with_its_length(site, packager):
    older = await site.put(packager, [1], end=b"a" * 4096)
    newer = await site.put(packager, [1], 1, end=b"b" * 4096)
    (disk,) = await site.diff(older, newer)
    assert disk.changed_bytes == 4096


async def test_packages_of_different_packagers_are_read_with_little_memory(site):
    older, newer = await site.put("zstd", range(1, 60)), await site.put("repository", [7] * 59, 1)
    (disk,) = await site.diff(older, newer, buffers_mib=4)
    assert disk.changed_bytes == 58 * LEAF_BYTES
    assert disk.method == "read"
    (disk,) = await site.diff(older, await site.put("directory", range(2, 61), 2))
    assert disk.changed_bytes == 59 * LEAF_BYTES


async def change(site, stored, record):
    records = {"vda": record} if record else {}
    definition = replace(stored.read(), records=records)
    await Catalog(StorageLocation.of(site.target)).write_definition(definition)


async def test_what_cannot_be_compared_says_why(site):
    older, newer = await site.put("directory", [1]), await site.put("directory", [2], 1)
    record = newer.read().records["vda"]
    for changed, reason in (
        (replace(record, image=replace(record.image, format="qcow2")), "it was raw, and is qcow2"),
        (replace(record, backing=(record.image,)), "it has other images below it"),
        (None, f"{newer.name} has no sizes and digests"),
    ):
        await change(site, newer, changed)
        (disk,) = await site.diff(older, newer)
        assert (disk.changed_bytes, disk.method, disk.reason) == (None, None, reason)
    await Catalog(StorageLocation.of(site.target)).write_definition(
        replace(newer.read(), disks={}, records={})
    )
    (disk,) = await site.diff(older, newer)
    assert disk.reason == f"{newer.name} does not have it"


async def test_backups_of_two_domains_are_not_compared(site):
    older, newer = await site.put("directory", [1]), await site.put("directory", [1], domain="db")
    with pytest.raises(ConfigError, match="different domains"):
        await site.diff(older, newer)


async def test_damage_is_said(site):
    older, newer = await site.put("zstd", [1, 2]), await site.put("zstd", [3], 1)
    older.cut()
    with pytest.raises(CorruptError):
        await site.diff(older, newer)
    older, newer = await site.put("repository", [1], 2), await site.put("repository", [2], 3)
    data = bytearray(older.package.read_bytes())
    data[-1] ^= 1
    older.package.write_bytes(data)
    with pytest.raises(CorruptError):
        await site.diff(older, newer)
    flip_bit(newer)
    with pytest.raises(DefinitionError):
        await site.diff(older, newer)
    with pytest.raises(NotFoundError):
        await run_diff(site.runtime(), DiffRequest("web@2001-01-01", "web"))


async def batches(*parts):
    for part in parts:
        yield [(number, bytes([leaf])) for number, leaf in part]


@pytest.mark.parametrize(
    ("left", "right", "numbers"),
    [
        ([], [], []),
        ([[]], [[], []], []),
        ([[(0, 1)], [(1, 1)]], [[(0, 1), (1, 2)]], [1]),
        ([[(5, 1)]], [[(0, 1)], [], [(1, 1), (5, 1)], [(9, 9)]], [0, 1, 9]),
        ([[(0, 1), (9, 9)]], [[(9, 9)]], [0]),
        ([[(0, 1), (2, 1), (4, 1)]], [[(1, 1), (3, 1)], [(4, 1)]], [0, 1, 2, 3]),
    ],
)
async def test_leaves_in_batches_of_any_size_are_compared(left, right, numbers):
    found = [number async for number in differing(batches(*left), batches(*right))]
    assert sorted(found) == numbers
