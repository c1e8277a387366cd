"""Writing behind a compressor."""

from pathlib import Path

import pytest
from anyio import fail_after

from virtbackup_async.errors import StorageError
from virtbackup_async.packagers.output import open_output
from virtbackup_async.packagers.write_queue import open_write_queue


class FullOutput:
    """Takes one batch, and has no room for the second."""

    path = Path("/full/x.zstd")

    def __init__(self):
        self.written = []

    async def write(self, pieces):
        if self.written:
            raise StorageError("no space left: /full/x.zstd")
        self.written.append(pieces)


async def test_pieces_are_in_the_file_in_order_when_flushed(tmp_path):
    async with open_output(tmp_path / "x") as output, open_write_queue(output) as queue:
        for number in range(50):
            await queue.write([bytes([number]), bytes([number + 100])])
        await queue.flush()
        await output.finish()
    wanted = b"".join(bytes([number, number + 100]) for number in range(50))
    assert (tmp_path / "x").read_bytes() == wanted


async def test_a_write_that_fails_is_told_at_the_latest_by_the_flush():
    output = FullOutput()
    async with open_write_queue(output) as queue:
        await queue.write([b"1"])
        await queue.write([b"2"])
        with pytest.raises(StorageError, match="no space"):
            await queue.flush()
        with pytest.raises(StorageError, match="no space"):
            await queue.write([b"3"])
    assert output.written == [[b"1"]]


async def test_what_is_not_flushed_does_not_keep_the_block_open():
    output = FullOutput()
    with fail_after(20):
        async with open_write_queue(output) as queue:
            await queue.write([b"1"])
            await queue.write([b"2"])
    assert output.written in ([], [[b"1"]])
