"""An image by what changed of it: the map is that of a backup that read it all."""

import asyncio
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.small_repository import PACKAGER, SmallRepository, content
from virtbackup_async.errors import CorruptError
from virtbackup_async.images import extents
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.extents import common
from virtbackup_async.images.stream import open_stream
from virtbackup_async.model.extent import Extent
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.registry import open_writer
from virtbackup_async.repository.format import map_format
from virtbackup_async.repository.format.chunks import CHUNK_BYTES

IMAGES = st.lists(st.integers(0, 3), min_size=1, max_size=12)


class Parts:
    """An ``ImageReader`` of some parts of an image."""

    def __init__(self, data, parts):
        self.size_bytes = len(data)
        self.data_extents = tuple(parts)
        self._data = data

    def read(self, wanted):
        for offset, target in wanted:
            target[:] = self._data[offset : offset + len(target)]


async def back_up_changes(place, name, base, data, changed, percent=0):
    """Make a backup that goes on from another; tell what was read, and what the audit says."""
    async with open_writer(PACKAGER, place.directory, name, CpuShares(1)) as package:
        async with package.open_base(f"{base}_vda.raw") as image:
            parts = await image.choose(changed)
            sample = await image.sample(percent, [Extent(0, len(data))])
            async with open_stream(Parts(data, sample), BufferPool(), name) as stream:
                is_good = await image.is_as_it_was(sample, stream)
            async with open_stream(Parts(data, parts), BufferPool(), name) as stream:
                stored = await package.add_changes(f"{name}_vda.raw", stream, image, lambda _: None)
        await package.finish()
    return stored, parts, is_good


def differing(old, new, more=frozenset()):
    """Where two images differ, and the chunks of ``more``."""
    size = len(content(new))
    numbers = {n for n, (a, b) in enumerate(zip(old, new, strict=True)) if a != b} | more
    return [
        Extent(n * CHUNK_BYTES + 7, min(size, (n + 1) * CHUNK_BYTES) - n * CHUNK_BYTES - 7)
        for n in sorted(numbers)
    ]


@settings(deadline=None, max_examples=30)
@given(IMAGES, st.randoms(use_true_random=False), st.sets(st.integers(0, 11)))
def test_the_map_is_that_of_a_full_backup(old, random, more):
    new = [random.choice([number, 0, 7, 8]) for number in old]
    changed = differing(old, new, {number for number in more if number < len(old)})

    async def run(place):
        await place.back_up("old", content(old))
        stored, _, _ = await back_up_changes(place, "new", "old", content(new), changed)
        await place.back_up("full", content(new))
        return stored

    with tempfile.TemporaryDirectory() as directory:
        place = SmallRepository(Path(directory) / "target")
        stored = asyncio.run(run(place))
        assert place.map_path("new").read_bytes() == place.map_path("full").read_bytes()
        assert asyncio.run(place.restored("new")) == content(new)
        assert stored.data_bytes == sum(CHUNK_BYTES for number in new if number)


async def test_what_the_repository_lost_is_read_again(tmp_path):
    place = SmallRepository(tmp_path / "target")
    await place.back_up("old", content([1, 2, 3]))
    for path in (tmp_path / "target/.virtbackup-repository/index").iterdir():
        path.unlink()
    _, parts, _ = await back_up_changes(place, "new", "old", content([1, 2, 3]), [])
    assert parts == (Extent(0, 3 * CHUNK_BYTES),)
    assert await place.restored("old") == await place.restored("new") == content([1, 2, 3])


@pytest.mark.parametrize("lie", [[1, 9, 3, 0], [1, 0, 3, 0], [1, 2, 3, 4]])
async def test_an_audit_of_all_finds_any_lie(tmp_path, lie):
    place = SmallRepository(tmp_path / "target")
    await place.back_up("old", content([1, 2, 3, 0]))
    same = await back_up_changes(place, "same", "old", content([1, 2, 3, 0]), [], 100)
    other = await back_up_changes(place, "other", "old", content(lie), [], 100)
    assert same[2]
    assert not other[2]


