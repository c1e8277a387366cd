"""packagers/zstd/map.py: what is written is read, and nothing impossible gets through."""

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtbackup_async.model.extent import Extent
from virtbackup_async.packagers.zstd.frame import LAST_BLOCK
from virtbackup_async.packagers.zstd.map import (
    MAX_HOLES,
    MAX_RUNS,
    ZstdMap,
    encode_map,
    packed_run,
    pieces_of,
    read_map,
)
from virtbackup_async.packagers.zstd.runs import MOST_RUN_BYTES

FRAME = bytes(1000) + LAST_BLOCK
RUNS = packed_run(10, 20) + packed_run(90, 30) + packed_run(24, 5)
GOOD = ZstdMap(RUNS, (Extent(10, 500), Extent(600, 100)), (Extent(0, 10), Extent(700, 24)))
SIZE = 724


def encoded(zstd_map):
    return b"".join(encode_map(zstd_map))


@pytest.fixture
def read(tmp_path):
    def read(content, size_bytes=SIZE):
        path = tmp_path / "file.zstd"
        path.write_bytes(content)
        with path.open("rb") as file:
            return read_map(file.fileno(), size_bytes)

    return read


EMPTY = ZstdMap(b"", (), ())


@pytest.mark.parametrize("zstd_map", [GOOD, EMPTY, ZstdMap(b"", (), (Extent(0, SIZE),))])
def test_what_is_written_is_read(read, zstd_map):
    assert read(FRAME + encoded(zstd_map)) == (zstd_map, len(FRAME))


@pytest.mark.parametrize(
    "content",
    [b"", b"short", FRAME, encoded(GOOD)[:-1], encoded(GOOD)[:-1] + b"\x01", b"vbk-map\x02"],
)
def test_the_files_of_others_have_none(read, content):
    assert read(content) is None


def test_a_map_that_would_be_too_long_is_not_written():
    assert encode_map(ZstdMap(bytes(8 * (MAX_RUNS + 1)), (), ())) == []


@pytest.mark.parametrize(
    "ranges",
    [
        (Extent(10, 0),),
        (Extent(10, SIZE),),
        (Extent(100, 100), Extent(50, 10)),
        (Extent(0, 100), Extent(99, 10)),
        (Extent(1 << 63, 1 << 63),),
        (Extent(0, SIZE + 1),),
    ],
)
def test_an_impossible_map_is_refused(read, ranges):
    for zstd_map in (ZstdMap(b"", ranges, ()), ZstdMap(b"", (), ranges)):
        with pytest.raises(ValueError, match="its map is impossible"):
            read(FRAME + encoded(zstd_map))


def test_a_map_that_claims_to_be_huge_is_not_read(read):
    for counts in [(0, MAX_HOLES + 1, 0), (0, 0, 1 << 31), (MAX_RUNS + 1, 0, 0)]:
        with pytest.raises(ValueError, match="too large"):
            read(FRAME + struct.pack("<III8s", *counts, b"vbk-map\x02"))


def test_a_map_without_its_beginning_is_refused(read):
    for content in (encoded(GOOD)[9:], b"x" * 100 + encoded(GOOD)[9:], bytes(100) + encoded(GOOD)):
        with pytest.raises(ValueError, match="cut off"):
            read(content)


def test_runs_and_holes_fill_the_image_and_the_file():
    pieces = list(pieces_of(GOOD, SIZE, 14 + 55 + 8 + len(LAST_BLOCK)))
    assert [(one.start, one.length, one.is_hole) for one in pieces] == [
        (0, 10, False), (10, 500, True), (510, 90, False), (600, 100, True), (700, 24, False),
    ]  # fmt: skip
    assert [one.place for one in pieces] == [14, 34, 38, 68, 72]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(flips=st.lists(st.tuples(st.integers(0, 127), st.integers(1, 255)), max_size=4))
def test_damage_never_gets_out_of_the_image(read, flips):
    content = bytearray(FRAME + encoded(GOOD))
    for back, bits in flips:
        content[-1 - back % (len(content) - len(FRAME))] ^= bits
    try:
        found = read(bytes(content))
        if found is None:
            return
        assert all(extent.end <= SIZE for extent in found[0].extents)
        for piece in pieces_of(found[0], SIZE, found[1]):
            assert piece.start + piece.length <= SIZE
            assert piece.is_hole or piece.length <= MOST_RUN_BYTES
    except ValueError:
        return
