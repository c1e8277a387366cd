"""packagers/codecs/gzip_member.py: a level packs as tightly as whoever asks for it is used to."""

import os
import sys
import sysconfig
import zlib
from pathlib import Path

import pytest

from virtbackup_async.packagers.codecs.gzip_member import compress_gzip, decompress_gzip

MIB = 1 << 20


def programs():
    return Path(os.path.realpath(sys.executable)).read_bytes()[:MIB]


def texts():
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return b"".join(file.read_bytes() for file in files)[:MIB]


@pytest.mark.parametrize("content", [programs, texts])
@pytest.mark.parametrize("level", range(1, 10))
def test_a_level_is_at_most_3_percent_larger_than_zlib_s(content, level):
    data = content()
    packed = compress_gzip(level, memoryview(data))
    assert len(packed) <= 1.03 * len(zlib.compress(data, level))
    assert decompress_gzip(packed, len(data)) == data