async def drawn_without_luck(directory, data):
    place = SmallRepository(directory)
    await place.back_up("old", content([1, 2, 0]))
    async with (
        open_writer(PACKAGER, place.directory, "new", CpuShares(1)) as package,
        package.open_base("old_vda.raw") as image,
    ):
        await image.choose([])
        return await image.sample(0, data)


PAIR = Extent(0, 2 * CHUNK_BYTES)
FIRST, SECOND = Extent(0, CHUNK_BYTES), Extent(CHUNK_BYTES, CHUNK_BYTES)


@pytest.mark.parametrize(
    ("data", "drawn"),
    [
        ([PAIR], ()),
        ([FIRST], (SECOND,)),
        ([Extent(0, 2 * CHUNK_BYTES - 512)], (SECOND,)),
        ([SECOND], (FIRST,)),
        (None, (SECOND,)),
    ],
)
async def test_an_end_that_was_lost_by_resizing_is_looked_at_without_an_audit(
    tmp_path, data, drawn
):
    assert await drawn_without_luck(tmp_path / "target", data) == drawn


async def test_what_was_zeros_is_read_where_that_is_in_doubt(tmp_path):
    place = SmallRepository(tmp_path / "target")
    await place.back_up("old", content([1, 0, 0]))
    async with (
        open_writer(PACKAGER, place.directory, "new", CpuShares(1)) as package,
        package.open_base("old_vda.raw") as image,
    ):
        parts = await image.choose([], [Extent(0, 2 * CHUNK_BYTES)])
    assert parts == (Extent(CHUNK_BYTES, CHUNK_BYTES),)


async def test_only_what_changed_is_read_and_it_is_not_audited(tmp_path):
    place = SmallRepository(tmp_path / "target")
    await place.back_up("old", content([1, 2, 3]))
    async with (
        open_writer(PACKAGER, place.directory, "new", CpuShares(1)) as package,
        package.open_base("old_vda.raw") as image,
    ):
        assert await image.choose([Extent(7, 1)]) == (FIRST,)
        assert await image.sample(100, [Extent(0, 3 * CHUNK_BYTES)]) == (
            Extent(CHUNK_BYTES, 2 * CHUNK_BYTES),
        )


async def test_chunks_between_very_many_changes_are_read_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(extents, "MAX_EXTENTS", 1)
    place = SmallRepository(tmp_path / "target")
    await place.back_up("old", content([1, 2, 3, 4]))
    new = content([5, 2, 6, 4])
    changed = [FIRST, Extent(2 * CHUNK_BYTES, CHUNK_BYTES)]
    _, parts, _ = await back_up_changes(place, "new", "old", new, changed)
    assert parts == (Extent(0, 3 * CHUNK_BYTES),)
    assert await place.restored("new") == new
    await place.back_up("full", new)
    assert place.map_path("new").read_bytes() == place.map_path("full").read_bytes()


async def test_a_base_of_another_repository_is_refused(tmp_path):
    place, other = SmallRepository(tmp_path / "target"), SmallRepository(tmp_path / "other")
    await place.back_up("old", content([1]))
    await other.back_up("old", content([1]))
    other.map_path("old").replace(place.map_path("old"))
    with pytest.raises(CorruptError, match="another repository"):
        await back_up_changes(place, "new", "old", content([1]), [])


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_common_is_what_is_in_both(some, others):
    def extents_of(places):
        ordered = sorted(places)
        pairs = zip(ordered[::2], ordered[1::2], strict=False)
        return [Extent(start, end - start) for start, end in pairs]

    def covered(parts):
        return [at for part in parts for at in range(part.start, part.end)]

    first, second = extents_of(some), extents_of(others)
    expected = sorted({*covered(first)} & {*covered(second)})
    assert covered(common(first, second)) == expected


@pytest.mark.parametrize(
    ("pages", "size_bytes", "expected"),
    [(0b1, 10, 10), (0b11, 4097, 4097), (0b01, 4097, 4096), (0b11, 8192, 8192)],
)
def test_the_last_page_may_be_shorter(pages, size_bytes, expected):
    entries = np.array([(0, pages, bytes(32))], dtype=map_format.ENTRY)
    assert map_format.data_length_of(entries, size_bytes) == expected
