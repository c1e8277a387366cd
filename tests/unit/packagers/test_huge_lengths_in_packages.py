"""Packages that name lengths no file has: told as damaged, with little memory and at once."""

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc

import pytest
import zstandard

from virtbackup_async.errors import CorruptError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.model.backup import Packager
from virtbackup_async.packagers.registry import open_reader

HUGE = [1 << 51, 1 << 62, (1 << 63) - 1, 1 << 63, 1 << 64, 1 << 70]
NAME, FILE = "b", "b_vda.raw"
MIB = 1 << 20
MOST_BYTES = 128 * MIB
COMPRESSIONS = {"": bytes, "gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}
SUFFIXES = {"": "tar", "gz": "tar.gz", "xz": "tar.xz", "bz2": "tar.bz2"}


async def read(packager, directory):
    async with (
        open_reader(packager, directory, NAME, BufferPool()) as package,
        package.open_disk(FILE) as stream,
    ):
        async for _ in stream.pieces():
            pass


async def assert_damaged(packager, directory):
    tracemalloc.start()
    try:
        with pytest.raises(CorruptError):
            await read(packager, directory)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def put_tar(directory, compression, head, data=b"x" * 512):
    packed = COMPRESSIONS[compression](head + data + bytes(1024))
    (directory / f"{NAME}.{SUFFIXES[compression]}").write_bytes(packed)
    return Packager("tar", {"compression": compression} if compression else {})


def pax_head(**headers):
    info = tarfile.TarInfo("GNUSparseFile.0/x" if "realsize" in str(headers) else FILE)
    info.size = 512
    info.pax_headers = {key.replace("__", "."): str(value) for key, value in headers.items()}
    return info.tobuf(tarfile.PAX_FORMAT)


def long_name(length):
    """A header that announces a name of that length."""
    block = bytearray(tarfile.TarInfo("././@LongLink").tobuf(tarfile.GNU_FORMAT))
    block[156:157] = b"L"
    block[124:136] = b"\x80" + length.to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("length", HUGE)
async def test_the_length_of_a_sparse_image_in_tar(tmp_path, compression, length):
    head = pax_head(
        GNU__sparse__major=1, GNU__sparse__minor=0, GNU__sparse__name=FILE,
        GNU__sparse__realsize=length,
    )  # fmt: skip
    sparse_map = f"1\n{length}\n0\n".encode().ljust(512, b"\0")
    packager = put_tar(tmp_path, compression, head, sparse_map)
    await assert_damaged(packager, tmp_path)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("length", HUGE)
async def test_the_length_of_a_member_of_tar(tmp_path, compression, length):
    await assert_damaged(put_tar(tmp_path, compression, pax_head(size=length)), tmp_path)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("length", [1 << 25, 1 << 33, 1 << 40, 1 << 62])
async def test_the_length_of_a_name_in_tar(tmp_path, compression, length):
    packager = put_tar(tmp_path, compression, long_name(length), bytes(8 * MIB))
    await assert_damaged(packager, tmp_path)


async def test_headers_without_end_in_little_space(tmp_path):
    """300 MiB of names in some KiB of archive."""
    plain = io.BytesIO()
    with gzip.GzipFile(fileobj=plain, mode="wb") as file:
        for _ in range(100):
            file.write(long_name(3 * MIB))
            file.write(b"n" * (3 * MIB))
    (tmp_path / f"{NAME}.tar.gz").write_bytes(plain.getvalue())
    await assert_damaged(Packager("tar", {"compression": "gz"}), tmp_path)


@pytest.mark.parametrize("length", [1 << 51, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 3])
async def test_the_length_of_an_image_in_zstd(tmp_path, length):
    frame = bytearray(zstandard.ZstdCompressor(write_content_size=True).compress(b"x" * 70000))
    # magic, descriptor with a content size of 4 bytes: made one of 8.
    descriptor = frame[4]
    wide = bytes([descriptor | 0xC0]) + length.to_bytes(8, "little")
    assert descriptor >> 6 == 2
    start = 5 if descriptor & 0x20 else 6
    window = bytes(frame[5:start])
    (tmp_path / f"{NAME}_{FILE}.zstd").write_bytes(
        bytes(frame[:4]) + wide[:1] + window + wide[1:] + bytes(frame[start + 4 :])
    )
    await assert_damaged(Packager("zstd"), tmp_path)


@pytest.mark.parametrize("length", [(1 << 50) + 1])
async def test_the_length_of_an_image_in_a_directory(tmp_path, length):
    with (tmp_path / FILE).open("wb") as file:
        try:
            file.truncate(length)
        except OSError:  # not on this file system: it cannot be there then
            return
    await assert_damaged(Packager("directory"), tmp_path)
