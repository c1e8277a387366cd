"""images/extents.py and digest.py against naive references."""

import os
from itertools import pairwise

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from virtbackup_async.images import extents as module
from virtbackup_async.images.buffers import BUFFER_BYTES, MIB
from virtbackup_async.images.digest import LEAF_BYTES, ImageDigest, leaf_of, zero_leaf_of
from virtbackup_async.images.extents import (
    PlannedPiece,
    data_length,
    find_data,
    plan_buffers,
    plan_pieces,
    scan_data,
)
from virtbackup_async.images.pieces import cut, fill
from virtbackup_async.model.extent import Extent

# Places where things go wrong: at, before and behind the ends of chunks.
PLACES = st.integers(0, 5).flatmap(
    lambda chunk: st.sampled_from([-4097, -1, 0, 1, 4096]).map(
        lambda near: max(0, chunk * MIB + near)
    )
)


@st.composite
def layouts(draw):
    """A size, and extents that ascend and do not touch."""
    places = sorted(draw(st.sets(PLACES, max_size=12)))
    pairs = zip(places[::2], places[1::2], strict=False)
    extents = tuple(Extent(start, end - start) for start, end in pairs)
    end = extents[-1].end if extents else 0
    return end + draw(st.sampled_from([0, 1, MIB, 3 * MIB + 5])), extents


def naive_digest(image):
    leaves = (image[at : at + LEAF_BYTES] for at in range(0, len(image), LEAF_BYTES))
    joined = b"".join(blake3(leaf).digest() for leaf in leaves)
    return "blake3-256k:" + blake3(len(image).to_bytes(8, "little") + joined).hexdigest()


@given(layouts())
def test_planned_chunks_cover_the_extents_exactly(layout):
    size, extents = layout
    covered = []
    for planned in plan_pieces(size, extents):
        assert planned.offset % LEAF_BYTES == 0
        end = planned.offset + planned.length
        assert planned.length <= BUFFER_BYTES
        assert end == size or end % LEAF_BYTES == 0
        for part in planned.ranges:
            assert planned.offset <= part.start < part.end <= planned.offset + planned.length
            covered += [(part.start, part.end)]
    assert covered == sorted(covered)
    assert data_length(extents) == sum(end - start for start, end in covered)
    for start, end in covered:
        assert any(extent.start <= start and end <= extent.end for extent in extents)


@given(layouts())
def test_each_chunk_is_planned_once_in_order(layout):
    offsets = [planned.offset for planned in plan_pieces(*layout)]
    assert offsets == sorted(set(offsets))


@given(layouts())
def test_what_is_planned_for_buffers_fits_into_them_and_leaves_little_room(layout):
    buffers = list(plan_buffers(*layout))
    assert [chunk for planned in buffers for chunk in planned] == list(plan_pieces(*layout))
    lengths = [sum(chunk.length for chunk in planned) for planned in buffers]
    assert all(0 < length <= BUFFER_BYTES for length in lengths)
    for length, behind in pairwise(zip(lengths, buffers, strict=True)):
        assert length[0] + behind[1][0].length > BUFFER_BYTES


@given(st.integers(0, 3 * MIB + 2))
def test_without_extents_everything_is_planned(size):
    assert sum(data_length(planned.ranges) for planned in plan_pieces(size, None)) == size


@settings(deadline=None)
@given(layouts())
def test_digest_of_extents_is_the_digest_of_all_bytes(layout):
    size, extents = layout
    image = bytearray(size)
    for extent in extents:
        image[extent.start : extent.end] = b"\1" * extent.length
    digest = ImageDigest(size)
    for planned in plan_buffers(size, extents):
        buffer = memoryview(bytearray(BUFFER_BYTES))
        fill(buffer, planned, Bytes(image))
        cut(buffer, planned, digest, knows_holes=True)
    assert digest.finish() == naive_digest(image)


class Bytes:
    def __init__(self, image):
        self._image = image

    def read(self, wanted):
        for offset, target in wanted:
            target[:] = self._image[offset : offset + len(target)]


