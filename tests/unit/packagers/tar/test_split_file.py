"""split_file.py and members.py: an archive of many members is one file, or refused."""

import bz2
import gzip
import io
import lzma
import os
import random
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtbackup_async.packagers.codecs.compressor import method_of
from virtbackup_async.packagers.codecs.gzip_member import compress_gzip
from virtbackup_async.packagers.tar.members import MOST_BYTES, split_of
from virtbackup_async.packagers.tar.split_file import SplitFile

METHODS = ["gz", "bz2", "xz"]
PLAIN = {"gz": gzip.decompress, "bz2": bz2.decompress, "xz": lzma.decompress}
WHOLE = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def some_examples(count):
    shared = [HealthCheck.function_scoped_fixture]  # the archive is only read
    return settings(max_examples=count, deadline=None, suppress_health_check=shared)


@pytest.fixture(scope="module")
def threads():
    with ThreadPoolExecutor(2) as threads:
        yield threads


@contextmanager
def opened(path, threads, ahead=3):
    fd = os.open(path, os.O_RDONLY)
    try:
        with SplitFile(fd, split_of(fd), threads, ahead) as file:
            yield file
    finally:
        os.close(fd)


def write_archive(path, method, pieces):
    compress = method_of(method, 1).compress
    path.write_bytes(b"".join(bytes(compress(memoryview(piece))) for piece in pieces))
    return path


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.fixture
def pieces():
    rng = random.Random(5)
    return [rng.randbytes(rng.choice([1, 70, 3000])) * rng.randint(1, 30) for _ in range(40)]


@pytest.fixture
def archive(tmp_path, method, pieces):
    return write_archive(tmp_path / "archive", method, pieces)


def test_standard_decompressors_see_one_stream(archive, method, pieces):
    assert PLAIN[method](archive.read_bytes()) == b"".join(pieces)


def test_read_from_front_to_back(archive, threads, pieces):
    with opened(archive, threads) as file:
        assert file.read() == b"".join(pieces)
        assert file.read(1) == b""


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(reads=st.lists(st.tuples(st.integers(0, 400_000), st.integers(1, 70_000)), max_size=12))
def test_read_anywhere(archive, threads, pieces, reads):
    plain = io.BytesIO(b"".join(pieces))
    with opened(archive, threads) as file:
        for place, length in reads:
            file.seek(place)
            plain.seek(place)
            assert file.read(length) == plain.read(length)
            assert file.tell() == place + len(plain.getvalue()[place : place + length])


def test_what_is_passed_over_is_not_decompressed(tmp_path, threads):
    archive = write_archive(tmp_path / "archive", "gz", [b"a" * 9000, b"b" * 9000, b"c" * 9000])
    content = bytearray(archive.read_bytes())
    content[40] ^= 0xFF  # in the first member's data
    archive.write_bytes(content)
    with opened(archive, threads) as file:
        file.seek(18_000)
        assert file.read() == b"c" * 9000
        file.seek(0)
        with pytest.raises(ValueError, match=r"decompress|crc"):
            file.read(1)


@pytest.mark.parametrize("method", METHODS)
def test_one_long_stream_is_for_the_sequential_reader(tmp_path, method):
    path = tmp_path / "archive"
    path.write_bytes(WHOLE[method](bytes(MOST_BYTES + 1)))
    with path.open("rb") as file:
        assert split_of(file.fileno()) is None


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", b"ustar" * 500])
def test_what_is_no_archive_is_for_the_sequential_reader(tmp_path, content):
    path = tmp_path / "archive"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert split_of(file.fileno()) is None


@pytest.mark.parametrize(
    ("length_bytes", "plain_bytes"), [(0, 10), (10, 10), (1 << 31, 10), (60, 1 << 31), (60, 11)]
)
def test_a_gzip_member_that_lies_about_its_length_is_refused(
    tmp_path, threads, length_bytes, plain_bytes
):
    member = bytearray(compress_gzip(6, memoryview(os.urandom(10))))
    struct.pack_into("<II", member, 16, length_bytes, plain_bytes)
    path = tmp_path / "archive"
    path.write_bytes(member + bytes(60))
    with opened(path, threads) as file, pytest.raises((ValueError, EOFError)):
        file.read()


def test_a_bzip2_stream_that_unpacks_to_too_much_is_refused(tmp_path, threads):
    path = tmp_path / "archive"
    path.write_bytes(bz2.compress(b"small") + bz2.compress(bytes(MOST_BYTES + 1)))
    with opened(path, threads) as file, pytest.raises(ValueError, match="too long"):
        file.read()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    flips=st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(1, 255)), min_size=1, max_size=3),
    keep=st.floats(0.1, 1),
)
def test_damage_is_an_error_or_harmless(archive, tmp_path, threads, pieces, flips, keep):
    content = bytearray(archive.read_bytes())
    for place, bits in flips:
        content[place % len(content)] ^= bits
    path = tmp_path / "damaged"
    path.write_bytes(content[: int(len(content) * keep)])
    with path.open("rb") as file:
        if split_of(file.fileno()) is None:
            return
    try:
        with opened(path, threads) as file:
            found = file.read()
    except (ValueError, EOFError, OSError, lzma.LZMAError):
        return
    plain = b"".join(pieces)
    # Cut off between two members, it is a shorter archive; tarfile tells that it is.
    assert plain.startswith(found)


def test_closed_before_all_is_read(archive, threads):
    with opened(archive, threads, ahead=8) as file:
        file.read(70_000)
    with pytest.raises(ValueError, match="closed"):
        file.read(1)
