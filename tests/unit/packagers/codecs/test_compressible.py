"""packagers/codecs/compressible.py: what is left alone by slow compressors, and what is not."""

import lzma
import os
import random
import zlib

import pytest

from virtbackup_async.packagers.codecs.compressible import is_dense
from virtbackup_async.packagers.codecs.compressor import method_of
from virtbackup_async.packagers.codecs.gzip_member import HEAD_BYTES, compress_gzip, decompress_gzip

MIB = 1 << 20
TEXT = b"".join(b"line %d of a log, with a number: %d\n" % (n, n * n) for n in range(60_000))
RANDOM = random.Random(2).randbytes(MIB)


def like_a_picture():
    """Bytes of which some are more frequent: no matches, but not random either."""
    return bytes(random.Random(1).choices(range(256), [n * n for n in range(256)], k=MIB))


@pytest.mark.parametrize(
    ("data", "dense"),
    [
        (RANDOM, True),
        (lzma.compress(TEXT), True),
        (TEXT[:MIB], False),
        (bytes(MIB), False),
        (like_a_picture(), False),
        (RANDOM[: MIB // 2] + TEXT[: MIB // 2], False),
        (RANDOM[: MIB * 7 // 8] + bytes(MIB // 8), False),
        (RANDOM[: MIB // 8] * 8, False),
        (RANDOM[:5], True),
        (b"", True),
    ],
    ids=[
        "random",
        "archive",
        "text",
        "zeros",
        "picture",
        "half",
        "an-eighth",
        "twice",
        "short",
        "empty",
    ],
)
def test_dense(data, dense):
    assert is_dense(memoryview(data)) is dense


@pytest.mark.parametrize("compression", ["gz", "xz"])
def test_dense_segments_grow_by_next_to_nothing(compression):
    data = memoryview(os.urandom(MIB))
    packed = method_of(compression, 6).compress(data)
    assert len(packed) < MIB + 1024


def test_gzip_members_of_dense_data_are_read_as_others_are():
    data = os.urandom(MIB + 5)
    member = compress_gzip(6, memoryview(data))
    assert zlib.decompress(member, wbits=31) == data
    assert decompress_gzip(member, len(data)) == data
    assert len(member) - HEAD_BYTES < len(data) + 200
