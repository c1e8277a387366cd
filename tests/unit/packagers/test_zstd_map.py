"""packagers/zstd_map.py: what is written is read, and nothing impossible gets through."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbackup_async.model.extent import Extent
from virtbackup_async.packagers.zstd_map import MAX_HOLES, Hole, ZstdMap, encode_map, read_map

FRAME = bytes(1000)
GOOD = ZstdMap((Hole(10, 500, 40), Hole(600, 100, 80)), (Extent(0, 10), Extent(700, 24)))
SIZE = 724


@pytest.fixture
def read(tmp_path):
    def read(content, size_bytes=SIZE):
        path = tmp_path / "file.zstd"
        path.write_bytes(content)
        with path.open("rb") as file:
            return read_map(file.fileno(), size_bytes)

    return read


@pytest.mark.parametrize("zstd_map", [GOOD, ZstdMap((), ()), ZstdMap((), (Extent(0, SIZE),))])
def test_what_is_written_is_read(read, zstd_map):
    assert read(FRAME + encode_map(zstd_map)) == zstd_map


@pytest.mark.parametrize("content", [b"", b"short", FRAME, encode_map(GOOD)[:-1], b"vbk-map\x01"])
def test_the_files_of_others_have_none(read, content):
    assert read(content) is None


@pytest.mark.parametrize(
    "zstd_map",
    [
        ZstdMap((Hole(10, 0, 40),), ()),
        ZstdMap((Hole(10, SIZE, 40),), ()),
        ZstdMap((Hole(100, 100, 40), Hole(50, 10, 80)), ()),
        ZstdMap((Hole(10, 10, 80), Hole(30, 10, 40)), ()),
        ZstdMap((Hole(10, 10, 999),), ()),
        ZstdMap((Hole(1 << 63, 1 << 63, 40),), ()),
        ZstdMap((), (Extent(0, SIZE + 1),)),
        ZstdMap((), (Extent(0, 100), Extent(99, 10))),
        ZstdMap((), (Extent(0, 0),)),
    ],
)
def test_an_impossible_map_is_refused(read, zstd_map):
    with pytest.raises(ValueError, match="its map is impossible"):
        read(FRAME + encode_map(zstd_map))


def test_a_map_that_claims_to_be_huge_is_not_read(read):
    for counts in [(MAX_HOLES + 1, 0), (0, 1 << 31)]:
        with pytest.raises(ValueError, match="too large"):
            read(FRAME + struct.pack("<II8s", *counts, b"vbk-map\x01"))


def test_a_map_without_its_beginning_is_refused(read):
    with pytest.raises(ValueError, match="cut off"):
        read(encode_map(GOOD)[9:])
    with pytest.raises(ValueError, match="cut off"):
        read(b"x" * 100 + encode_map(GOOD)[9:])


@given(flips=st.lists(st.tuples(st.integers(0, 127), st.integers(1, 255)), max_size=4))
def test_damage_never_gets_out_of_the_image(tmp_path_factory, flips):
    content = bytearray(FRAME + encode_map(GOOD))
    for back, bits in flips:
        content[-1 - back % (len(content) - len(FRAME))] ^= bits
    path = tmp_path_factory.getbasetemp() / "damaged.zstd"
    path.write_bytes(content)
    with path.open("rb") as file:
        try:
            found = read_map(file.fileno(), SIZE)
        except ValueError:
            return
    if found is not None:
        assert all(extent.end <= SIZE for extent in found.extents)
        assert all(hole.start + hole.length <= SIZE for hole in found.holes)
