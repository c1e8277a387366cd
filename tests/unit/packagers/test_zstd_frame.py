"""packagers/zstd_frame.py: runs of libzstd's and holes of ours make one frame for any decoder."""

import io
import os
import shutil
import subprocess
from itertools import chain

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from virtbackup_async.packagers.zstd import _parameters, _Run
from virtbackup_async.packagers.zstd_frame import (
    BLOCK_BYTES,
    LAST_BLOCK,
    RESET,
    SMALLEST_HOLE_BYTES,
    frame_header,
    hole_blocks,
    run_header,
)
from virtbackup_async.packagers.zstd_map import Hole
from virtbackup_async.packagers.zstd_parts import read_frame

# What makes libzstd use repeat offsets and tables at once: short periods, runs, text, and noise.
WORDS = st.sampled_from([b"\0" * 9, b"a" * 8, b"foo bar ", b"12345678abcd"])
RUNS = st.one_of(
    st.binary(min_size=1, max_size=300),
    st.builds(bytes.__mul__, st.binary(min_size=1, max_size=20), st.integers(1, 9000)),
    st.builds(lambda seed, count: _noise(seed) * count, st.integers(0, 255), st.integers(1, 3)),
    st.lists(WORDS, min_size=1, max_size=9000).map(b"".join),
)
HOLES = st.one_of(
    st.integers(SMALLEST_HOLE_BYTES, 400), st.integers(SMALLEST_HOLE_BYTES, 3 * BLOCK_BYTES)
)
LEVELS = st.sampled_from([1, 3, 5, 8, 12, 16, 19])


def _noise(seed):
    return bytes((seed * index * index >> 3) & 0xFF for index in range(BLOCK_BYTES // 2 + seed))


def frame_of(parts, level, threads=0, window_log=23):
    """The frame of runs (bytes) and holes (numbers), what is in it, and its holes."""
    plain_bytes = sum(part if isinstance(part, int) else len(part) for part in parts)
    compressor = zstandard.ZstdCompressor(compression_params=_parameters(level, threads))
    frame, position, holes = bytearray(frame_header(window_log, plain_bytes)), 0, []
    for part in parts:
        if isinstance(part, int):
            holes.append(Hole(position, part, len(frame)))
            frame += b"".join(hole_blocks(part, is_first=not position))
            position += part
        else:
            run = _Run(compressor)
            frame += b"".join(chain(run.compress([part]), run.finish()))
            position += len(part)
    plain = b"".join(bytes(part) if isinstance(part, int) else part for part in parts)
    return bytes(frame + LAST_BLOCK), plain, holes


def streamed(frame):
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(frame)) as reader:
        return b"".join(iter(lambda: reader.read(70_001), b""))


def in_parts(frame, holes):
    found = bytearray()
    for part in read_frame(io.BytesIO(frame), holes):
        target = bytearray(b"?" * part.length)
        part.copy_to(memoryview(target))
        found += target
    return bytes(found)


@settings(max_examples=60, deadline=None)
@given(
    runs=st.lists(RUNS, max_size=5), holes=st.lists(HOLES, min_size=6, max_size=6),
    starts_with_hole=st.booleans(), level=LEVELS,
)  # fmt: skip
def test_runs_and_holes_are_one_frame(runs, holes, starts_with_hole, level):
    parts = list(chain.from_iterable(zip(runs, holes, strict=False)))
    frame, plain, places = frame_of([holes[5], *parts] if starts_with_hole else parts, level)
    assert zstandard.ZstdDecompressor().decompress(frame, max_output_size=len(plain)) == plain
    assert streamed(frame) == plain
    assert in_parts(frame, places) == plain
    assert in_parts(frame, []) == plain


@pytest.mark.parametrize(("level", "threads"), [(1, 0), (3, 2), (19, 0)])
def test_zstd_itself_reads_it(level, threads):
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    text = b"".join(b"line %d of %d\n" % (number, number % 7) for number in range(90_000))
    more = [64, text[7:] + os.urandom(200_000), BLOCK_BYTES + 9, b"12345678" * 99, 70]
    frame, plain, _ = frame_of([5_000_000, text, *more], level, threads)
    command = ["zstd", "-q", "-d", "-c"]
    done = subprocess.run(command, input=frame, capture_output=True, check=True)
    assert done.stdout == plain


def test_a_hole_sets_the_repeat_offsets_back():
    """Without it, what libzstd takes for granted at the start of a run would not be so."""
    parts = [b"abcdefg" * 500, 100, b"12345678" * 50 + b"aaaa" * 50]
    frame, plain, _ = frame_of(parts, level=3)
    not_reset = frame.replace(RESET, b"\x4b\x00\x00\0")  # nine zeros as an RLE block
    assert zstandard.ZstdDecompressor().decompress(frame) == plain
    with pytest.raises(zstandard.ZstdError):
        assert zstandard.ZstdDecompressor().decompress(not_reset) == plain, "no error, but wrong"


def test_a_hole_takes_next_to_no_room():
    blocks = b"".join(hole_blocks(100 << 30, is_first=True))
    assert len(blocks) < (100 << 30) // BLOCK_BYTES * 4 + 64


@pytest.mark.parametrize("window_size", [1 << 17, 1 << 21, 1 << 27, 3 << 20])
def test_the_header_of_a_run_has_room_for_the_window(window_size):
    assert zstandard.get_frame_parameters(run_header(window_size)).window_size >= window_size


@pytest.mark.parametrize(
    ("hole", "why"),
    [
        (Hole(3500, 100, 15), "inside of a block"),
        (Hole(3400, 100, 0), "where none is"),
        (Hole(3500, 101, 0), "where data is"),
        (Hole(3500, 500_000, 0), "where data is|cut off"),
    ],
)
def test_a_map_that_lies_is_found_out(hole, why):
    frame, _, (true,) = frame_of([b"abcdefg" * 500, 100, b"12345678" * 50], level=3)
    lie = Hole(hole.start, hole.length, hole.place or true.place)
    with pytest.raises((EOFError, ValueError), match=why):
        in_parts(frame, [lie])
