"""frame.py, runs.py, parts.py: runs and holes make one frame for any decoder."""

import io
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtbackup_async.errors import VirtBackupError
from virtbackup_async.model.extent import Extent
from virtbackup_async.packagers.zstd import runs
from virtbackup_async.packagers.zstd.frame import (
    BLOCK_BYTES,
    LAST_BLOCK,
    frame_header,
    hole_blocks,
    hole_length,
    run_header,
)
from virtbackup_async.packagers.zstd.map import (
    ZstdMap,
    encode_map,
    packed_run,
    pieces_of,
    read_map,
)
from virtbackup_async.packagers.zstd.parts import read_frame, read_pieces
from virtbackup_async.packagers.zstd.runs import RunCompressor, RunCompressors, run_bytes_of

# What makes libzstd use repeat offsets and tables at once: short periods, runs, text, and noise.
WORDS = st.sampled_from([b"\0" * 9, b"a" * 8, b"foo bar ", b"12345678abcd"])
RUNS = st.one_of(
    st.binary(min_size=1, max_size=300),
    st.builds(bytes.__mul__, st.binary(min_size=1, max_size=20), st.integers(1, 9000)),
    st.builds(lambda seed, count: _noise(seed) * count, st.integers(0, 255), st.integers(1, 3)),
    st.lists(WORDS, min_size=1, max_size=9000).map(b"".join),
)
HOLES = st.one_of(st.integers(1, 400), st.integers(1, 3 * BLOCK_BYTES))
LEVELS = [1, 3, 5, 8, 12]
COMPRESSORS = RunCompressors()
TEXT = b"".join(b"line %d of %d\n" % (number, number % 7) for number in range(30_000))
SOME = [5_000_000, TEXT, TEXT[7:] + os.urandom(200_000), BLOCK_BYTES + 9, b"12345678" * 99, 1, TEXT]


def _noise(seed):
    return bytes((seed * index * index >> 3) & 0xFF for index in range(BLOCK_BYTES // 2 + seed))


class Frame:
    """Runs (bytes) and holes (numbers) as a file, what is in it, and its map."""

    def __init__(self, parts, level):
        self.plain = b"".join(bytes(part) if isinstance(part, int) else part for part in parts)
        frame, position, runs, holes = frame_header(24, len(self.plain)), 0, b"", []
        for part in parts:
            if isinstance(part, int):
                blocks = b"".join(hole_blocks(part, is_first=not position))
                assert len(blocks) == hole_length(part, is_first=not position)
                holes.append(Extent(position, part))
                position += part
            else:
                blocks = COMPRESSORS.compress(level, part)
                runs += packed_run(len(part), len(blocks))
                position += len(part)
            frame += blocks
        self.frame = frame + LAST_BLOCK
        self.map = ZstdMap(runs, tuple(holes), ())
        self.file = self.frame + b"".join(encode_map(self.map))


@pytest.fixture(scope="module")
def threads():
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture
def in_parts(tmp_path, threads):
    """What a reader finds in a file by its map."""

    def read(content, plain_bytes):
        path = tmp_path / "frame.zstd"
        path.write_bytes(content)
        found = bytearray()
        with path.open("rb") as file:
            zstd_map, end = read_map(file.fileno(), plain_bytes)
            pieces = pieces_of(zstd_map, plain_bytes, end)
            for part in read_pieces(file.fileno(), pieces, threads, 3):
                target = bytearray(b"?" * part.length)
                part.copy_to(memoryview(target))
                found += target
        return bytes(found)

    return read


def streamed(content):
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)) as reader:
        return b"".join(iter(lambda: reader.read(70_001), b""))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    runs=st.lists(RUNS, max_size=5), holes=st.lists(HOLES, min_size=5, max_size=5),
    shape=st.sampled_from(["runs", "hole first", "run first"]), level=st.sampled_from(LEVELS),
)  # fmt: skip
def test_runs_and_holes_are_one_frame(in_parts, runs, holes, shape, level):
    pairs = zip(holes, runs, strict=False) if shape == "hole first" else zip(runs, holes)  # noqa: B905 -- of different lengths
    made = Frame(runs if shape == "runs" else list(chain.from_iterable(pairs)), level)
    assert zstandard.ZstdDecompressor().decompress(made.frame) == made.plain
    assert streamed(made.file) == made.plain
    assert in_parts(made.file, len(made.plain)) == made.plain
    assert b"".join(bytes(part.data) for part in read_frame(io.BytesIO(made.file))) == made.plain


@pytest.mark.parametrize("level", [*LEVELS, 19])
def test_a_run_leans_on_nothing_before_it(level):
    parts = [b"abcdefghi" * 500, b"12345678" * 50 + b"a" * 300, TEXT[:200_000], b"abcd" * 70]
    made = {part: COMPRESSORS.compress(level, part) for part in parts}
    for order in (parts, parts[::-1], [parts[2], *parts], [parts[1], parts[1]]):
        plain = b"".join(order)
        frame = run_header(len(plain)) + b"".join(map(made.get, order)) + LAST_BLOCK
        assert zstandard.ZstdDecompressor().decompress(frame) == plain


