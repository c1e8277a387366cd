"""packagers/codecs/xz.py: streams that are not compressed, read by everybody."""

import lzma
import os
import subprocess

import pytest

from virtbackup_async.packagers.codecs.xz import store_xz, xz_streams

LENGTHS = [0, 1, 2, 3, 4, 5, 127, 128, 65535, 65536, 65537, 200_000, 1 << 20, (2 << 20) + 1]


@pytest.mark.parametrize("length", LENGTHS)
def test_stream_is_read_back(length):
    data = os.urandom(length)
    stored = store_xz(memoryview(data))
    assert lzma.decompress(stored) == data
    assert len(stored) <= length + 3 * (length // 65536 + 1) + 64


def test_streams_beside_others_are_read_by_xz_and_found_by_their_indexes(tmp_path):
    pieces = [os.urandom(length) for length in LENGTHS]
    streams = [store_xz(memoryview(piece)) for piece in pieces] + [lzma.compress(b"text" * 999)]
    path = tmp_path / "file.xz"
    path.write_bytes(b"".join(streams))
    subprocess.run(["xz", "-t", path], check=True)
    with lzma.open(path) as file:
        assert file.read() == b"".join(pieces) + b"text" * 999
    with path.open("rb") as file:
        lengths = xz_streams(file.fileno(), 16 << 20)
    assert list(lengths[-2::-2]) == [len(stream) for stream in streams]
    assert list(lengths[::-2]) == [*LENGTHS, 3996]


def test_damage_is_found():
    stored = bytearray(store_xz(memoryview(os.urandom(100_000))))
    stored[50_000] ^= 1
    with pytest.raises(lzma.LZMAError):
        lzma.decompress(stored)
