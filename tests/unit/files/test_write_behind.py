"""files/write_behind.py: what is written early, what stays in the page cache."""

import os
import subprocess

import pytest

from page_cache import cached_bytes
from virtbackup_async.files import write_behind
from virtbackup_async.files.write_behind import WINDOW_BYTES, WriteBehind
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.sources.file import open_image_stream

MIB = 1 << 20


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    with path.open("wb", buffering=0) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _disk(tmp_path):
    kind = subprocess.check_output(["stat", "-f", "-c", "%T", tmp_path], text=True).strip()
    if kind in {"tmpfs", "ramfs"}:
        pytest.skip(f"{kind} is nothing but page cache")


def write(file, behind, length_bytes):
    """Write so much, in chunks, and push when it is due; tell how often it was."""
    pushes = 0
    for _ in range(length_bytes // MIB):
        file.write(os.urandom(MIB))
        if behind.gather(file.tell(), MIB):
            behind.push()
            pushes += 1
    return pushes


def test_what_is_on_disk_leaves_the_cache(file):
    behind = WriteBehind(file.fileno())
    assert write(file, behind, 4 * WINDOW_BYTES) == 4
    # The last window is on its way; all before it were waited for.
    assert cached_bytes(file.name) <= WINDOW_BYTES
    behind.finish()
    assert cached_bytes(file.name) == 0


def test_little_is_not_pushed(file):
    behind = WriteBehind(file.fileno())
    assert write(file, behind, WINDOW_BYTES - MIB) == 0
    behind.finish()
    assert cached_bytes(file.name) == 0


def test_only_data_counts(file):
    behind = WriteBehind(file.fileno())
    for place in range(100):
        file.seek(place * WINDOW_BYTES)
        file.write(b"x" * 4096)
        assert not behind.gather(file.tell(), 4096)
    behind.finish()
    assert cached_bytes(file.name) == 0


def test_windows_of_a_file_that_grows_by_odd_lengths_end_where_folios_do(file, monkeypatch):
    windows = []
    monkeypatch.setattr(
        write_behind, "_sync_range", lambda _fd, window, _flags: windows.append(window)
    )
    behind = WriteBehind(file.fileno())
    length_bytes = 4 * MIB + 512
    for count in range(1, 20):
        if behind.gather(count * length_bytes, length_bytes):
            behind.push()
    begun = sorted(set(windows))
    assert len(begun) == 4
    assert all(start % MIB == 0 and length % MIB == 0 for start, length in begun)
    assert [start for start, _ in begun] == [0, *(sum(window) for window in begun[:-1])]


def test_scattered_data_is_pushed_up_to_its_end(file):
    behind = WriteBehind(file.fileno())
    assert write(file, behind, WINDOW_BYTES) == 1
    file.seek(100 * WINDOW_BYTES + 4096)
    assert write(file, behind, WINDOW_BYTES) == 1
    assert write(file, behind, WINDOW_BYTES) == 1
    assert cached_bytes(file.name) <= WINDOW_BYTES + MIB


def test_where_ranges_cannot_be_synced_it_goes_on_without():
    reading, writing = os.pipe()
    try:
        behind = WriteBehind(writing)
        assert behind.gather(WINDOW_BYTES, WINDOW_BYTES)
        behind.push()  # ESPIPE
    finally:
        os.close(reading)
        os.close(writing)


def test_error_is_told(file):
    behind = WriteBehind(file.fileno())
    behind.gather(WINDOW_BYTES, WINDOW_BYTES)
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        behind.push()


async def test_sparse_copy_leaves_nothing_in_the_cache(tmp_path):
    image, copy = tmp_path / "image", tmp_path / "copy"
    image.write_bytes(os.urandom(MIB) * 40)
    async with open_image_stream(image, BufferPool()) as stream:
        assert await write_sparse(stream, copy, lambda _: None) == 40 * MIB
    assert cached_bytes(copy) == 0