class OneStream(RunCompressor):
    """Looks back from a run into those before."""

    stream = None

    def compress(self, data):
        if self.stream is None:
            self.stream = zstandard.ZstdCompressor(level=self.level).compressobj()
        return self.stream.compress(data) + self.stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


class ManyFrames(RunCompressor):
    """Counts on the offsets that a frame starts with."""

    def compress(self, data):
        frame = zstandard.ZstdCompressor(level=self.level).compressobj()
        packed = frame.compress(data) + frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        return packed[zstandard.frame_header_size(packed) :]


@pytest.mark.parametrize("compressor", [OneStream, ManyFrames])
@pytest.mark.parametrize("level", LEVELS)
def test_a_libzstd_whose_runs_depend_on_each_other_is_not_used(compressor, level):
    with pytest.raises(VirtBackupError, match="does not compress independently"):
        compressor(level)


def test_the_first_block_is_one_that_old_decoders_take():
    """Up to 1.4.3 they stumble over an RLE block at the start of a frame."""
    for blocks in (COMPRESSORS.compress(3, bytes(1 << 20)), *hole_blocks(1 << 20, is_first=True)):
        assert blocks[0] >> 1 & 3 != 1
        break


@pytest.mark.parametrize("level", [1, 3])
def test_zstd_itself_reads_it(level):
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    made = Frame(SOME, level)
    command = ["zstd", "-q", "-d", "-c"]
    done = subprocess.run(command, input=made.file, capture_output=True, check=True)
    assert done.stdout == made.plain


def test_a_compressor_is_used_again_by_those_who_want_its_level(monkeypatch):
    made = []

    class Counted(RunCompressor):
        def __init__(self, level):
            made.append(level)
            super().__init__(level)

    monkeypatch.setattr(runs, "RunCompressor", Counted)
    compressors = RunCompressors()
    for level in (3, 3, 1, 1, 3):
        compressors.compress(level, b"something")
    assert made == [3, 1, 3]


def test_a_run_has_room_for_matches_and_none_is_too_long_for_a_reader():
    lengths = [run_bytes_of(level) for level in range(23)]
    assert lengths[1:] == sorted(lengths[1:])
    assert (lengths[0], lengths[3], lengths[22]) == (4 << 20, 4 << 20, runs.MOST_RUN_BYTES)


def test_a_hole_takes_next_to_no_room():
    assert hole_length(100 << 30, is_first=True) < (100 << 30) // BLOCK_BYTES * 4 + 64


LIES = {
    "a hole elsewhere": lambda m: ZstdMap(m.runs, (Extent(3400, 100), *m.holes[1:]), ()),
    "a shorter hole": lambda m: ZstdMap(m.runs, (Extent(3500, 99), *m.holes[1:]), ()),
    "no second hole": lambda m: ZstdMap(m.runs, m.holes[:1], ()),
    "no first run": lambda m: ZstdMap(m.runs[8:], m.holes, ()),
    "one run more": lambda m: ZstdMap(m.runs + packed_run(1, 9), m.holes, ()),
    "a run that is shorter": lambda m: ZstdMap(packed_run(3499, 30) + m.runs[8:], m.holes, ()),
    "blocks that are longer": lambda m: ZstdMap(packed_run(3500, 31) + m.runs[8:], m.holes, ()),
    "endless blocks": lambda m: ZstdMap(packed_run(3500, 1 << 31) + m.runs[8:], m.holes, ()),
    "an endless run": lambda m: ZstdMap(packed_run(1 << 31, 30) + m.runs[8:], m.holes, ()),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_map_that_lies_is_found_out(in_parts, lie):
    made = Frame([b"abcdefg" * 500, 100, b"12345678" * 50, 300_000], level=3)
    content = made.frame + b"".join(encode_map(LIES[lie](made.map)))
    with pytest.raises((EOFError, ValueError, zstandard.ZstdError)):
        in_parts(content, len(made.plain))


def test_damage_in_a_hole_is_found(in_parts):
    made = Frame([TEXT, 900_000, TEXT], level=3)
    content = bytearray(made.file)
    place = made.frame.index(b"".join(hole_blocks(900_000, is_first=False)))
    content[place + 7] ^= 1  # what is repeated
    with pytest.raises(ValueError, match="where none is"):
        in_parts(bytes(content), len(made.plain))


def test_parts_that_nobody_asked_for_are_left(tmp_path, threads):
    made = Frame([TEXT] * 20, level=1)
    path = tmp_path / "frame.zstd"
    path.write_bytes(made.file)
    with path.open("rb") as file:
        zstd_map, end = read_map(file.fileno(), len(made.plain))
        asked = []
        pieces = (asked.append(one) or one for one in pieces_of(zstd_map, len(made.plain), end))
        parts = read_pieces(file.fileno(), pieces, threads, 3)
        assert bytes(next(parts).data) == TEXT
        parts.close()
        assert len(asked) == 3