@settings(deadline=None)
@given(st.sets(st.integers(0, 3)), st.booleans())
def test_what_is_all_zeros_is_not_handed_on(data_at, knows_holes):
    image = bytearray(4 * LEAF_BYTES)
    for number in data_at:
        image[number * LEAF_BYTES + 5000] = 1
    (planned,) = plan_buffers(len(image), None)
    buffer = memoryview(bytearray(BUFFER_BYTES))
    fill(buffer, planned, Bytes(image))
    chunks = cut(buffer, planned, ImageDigest(len(image)), knows_holes=knows_holes)
    came = [range(chunk.offset, chunk.offset + len(chunk.data)) for chunk in chunks]
    numbers = [place // LEAF_BYTES for run in came for place in run[::LEAF_BYTES]]
    assert numbers == sorted(data_at)
    leaves = [leaf for chunk in chunks for leaf in chunk.leaves]
    pieces = [image[number * LEAF_BYTES : (number + 1) * LEAF_BYTES] for number in numbers]
    assert leaves == [blake3(piece).digest() for piece in pieces]
    for chunk in chunks:
        assert chunk.data == image[chunk.offset : chunk.offset + len(chunk.data)]
        for extent in chunk.ranges:
            assert chunk.offset <= extent.start
            assert extent.end <= chunk.offset + len(chunk.data)
    stored = sum(data_length(chunk.ranges) for chunk in chunks)
    assert stored == len(data_at) * (LEAF_BYTES if knows_holes else 4096)


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, 150 * MIB + 3])
def test_digest_of_a_hole_needs_no_bytes(size):
    assert ImageDigest(size).finish() == naive_digest(bytes(size))


def test_digest_never_changes():
    digest = ImageDigest(3)
    digest.add(0, leaf_of(b"abc"))
    assert digest.finish() == (
        "blake3-256k:0fa2a4fe85bef99a627bc106d796c90000f590e6f6b44580e9923fa51776c344"
    )


def test_zero_leaf_is_the_leaf_of_zeros():
    assert zero_leaf_of(5) == leaf_of(bytes(5))
    assert zero_leaf_of(LEAF_BYTES) == leaf_of(bytes(LEAF_BYTES))


@given(st.sets(st.integers(0, 40000), max_size=8), st.integers(1, 40001))
def test_data_is_found_page_by_page(places, length):
    buffer = bytearray(MIB)
    places = {place for place in places if place < length}
    for place in places:
        buffer[place] = 1
    buffer[length:] = b"\1" * (MIB - length)  # not part of the chunk
    planned = PlannedPiece(7 * MIB, length, ())
    found = find_data(planned, memoryview(buffer))
    pages = {page for extent in found for page in pages_of(extent)}
    assert pages == {place // 4096 for place in places}
    assert all(extent.end <= 7 * MIB + length for extent in found)


def pages_of(extent):
    start = extent.start - 7 * MIB
    return range(start // 4096, (start + extent.length + 4095) // 4096)


def scan(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return scan_data(fd, path.stat().st_size)
    finally:
        os.close(fd)


def test_scan_finds_what_was_written(tmp_path):
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.truncate(5 << 20)
        os.pwrite(file.fileno(), b"x" * 4096, 1 << 20)
        os.pwrite(file.fileno(), b"x" * 10, (5 << 20) - 10)
    found = scan(path)
    assert Extent(1 << 20, 4096) in found
    assert found[-1].end == 5 << 20
    assert data_length(found) <= 16384


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_scan_of_a_hole_finds_nothing(tmp_path, size):
    path = tmp_path / "a"
    path.touch()
    os.truncate(path, size)
    assert scan(path) == ()


def test_scan_without_holes_is_one_extent(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 12345)
    assert scan(path) == (Extent(0, 12345),)


def test_scan_of_a_shattered_file_stays_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_EXTENTS", 10)
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.truncate(1 << 20)
        for start in range(0, 1 << 20, 8192):
            os.pwrite(file.fileno(), b"x", start)
        # One hole that is large stays when the small ones are given up.
        file.truncate(9 << 20)
        os.pwrite(file.fileno(), b"x", 8 << 20)
    found = scan(path)
    assert found == (Extent(0, (1 << 20) - 4096), Extent(8 << 20, 4096))


def test_each_buffer_is_filled_to_its_last_byte():
    half = BUFFER_BYTES // 2
    extents = tuple(Extent(2 * number * BUFFER_BYTES, half) for number in range(6))
    buffers = list(plan_buffers(12 * BUFFER_BYTES, extents))
    assert [len(planned) for planned in buffers] == [2, 2, 2]
