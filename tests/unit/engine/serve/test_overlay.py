"""An overlay keeps what was flushed, whatever happens to its process; the backup never changes."""

import errno
import os
import random

import pytest

from fakes.memory_device import MemoryDevice
from virtbackup_async.engine.serve.overlay_device import OverlayDevice
from virtbackup_async.engine.serve.overlay_file import BLOCK_BYTES, Below, OverlayFile
from virtbackup_async.errors import ConfigError, CorruptError, LockHeldError

SIZE = 40 * BLOCK_BYTES + 700
NOISE = random.Random(2).randbytes(SIZE // 2)
CONTENT = NOISE + bytes(SIZE - len(NOISE))
BELOW = Below("web", "20260301-021500_3_web", "vda", SIZE, ("blake3-256k:00",))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "web.overlay"


def opened(path, below=BELOW):
    file = OverlayFile(path, below)
    return OverlayDevice(MemoryDevice(CONTENT), file), file


@pytest.mark.parametrize("seed", range(6))
async def test_it_reads_as_it_was_written_and_again_after_a_flush_and_a_kill(path, seed):
    rng = random.Random(seed)
    device, file = opened(path)
    expected, flushed = bytearray(CONTENT), bytes(CONTENT)
    for _ in range(60):
        start = rng.randrange(SIZE)
        length = rng.randint(1, min(5 * BLOCK_BYTES, SIZE - start))
        if rng.random() < 0.3:
            start, length = start // BLOCK_BYTES * BLOCK_BYTES, BLOCK_BYTES
            length = min(length, SIZE - start)
        action = rng.choice(["write", "zero", "read", "flush", "map"])
        if action == "write":
            data = rng.randbytes(length)
            await device.write(start, data)
            expected[start : start + length] = data
        elif action == "zero":
            await device.write_zeroes(start, length)
            expected[start : start + length] = bytes(length)
        elif action == "read":
            assert await device.read(start, length) == expected[start : start + length]
        elif action == "flush":
            await device.flush()
            flushed = bytes(expected)
        else:
            found = await device.data_in(start, length, 3)
            rest = bytearray(expected)
            for extent in found.data:
                rest[extent.start : extent.end] = bytes(extent.length)
            assert not any(rest[start : found.end])
    assert await device.read(0, SIZE) == expected
    await device.flush()
    file.close()
    again, file = opened(path)
    assert await again.read(0, SIZE) == expected
    file.close()
    assert flushed is not None


async def test_what_was_not_flushed_is_lost_as_a_whole_block_or_not_at_all(path):
    device, file = opened(path)
    await device.write(0, b"a" * BLOCK_BYTES)
    await device.flush()
    await device.write(BLOCK_BYTES, b"b" * BLOCK_BYTES)
    file.close()
    again, file = opened(path)
    assert await again.read(0, 2) == b"aa"
    assert await again.read(BLOCK_BYTES, 2) in {b"bb", CONTENT[BLOCK_BYTES : BLOCK_BYTES + 2]}
    file.close()


async def test_data_is_synced_before_the_states_that_name_it(path, monkeypatch):
    device, file = opened(path)
    steps = []
    sync, write = os.fdatasync, os.pwrite
    monkeypatch.setattr(os, "fdatasync", lambda fd: (steps.append("sync"), sync(fd)))
    monkeypatch.setattr(
        os, "pwrite", lambda fd, data, at: (steps.append("states" if at < 1 << 20 else "data"),
                                            write(fd, data, at))[1],
    )  # fmt: skip
    await device.write(0, b"x")
    await device.flush()
    assert steps == ["data", "sync", "states", "sync"]
    file.close()


async def test_after_a_flush_that_failed_nothing_more_is_taken(path, monkeypatch):
    device, file = opened(path)
    await device.write(0, b"x")

    def failing(_fd):
        raise OSError(errno.EIO, "lost")

    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(OSError, match="lost"):
        await device.flush()
    monkeypatch.undo()
    for attempt in (device.flush(), device.write(0, b"y"), device.write_zeroes(0, BLOCK_BYTES)):
        with pytest.raises(OSError, match="earlier flush"):
            await attempt
    file.close()


async def test_a_hole_of_the_overlay_takes_no_space(path):
    device, file = opened(path)
    await device.write_zeroes(0, SIZE)
    await device.flush()
    assert await device.read(0, SIZE) == bytes(SIZE)
    assert path.stat().st_blocks * 512 < BLOCK_BYTES
    file.close()


def test_it_is_private_and_locked(path):
    _, file = opened(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(LockHeldError, match="another process uses the overlay"):
        opened(path)
    file.close()


@pytest.mark.parametrize(
    "other",
    [
        Below("web", "20260302-021500_3_web", "vda", SIZE, ("blake3-256k:00",)),
        Below("web", "20260301-021500_3_web", "vdb", SIZE, ("blake3-256k:00",)),
        Below("web", "20260301-021500_3_web", "vda", SIZE - 1, ("blake3-256k:00",)),
        Below("web", "20260301-021500_3_web", "vda", SIZE, ("blake3-256k:01",)),
    ],
)
def test_that_of_another_disk_is_refused(path, other):
    _, file = opened(path)
    file.close()
    with pytest.raises(ConfigError, match="is that of vda of 20260301"):
        opened(path, other)


def test_a_file_that_is_no_overlay_is_left_alone(path):
    path.write_bytes(b"important" * 1000)
    with pytest.raises(ConfigError, match="is no overlay"):
        opened(path)
    assert path.read_bytes() == b"important" * 1000


def test_one_whose_making_was_interrupted_is_made(path):
    path.write_bytes(bytes(1 << 20))
    _, file = opened(path)
    file.close()
    _, file = opened(path)
    file.close()


@pytest.mark.parametrize("cut", [4096, 4100])
def test_one_that_is_cut_off_is_corrupt(path, cut):
    _, file = opened(path)
    file.close()
    os.truncate(path, cut)
    with pytest.raises(CorruptError, match="is damaged"):
        opened(path)


def test_a_link_is_not_followed(path, tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="cannot open"):
        opened(path)
